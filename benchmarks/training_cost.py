"""What a training step of TransformerPayne costs beside a plain matrix product: through the real training loop.

``STARPAYNE_DATA=… python benchmarks/training_cost.py``; three minutes on two idle cores. With ``--gpu``, or where the
default JAX device is a GPU, the published size 256×16 as well, in float32 and with products in bfloat16.

Operations are counted as our formulation needs them: query·key and value·out folded into one matrix each per star and
layer, products only, three times the forward pass, no optimizer. Beside it stands the paper's count, 20·d²·L for each
wavelength. Yardstick, step and forward pass take turns, and each counts with its best turn. On a machine shared with
others fractions by the clock scatter; those of processor time (``…_of_processor_time``: operations per second of
processor time, step and yardstick alike) do not, but say nothing of a core that waits.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from yardstick import data_folder, record, speeds

from starpayne.importers import import_folder
from starpayne.training import Recipe, TrainingData
from starpayne.training.architectures import TransformerArchitecture
from starpayne.training.build import build
from starpayne.training.loop import Run

H200_BFLOAT16 = 790e3
"""GFLOP/s that an H200 is said to reach in dense bfloat16."""


@dataclass(frozen=True)
class Size:
    """One network, and the spectra × wavelengths of its steps."""

    width: int
    depth: int
    spectra: int
    wavelengths: int
    steps_per_turn: int
    precision: str = "float32"

    @property
    def name(self) -> str:
        return f"{self.width}x{self.depth}" + (f" {self.precision}" if self.precision != "float32" else "")

    def recipe(self) -> Recipe:
        return Recipe.preset("transformer").replace(
            architecture={"width": self.width, "depth": self.depth},
            batch_spectra=self.spectra, batch_wavelengths=self.wavelengths, precision=self.precision,
        )  # fmt: skip


CPU = [Size(64, 4, 32, 128, 8), Size(128, 8, 32, 256, 1), Size(256, 4, 32, 256, 1)]
GPU = [Size(256, 16, 64, 500, 8), Size(256, 16, 64, 500, 8, "bfloat16")]


def useful(recipe: Recipe, spectra: int, wavelengths: int) -> float:
    """Return the operations of the products of one forward pass, as our formulation needs them."""
    a = recipe.architecture
    assert isinstance(a, TransformerArchitecture)
    d, layers, tokens = a.width, a.depth, a.tokens
    scores = d // a.head_width * tokens
    row = layers * (4 * d * scores + 16 * d**2) + 2 * d**2 + 2 * d
    # Embedding; then keys, values, and either folded with query or output weights, for each token.
    star = tokens * (2 * d**2 + layers * 8 * d**2)
    return float(spectra * (wavelengths * row + star))


def nominal(recipe: Recipe, spectra: int, wavelengths: int) -> float:
    """Return the operations of one forward pass as arXiv:2407.05751 counts them."""
    a = recipe.architecture
    assert isinstance(a, TransformerArchitecture)
    return 20.0 * a.width**2 * a.depth * spectra * wavelengths


def seconds(work: Callable[[], Any]) -> np.ndarray:
    """Return seconds by the clock and of processor time."""
    start = np.array([time.perf_counter(), time.process_time()])
    jax.block_until_ready(work())
    return np.array([time.perf_counter(), time.process_time()]) - start


def measure(data: TrainingData, size: Size, turns: int) -> dict[str, Any]:
    """Return the costs of one size."""
    recipe = size.recipe()
    run = Run.whole(data, recipe, build(data, recipe))
    n = size.steps_per_turn
    # The loop's own batches; a run that has begun, so that the learning rate is not zero.
    state = run.advance(run.initial, 0, n)[0]
    emulator = run.assembly(state.weights).with_products(size.precision)
    bound = run.bound.at(emulator, jnp.arange(size.wavelengths))
    labels = jnp.asarray(data.labels[: size.spectra], jnp.float32)
    forward = eqx.filter_jit(lambda b, x: b.batch(x))

    @jax.jit
    def updates(weights: Any, optimizer: Any) -> Any:
        def step(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], None]:
            weights, optimizer = carry
            change, optimizer = run.optimizer.update(weights, optimizer, weights)
            return (eqx.apply_updates(weights, change), optimizer), None

        return jax.lax.scan(step, (weights, optimizer), length=n)[0]

    work = {
        "step": lambda: seconds(lambda: run.advance(state, n, 2 * n)[0]) / n,
        "forward": lambda: seconds(lambda: forward(bound, labels)),
        "optimizer": lambda: seconds(lambda: updates(state.weights, state.optimizer)) / n,
    }
    for turn in work.values():
        turn()
    times: dict[str, list[np.ndarray]] = {name: [] for name in work}
    yardsticks = [speeds()]
    for _ in range(turns):
        for name, turn in work.items():
            times[name].append(turn())
        yardsticks.append(speeds())
    best = {name: np.min(t, axis=0) for name, t in times.items()}
    peak = np.max(yardsticks, axis=0)
    need, paper = useful(recipe, size.spectra, size.wavelengths), nominal(recipe, size.spectra, size.wavelengths)
    step, forward_pass = 3 * need / best["step"] / 1e9, need / best["forward"] / 1e9
    facts = {
        "spectra_x_wavelengths": f"{size.spectra}x{size.wavelengths}",
        "yardstick_gflops": [round(float(y[0]), 1) for y in yardsticks],
        "step_ms": round(1e3 * best["step"][0], 2),
        "useful_gflops": round(step[0], 1),
        "nominal_gflops": round(step[0] * paper / need, 1),
        "useful_fraction": round(step[0] / peak[0], 3),
        "nominal_fraction": round(step[0] / peak[0] * paper / need, 3),
        "forward_ms": round(1e3 * best["forward"][0], 2),
        "forward_useful_fraction": round(forward_pass[0] / peak[0], 3),
        "optimizer_share": round(best["optimizer"][0] / best["step"][0], 3),
    }
    if jax.default_backend() == "cpu":
        facts |= {
            "useful_fraction_of_processor_time": round(step[1] / peak[1], 3),
            "forward_useful_fraction_of_processor_time": round(forward_pass[1] / peak[1], 3),
            "optimizer_share_of_processor_time": round(best["optimizer"][1] / best["step"][1], 3),
        }
    else:
        facts["nominal_fraction_of_h200_bfloat16"] = round(facts["nominal_gflops"] / H200_BFLOAT16, 4)
    return {name: float(value) if isinstance(value, float) else value for name, value in facts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", action="store_true", help="the published size as well")
    parser.add_argument("--turns", type=int, default=4, help="how often each is measured")
    arguments = parser.parse_args()
    sizes = CPU + (GPU if arguments.gpu or jax.default_backend() == "gpu" else [])
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        grid = import_folder(data_folder() / "korg_flux", Path(folder) / "grid.zarr")
        data = TrainingData.from_grid(grid, name="korg_flux")
        for size in sizes:
            rows[size.name] = measure(data, size, arguments.turns)
            print(size.name, rows[size.name], flush=True)
    record("training_cost", {"grid": "korg_flux", "turns": arguments.turns, "sizes": rows})


if __name__ == "__main__":
    main()
