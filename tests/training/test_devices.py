"""A training on several devices takes the steps of a training on one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import jax
import pytest
import toy

from starpayne.errors import TrainingError
from starpayne.training.devices import shared_by

EIGHT = """
import json
import jax
import numpy as np
import toy
from starpayne.training.build import build
from starpayne.training import loop

data, recipe = toy.data(), toy.recipe({emulator!r}, batch_spectra=16, optimizer="adamw", learning_rate=1e-3)
emulator = build(data, recipe)
found = {{}}
for devices in (1, 8):
    run = loop.Run.whole(data, recipe, emulator, devices=devices)
    state, losses = run.initial, []
    # With AdamW the first update is the gradient's sign; the gradient itself is in its first moment.
    state, loss = run.advance(state, 0, 1)
    losses.append(loss)
    moments = [np.asarray(x) for x in jax.tree_util.tree_leaves(state.optimizer) if np.ndim(x) > 1]
    for step in range(1, 20):
        state, loss = run.advance(state, step, step + 1)
        losses.append(loss)
    leaf = jax.tree_util.tree_leaves(state.weights)[0]
    found[devices] = losses, moments, len(leaf.sharding.device_set)
(one, first, _), (eight, second, used) = found[1], found[8]
scale = max(float(np.abs(x).max()) for x in first)
gradient = max(float(np.abs(x - y).max()) for x, y in zip(first, second, strict=True)) / scale
loss = max(abs(x - y) / abs(x) for x, y in zip(one, eight, strict=True))
print(json.dumps({{"gradient": gradient, "loss": loss, "devices": used}}))
"""


@pytest.mark.parametrize("emulator", ["payne", "transformer"])
def test_eight_devices_take_the_steps_of_one(emulator: str) -> None:
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    script = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n" + EIGHT.format(emulator=emulator)
    found = json.loads(toy.python(script, environment={"XLA_FLAGS": flags}).splitlines()[-1])
    assert found["devices"] == 8
    assert found["gradient"] <= 1e-6
    assert found["loss"] <= 1e-4


def test_devices_share_batches_equally_and_no_more_than_there_are() -> None:
    assert shared_by(31) is None
    with pytest.raises(TrainingError, match=r"devices = 0 is outside the range 1 to 1, the devices of this machine"):
        shared_by(32, 0)
    with pytest.raises(TrainingError, match="devices = 9"):
        shared_by(32, len(jax.local_devices()) + 8)
