"""What a trained emulator costs: operations and milliseconds per spectrum, beside a plain matrix product."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from starpayne.emulators import BoundEmulator, Emulator

BATCH = 64
"""Spectra in the timed batch."""

SECONDS = 0.5
"""About how long each figure is timed."""

SIDE = 2048
"""Rows of the square matrices whose product is the yardstick."""


@eqx.filter_jit
def _batch(bound: BoundEmulator, labels: jax.Array) -> jax.Array:
    return bound.batch(labels)


def matrix_product_rate() -> float:
    """Return the speed of a 2048³ float32 matrix product on the default device in GFLOP/s, the best of five."""
    a = jax.random.normal(jax.random.key(0), (SIDE, SIDE))
    product = jax.jit(lambda x: x @ x)
    jax.block_until_ready(product(a))
    times = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(product(a))
        times.append(time.perf_counter() - start)
    return 2 * SIDE**3 / min(times) / 1e9


def prediction_cost(emulator: Emulator, labels: np.ndarray) -> dict[str, Any]:
    """Measure what one spectrum on the emulator's own wavelengths costs.

    Args:
        emulator: the emulator.
        labels: (n, n_labels) physical labels to predict at; they are repeated to a batch of 64.

    Returns:
        ``operations_per_spectrum`` (of matrix products, in a batch), ``ms_per_spectrum_alone`` and
        ``ms_per_spectrum_in_batch``.
    """
    bound = emulator.on()
    rows = jnp.asarray(np.resize(labels, (BATCH, labels.shape[1])), jnp.float32)
    return {
        "operations_per_spectrum": matrix_operations(bound.batch, rows) / BATCH,
        "ms_per_spectrum_alone": 1e3 * _seconds(lambda: _batch(bound, rows[:1])),
        "ms_per_spectrum_in_batch": 1e3 * _seconds(lambda: _batch(bound, rows)) / BATCH,
    }


def matrix_operations(function: Callable[..., Any], *arguments: Any) -> float:
    """Return the operations of all matrix products in a function (a multiplication and an addition count as two).

    Counted in what JAX traces, a loop's body as often as it runs: the compiler's own analysis counts it once.
    """
    return _in_jaxpr(jax.make_jaxpr(function)(*arguments).jaxpr)


def _in_jaxpr(jaxpr: Any) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            terms = math.prod(shape[axis] for axis in contracted)
            total += 2.0 * terms * math.prod(equation.outvars[0].aval.shape)
        repeats = equation.params["length"] if equation.primitive.name == "scan" else 1
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(inner, "jaxpr", inner)  # a closed jaxpr holds an open one
                if hasattr(inner, "eqns"):
                    total += repeats * _in_jaxpr(inner)
    return total


def _seconds(call: Callable[[], jax.Array]) -> float:
    jax.block_until_ready(call())
    times: list[float] = []
    while sum(times) < SECONDS or len(times) < 3:
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return float(np.median(times))
