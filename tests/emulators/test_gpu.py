"""What is done for GPUs, as far as a machine without one can tell; the kernel runs in Pallas' interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from starpayne.emulators import SpectralDomain, TransformerPayne, base
from starpayne.emulators.blocks import star_matrices
from starpayne.emulators.fused import Tiling, fused_outputs, fusible
from starpayne.errors import RecipeError
from starpayne.fitting import lanes

DOMAIN = SpectralDomain(5000.0, 5010.0, "air", 50_000.0)
TILES = Tiling(rows=32, scores=32, chunk=32, warps=4, stages=2)


def network(width: int = 32, head_width: int = 16, **changes: object) -> TransformerPayne:
    """A tiny network with random weights."""
    return TransformerPayne.initialise(
        toy.SPACE, DOMAIN, ("flux", "log10_continuum"), width=width, head_width=head_width, depth=3,
        key=jax.random.key(1), **changes,
    )  # fmt: skip


@pytest.fixture
def labels() -> jax.Array:
    return jnp.asarray(toy.SPACE.sobol(3, 0), jnp.float32)


@pytest.mark.parametrize("activation", ["gelu", "silu"])
def test_the_kernel_computes_the_network(labels: jax.Array, activation: str) -> None:
    emulator = network(activation=activation)
    encoding = emulator.on().encoding[:70]  # two whole tiles and a part of one
    tokens = emulator.tokens(labels)
    found = fused_outputs(
        emulator.block, emulator.head, star_matrices(emulator.block.layers(), tokens), encoding, activation, TILES, True
    )
    exact = emulator._outputs(emulator.block.layers(), tokens, encoding[None])
    rounded = emulator.with_products("bfloat16")._outputs(emulator.block.layers(), tokens, encoding[None])
    scatter = float(jnp.std(exact))
    assert found.shape == exact.shape
    assert float(jnp.std(found - exact)) < 0.01 * scatter
    # As far from the exact outputs as bfloat16 is by the other way, which is not where float32 would be.
    ratio = float(jnp.std(found - exact) / jnp.std(rounded - exact))
    assert 0.5 < ratio < 2


def test_the_kernel_is_for_sizes_that_it_can_take() -> None:
    assert fusible(network().block, 16)
    assert not fusible(network(width=48).block, 16)
    assert not fusible(network(tokens=12).block, 12)


def test_a_gpu_uses_the_kernel_only_where_bfloat16_is_asked_for(
    labels: jax.Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []
    monkeypatch.setattr(
        TransformerPayne, "fused", lambda self, x, encoding: used.append(len(x)) or self.spectra(x, encoding)
    )
    bound = network().on()
    rounded = bound.at(network().with_products("bfloat16"))
    rounded.values(labels)
    assert not used
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    bound.values(labels)
    assert not used
    rounded.values(labels)
    assert used == [3]


def test_float32_products_are_asked_for_in_full(labels: jax.Array) -> None:
    text = jax.jit(network().on()).lower(labels[0]).as_text()
    assert "dot_general" in text
    assert all("HIGHEST" in line for line in text.splitlines() if "dot_general" in line)


def test_a_precision_that_the_user_has_chosen_stays() -> None:
    code = "import starpayne.emulators, jax; print(jax.config.jax_default_matmul_precision)"
    environment = os.environ | {"JAX_DEFAULT_MATMUL_PRECISION": "tensorfloat32"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert run.stdout.strip() == "tensorfloat32"


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"precision = 'float16' is not known; choose one of float32, bfloat16"):
        network().predict(toy.SPACE.from_cube(np.full(5, 0.5)), precision="float16")


def test_a_prediction_in_bfloat16_is_near(labels: jax.Array) -> None:
    emulator = network()
    exact, rounded = (emulator.predict(np.asarray(labels), precision=p).flux for p in base.PRECISIONS)
    assert 0 < np.std(exact - rounded) < 0.01 * np.std(exact)


def test_a_call_may_take_a_quarter_of_the_memory_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert base.room() == base.PREDICT_MEMORY
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", lambda: [SimpleNamespace(memory_stats=lambda: {"bytes_limit": 2**36})])
    assert base.room() == 2**34
    sizes = [lanes.lanes(network().on(), 5, n) for n in (1, 2, 16, 17, 200)]
    assert sizes == [1, 16, 16, 128, 128]
    monkeypatch.setattr(jax, "local_devices", lambda: [SimpleNamespace(memory_stats=lambda: None)])
    assert base.room() == base.PREDICT_MEMORY
