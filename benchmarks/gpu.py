"""TransformerPayne on a GPU: how much of the chip's matrix products its forward pass and its training step reach.

``STARPAYNE_DATA=… python benchmarks/gpu.py``; two minutes. The networks have random weights: they say nothing of
accuracy, but all of speed, and by how much bfloat16 moves their outputs. Operations are those of ``training_cost.py``;
the yardstick is an 8192³ product in bfloat16, in the same run, and what fraction of 790 TFLOP/s was reached stands
beside it. ``--small`` runs everything at sizes that a CPU can do, the kernel in the interpreter.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from training_cost import Size, useful
from yardstick import data_folder, record

from starpayne.emulators.blocks import star_matrices
from starpayne.emulators.fused import Tiling, fused_outputs, tiling
from starpayne.emulators.transformer import BoundTransformerPayne
from starpayne.importers import import_folder
from starpayne.training import Recipe, TrainingData
from starpayne.training.build import build
from starpayne.training.loop import Run

NOMINAL = 790e12
"""Operations per second that an H100 or H200 is said to reach in dense bfloat16."""

TILINGS = {
    128: [(64, 32, 64, 4, 3), (64, 64, 64, 4, 3), (64, 64, 64, 4, 2), (128, 64, 64, 8, 3)],
    256: [(64, 64, 64, 8, 3), (64, 32, 64, 8, 3), (64, 64, 64, 8, 2), (64, 64, 32, 8, 3)],
}  # fmt: skip


def seconds(work: Callable[[], Any], turns: int = 7, calls: int = 3) -> float:
    """Return the median time of one call; several are on their way at a time, as in a prediction."""
    jax.block_until_ready(work())
    found = []
    for _ in range(turns):
        start = time.perf_counter()
        jax.block_until_ready([work() for _ in range(calls)])
        found.append((time.perf_counter() - start) / calls)
    return float(np.median(found))


def product_rate(n: int) -> float:
    """Return operations per second of an n³ product in bfloat16."""
    a, b = (jax.random.normal(jax.random.key(i), (n, n), jnp.bfloat16) for i in range(2))
    product = jax.jit(lambda x, y: jnp.dot(x, y, precision="default"))
    return 2 * n**3 / seconds(lambda: product(a, b))


def attempt(work: Callable[[], Any]) -> Any:
    """Return the result, or what went wrong in one line: one part that fails must not cost the others."""
    try:
        return work()
    except Exception as error:
        traceback.print_exc()
        return {"failed": f"{type(error).__name__}: {str(error)[:300]}"}


def forward(data: TrainingData, width: int, depth: int, stars: int, small: bool) -> dict[str, Any]:
    """Return the rates of the forward pass, plain and fused."""
    recipe = Size(width, depth, stars, len(data.wavelength), 1).recipe()
    emulator = build(data, recipe)
    bound = emulator.on(data.wavelength)
    assert isinstance(bound, BoundTransformerPayne)
    labels = jnp.asarray(data.space.sobol(stars, 0), jnp.float32)
    operations = useful(recipe, stars, len(data.wavelength))
    facts: dict[str, Any] = {"stars": stars, "wavelengths": len(data.wavelength), "tflop": operations / 1e12}

    def plain(precision: str) -> Any:
        function = eqx.filter_jit(lambda b, x: b.batch(x))
        there = bound.at(emulator.with_products(precision))
        return function(there, labels), seconds(lambda: function(there, labels))

    exact, time_exact = plain("float32")
    facts["float32 tflops"] = operations / time_exact / 1e12
    rounded, time_rounded = plain("bfloat16")
    scale = float(jnp.std(exact))
    facts["bfloat16 tflops"] = operations / time_rounded / 1e12
    facts["bfloat16 of 790"] = operations / time_rounded / NOMINAL
    facts["bfloat16 rms difference in units of the outputs' scatter"] = float(jnp.std(rounded - exact)) / scale

    def fused(tiles: Tiling) -> dict[str, Any]:
        @eqx.filter_jit
        def function(emulator: Any, x: Any, encoding: Any) -> Any:
            matrices = star_matrices(emulator.block.layers(), emulator.tokens(x))
            outputs = fused_outputs(
                emulator.block, emulator.head, matrices, encoding, emulator.activation, tiles, interpret=small
            )
            return emulator._scaled(outputs)

        found = function(emulator, labels, bound.encoding)
        time_fused = seconds(lambda: function(emulator, labels, bound.encoding))
        return {
            "tflops": operations / time_fused / 1e12, "of 790": operations / time_fused / NOMINAL,
            "rms difference": float(jnp.std(found - exact)) / scale,
        }  # fmt: skip

    choices = [Tiling(*t) for t in (TILINGS[width][:1] if small else TILINGS[width])]
    facts["fused"] = {}
    for tiles in choices:
        facts["fused"][str(tiles)] = attempt(lambda tiles=tiles: fused(tiles))
        print(width, depth, tiles, facts["fused"][str(tiles)], flush=True)
    facts["chosen"] = str(tiling(width))
    return facts


def training(data: TrainingData, width: int, depth: int, spectra: int, wavelengths: int, steps: int) -> dict[str, Any]:
    """Return what a step of the real training loop costs, with products in bfloat16."""
    recipe = Recipe.preset("transformer_128").replace(
        architecture={"width": width, "depth": depth}, batch_spectra=spectra, batch_wavelengths=wavelengths,
        steps=10**6, validate_every=steps,
    )  # fmt: skip
    run = Run.whole(data, recipe, build(data, recipe), devices=1)
    per_call = min(run.steps_per_call, steps)
    state, _ = run.advance(run.initial, 0, per_call)
    found = []
    for turn in range(3):
        start = time.perf_counter()
        state, loss = run.advance(state, per_call * (turn + 1), per_call * (turn + 2))
        found.append((time.perf_counter() - start) / per_call)
    operations = 3 * useful(recipe, spectra, wavelengths)
    return {
        "spectra x wavelengths": f"{spectra}x{wavelengths}", "ms": 1e3 * min(found), "loss": loss,
        "tflops": operations / min(found) / 1e12, "of 790": operations / min(found) / NOMINAL,
    }  # fmt: skip


def device() -> str:
    """Return the name of the GPU and its driver, or that there is none."""
    try:
        query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "no GPU"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    small = parser.parse_args().small
    with tempfile.TemporaryDirectory() as folder:
        grid = import_folder(data_folder() / "korg_flux", Path(folder) / "grid.zarr")
        data = TrainingData.from_grid(grid, name="korg_flux")
        facts: dict[str, Any] = {"device": device(), "product_tflops": product_rate(512 if small else 8192) / 1e12}
        print(facts, flush=True)
        sizes = [(128, 8, 256), (256, 16, 64)] if not small else [(128, 2, 1)]
        facts["forward"] = {
            f"{d}x{n}": attempt(lambda d=d, n=n, s=s: forward(data, d, n, s, small)) for d, n, s in sizes
        }
        steps = [(128, 8, 64, 500, 50), (256, 16, 64, 500, 20)] if not small else [(128, 2, 2, 64, 1)]
        facts["training"] = {}
        for d, n, s, w, k in steps:
            facts["training"][f"{d}x{n} {s}x{w}"] = attempt(
                lambda d=d, n=n, s=s, w=w, k=k: training(data, d, n, s, w, k)
            )
            print(d, n, s, w, facts["training"][f"{d}x{n} {s}x{w}"], flush=True)
    record("gpu_small" if small else "gpu", facts)


if __name__ == "__main__":
    main()
