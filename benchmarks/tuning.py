"""Equal tuning budgets: every emulator gets as many trials, each of as many seconds, and the best on validation counts.

``python benchmarks/tuning.py GRID --n-train 1000 --seconds 75`` on an imported ``mgb_reference``. The steps of a trial
are those that fit into its seconds at the speed measured just before, so that each schedule ends in time. The trials
are listed below, each as changes to a recipe that ships.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from yardstick import gflops, record

from starpayne.evaluation import evaluate
from starpayne.grid import Grid
from starpayne.training import Recipe, TrainingData, train
from starpayne.training.speed import fitted_to

TRIALS: dict[str, list[dict[str, Any]]] = {
    "payne_scaled": [
        {"architecture": {"hidden": [256] * 6}, "learning_rate": 1e-2},
        {"architecture": {"hidden": [256] * 6}, "learning_rate": 2e-2},
        {"architecture": {"hidden": [256] * 4}, "learning_rate": 1e-2},
        {"architecture": {"hidden": [384] * 4}, "learning_rate": 1e-2},
        {"architecture": {"hidden": [256] * 8}, "learning_rate": 1e-2},
    ],
    "transformer": [
        {"architecture": {"width": 64, "depth": 4}, "learning_rate": 5e-3},
        {"architecture": {"width": 64, "depth": 4}, "learning_rate": 1e-2},
        {"architecture": {"width": 64, "depth": 4}, "learning_rate": 2e-2},
        {"architecture": {"width": 64, "depth": 2}, "learning_rate": 1e-2},
        {"architecture": {"width": 32, "depth": 4}, "learning_rate": 1e-2},
    ],
    "additive": [
        {"architecture": {"hidden": [64] * 6}, "learning_rate": 2e-2},
        {"architecture": {"hidden": [64] * 6}, "learning_rate": 1e-2},
        {"architecture": {"hidden": [64] * 4}, "learning_rate": 2e-2},
        {"architecture": {"hidden": [64] * 8}, "learning_rate": 2e-2},
        {"architecture": {"hidden": [128] * 4}, "learning_rate": 1e-2},
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("grid", type=Path)
    parser.add_argument("--n-train", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=75.0)
    parser.add_argument("--emulator", action="append", choices=list(TRIALS))
    parser.add_argument("--best-of", type=Path, help="JSON of an earlier run: only the best trial of each in it")
    given = parser.parse_args()
    grid = Grid.open(given.grid)
    data = TrainingData.from_grid(grid, given.n_train, name=given.grid.name)
    found: dict[str, Any] = {}
    earlier = json.loads(given.best_of.read_text())["emulators"] if given.best_of else None
    for name in given.emulator or TRIALS:
        rows = []
        for changes in TRIALS[name] if earlier is None else [earlier[name]["best"]["changes"]]:
            recipe = fitted_to(given.seconds, data, Recipe.preset(name).replace(**changes))
            yardstick = gflops()
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                model = train(data, recipe, Path(folder) / "model")
                seconds = time.perf_counter() - start
                rows.append({
                    "changes": changes, "steps": recipe.steps, "seconds": round(seconds, 1),
                    "validation_mae": round(model.validation["mae"], 6),
                    "test_mae": round(evaluate(model, grid).mae, 6),
                    "parameters": model.training["parameters"], "yardstick_gflops": round(yardstick, 1),
                })  # fmt: skip
            print(name, rows[-1], flush=True)
        found[name] = {"best": min(rows, key=lambda row: row["validation_mae"]), "trials": rows}
    facts = {"grid": given.grid.name, "n_train": given.n_train, "seconds_per_trial": given.seconds, "emulators": found}
    record(f"tuning_N{given.n_train}", facts)


if __name__ == "__main__":
    main()
