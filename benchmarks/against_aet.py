"""Against astro-emulators-toolkit (AET) 0.1.0 on ``mgb_reference``: same rows, same seconds of training, MAE of both.

``STARPAYNE_DATA=… python benchmarks/against_aet.py --aet-python PATH --seconds 150 --n-train 1000``, where PATH is the
Python of an environment in which ``astro-emulators-toolkit`` is installed. Its TransformerPayne is trained there by
``aet_trainer.py`` with its own preset at the size of ours. For both, the steps come from the speed measured just
before, so that the cosine ends at the time limit, and neither compilation nor that measurement counts; a run that
misses the limit by a fifth, as others used the machine more or less, is repeated, at most twice. AET is moreover given
the best of three batch sizes, found in short runs. Ours validates as it goes, and that counts. The MAE is that of the
500 test spectra.

Throughput is in operations as each formulation needs them, per second of processor time, as a fraction of what a plain
matrix product reaches by the same measure: both take all cores, and other users disturb it less than the clock.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from training_cost import useful
from yardstick import data_folder, record, speeds

from starpayne.evaluation import evaluate
from starpayne.grid import Grid
from starpayne.importers import import_folder
from starpayne.training import Recipe, TrainingData, train
from starpayne.training.architectures import TransformerArchitecture

TRIES = 3


def export(grid: Grid, data: TrainingData, folder: Path) -> None:
    """Write the arrays that AET trains on."""
    test = np.asarray(grid.split.test)
    arrays = {
        "wavelength": data.wavelength, "low": data.space.low, "high": data.space.high,
        "train_labels": data.labels, "train_flux": data.targets[:, 0],
        "validation_labels": data.validation_labels, "validation_flux": data.validation_targets[:, 0],
        "test_labels": grid.labels[test], "test_flux": grid.flux(test),
    }  # fmt: skip
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)


def timed(data: TrainingData, recipe: Recipe, path: Path, limit: float = np.inf) -> tuple[Any, dict[str, float]]:
    """Train, and return the model and the speed from the end of the first call on; stop after so many seconds."""
    times: list[float] = []
    processor: list[float] = []
    steps: list[int] = []

    def progress(step: int, total: int, facts: Mapping[str, float]) -> None:
        times.append(time.perf_counter())
        processor.append(time.process_time())
        steps.append(step)
        if len(times) > 2 and times[-1] - times[0] > limit:
            raise KeyboardInterrupt

    model = None
    try:
        model = train(data, recipe, path, progress=progress)
    except KeyboardInterrupt:
        if times[-1] - times[0] <= limit:
            raise
    rate = (steps[-1] - steps[0]) / (times[-1] - times[0])
    return model, {
        "steps": steps[-1], "seconds": steps[-1] / rate, "steps_per_second": rate,
        "processor_seconds_per_step": (processor[-1] - processor[0]) / (steps[-1] - steps[0]),
    }  # fmt: skip


def ours(grid: Grid, data: TrainingData, name: str, seconds: float, folder: Path) -> dict[str, Any]:
    """Train one of our recipes for so many seconds."""
    recipe = Recipe.preset(name)
    before = speeds()[1]
    trial = recipe.replace(steps=10**6)
    rate = timed(data, trial, folder / f"{name}-trial", min(10.0, seconds / 5))[1]["steps_per_second"]
    for attempt in range(TRIES):
        steps = max(100, round(rate * seconds / 50) * 50)
        model, facts = timed(data, recipe.replace(steps=steps), folder / f"{name}-{attempt}")
        rate = facts["steps_per_second"]
        if abs(facts["seconds"] - seconds) < 0.2 * seconds:
            break
    facts |= {"test_mae": evaluate(model, grid).mae, "yardstick_of_processor_time": max(before, speeds()[1])}
    if recipe.emulator == "transformer":
        rows = recipe.batch_spectra, recipe.batch_wavelengths
        facts["useful_fraction"] = fraction(facts, 3 * useful(recipe, *rows))
    return facts


def fraction(facts: Mapping[str, Any], operations: float) -> float:
    """Return operations per second of processor time as a fraction of a plain product's."""
    return operations / facts["processor_seconds_per_step"] / 1e9 / facts["yardstick_of_processor_time"]


def aet_operations(recipe: Recipe, spectra: int, wavelengths: int) -> float:
    """Return the operations of one forward pass as AET does it: query and output projected at every wavelength."""
    a = recipe.architecture
    assert isinstance(a, TransformerArchitecture)
    row = a.depth * (4 * a.width**2 + 4 * a.width * a.tokens + 16 * a.width**2) + 2 * a.width**2 + 2 * a.width
    star = a.tokens * (2 * a.width**2 + a.depth * 4 * a.width**2)
    return float(spectra * (wavelengths * row + star))


def theirs(grid: Grid, data: TrainingData, python: str, seconds: float, folder: Path) -> dict[str, Any]:
    """Train AET's TransformerPayne at the size of our preset, in its own environment."""
    recipe = Recipe.preset("transformer")
    sizes = {n: getattr(recipe.architecture, n) for n in ("width", "depth", "tokens", "head_width")}
    export(grid, data, folder)
    script = Path(__file__).parent / "aet_trainer.py"
    command = [python, str(script), str(folder), "--seconds", str(seconds), "--trial-seconds", str(seconds / 5)]
    for name, value in sizes.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    subprocess.run(command, check=True)
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    facts["test_mae"] = float(
        np.mean(np.abs(np.load(folder / "predicted.npy") - grid.flux(np.asarray(grid.split.test))))
    )
    operations = 3 * aet_operations(recipe, facts["spectra"], facts["wavelengths"])
    return {**facts, "useful_fraction": fraction(facts, operations)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--aet-python", required=True, help="Python of the environment that holds AET")
    parser.add_argument("--seconds", type=float, default=600.0, help="of training, each")
    parser.add_argument("--n-train", type=int, default=1000, help="spectra to train and validate on")
    parser.add_argument("--recipe", action="append", help="of ours; may be repeated (transformer and payne_scaled)")
    given = parser.parse_args()
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        grid = import_folder(data_folder() / "mgb_reference", folder / "grid.zarr")
        data = TrainingData.from_grid(grid, given.n_train, name="mgb_reference")
        for name in given.recipe or ["transformer", "payne_scaled"]:
            rows[name] = ours(grid, data, name, given.seconds, folder)
            print(name, rows[name], flush=True)
        exported = folder / "aet"
        exported.mkdir()
        rows["aet"] = theirs(grid, data, given.aet_python, given.seconds, exported)
        print("aet", rows["aet"], flush=True)
    print(f"{'':14} {'test MAE':>9} {'steps':>7} {'seconds':>8} {'fraction of a product':>22}")
    for name, row in rows.items():
        part = f"{row['useful_fraction']:.3f}" if "useful_fraction" in row else "-"
        print(f"{name:14} {row['test_mae']:9.5f} {row['steps']:7d} {row['seconds']:8.0f} {part:>22}")
    split = f"training {len(data.labels)}, validation {len(data.validation_labels)}, test {len(grid.split.test)}"
    record("against_aet", {"grid": "mgb_reference", "split": split, "seconds_asked": given.seconds, "runs": rows})


if __name__ == "__main__":
    main()
