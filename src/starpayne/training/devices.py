"""A training on all devices of a machine: each takes an equal part of every batch, and all hold the weights."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from starpayne.errors import TrainingError

AXIS = "data"


def shared_by(batch: int, devices: int | None = None) -> Mesh | None:
    """Return the devices that share batches of a size: as many of this process' as divide it; None for one alone.

    Args:
        batch: spectra of a batch.
        devices: at most so many; by default all.

    Raises:
        TrainingError: for more devices than there are, or fewer than one.
    """
    found = jax.local_devices()
    if devices is not None and not 1 <= devices <= len(found):
        raise TrainingError(f"devices = {devices} is outside the range 1 to {len(found)}, the devices of this machine")
    most = devices or len(found)
    n = next(n for n in range(most, 0, -1) if batch % n == 0)
    return None if n == 1 else Mesh(np.array(found[:n]), (AXIS,))


def on_all(tree: Any, mesh: Mesh | None) -> Any:
    """Return a tree whose arrays lie on every device, whole."""
    if mesh is None:
        return tree
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.tree_util.tree_map(lambda x: jax.device_put(x, whole) if eqx.is_array(x) else x, tree)


def in_parts(x: jax.Array, mesh: Mesh | None) -> jax.Array:
    """Return an array inside of a compiled function whose first axis is shared out among the devices."""
    return x if mesh is None else jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(AXIS)))
