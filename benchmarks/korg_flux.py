"""The emulators on ``korg_flux`` (3 labels, 500 wavelengths), N = 800, fixed split: MAE on its 200 test spectra.

``STARPAYNE_DATA=… python benchmarks/korg_flux.py``; five minutes on two idle cores. Targets: The Payne's form with a
modern recipe 0.00025 within 90 s; TransformerPayne 0.0012 (aim 0.0008) within 600 s.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from yardstick import data_folder, gflops, record

from starpayne.evaluation import evaluate
from starpayne.importers import import_folder
from starpayne.training import Recipe, TrainingData, train

N = 800


def main() -> None:
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        grid = import_folder(data_folder() / "korg_flux", Path(folder) / "grid.zarr")
        for name in ("payne", "payne_published", "transformer"):
            recipe = Recipe.preset(name)
            before = gflops()
            start = time.perf_counter()
            model = train(TrainingData.from_grid(grid, N, name="korg_flux"), recipe, Path(folder) / name)
            seconds = time.perf_counter() - start
            result = evaluate(model, grid)
            rows[name] = {
                "test_mae": round(result.mae, 6),
                "test_rmse": round(result.rmse, 6),
                "validation_mae": round(model.validation["mae"], 6),
                "n_train_and_validation": N,
                "seconds": round(seconds, 1),
                "parameters": model.training["parameters"],
                "seed": recipe.seed,
                "yardstick_before": round(before, 1),
                "recipe": recipe.to_dict(),
            }
            print(name, {k: v for k, v in rows[name].items() if k != "recipe"}, flush=True)
    record("korg_flux", {"grid": "korg_flux", "split": "test 200, training 760, validation 40", "emulators": rows})


if __name__ == "__main__":
    main()
