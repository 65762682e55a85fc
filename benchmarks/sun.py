"""Fit the observed solar atlas with an emulator trained on ``mgb_reference`` (10,000 spectra, 17 labels).

``STARPAYNE_DATA=… python benchmarks/sun.py MODEL`` trains the model where it is not there yet (recipe ``payne_wide``),
then fits 5161–5209 Å with 5163.5–5166.5 Å masked (C2): (a) teff, logg, feh, vmic free and solar ratios, (b) all labels
free. Target for (a): within 150 K of 5772, 0.15 of 4.44, 0.08 of 0.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from yardstick import data_folder, record

from starpayne import bundle, plots
from starpayne.evaluation import evaluate
from starpayne.fitting import FitOptions, FitResult, fit
from starpayne.grid import Grid
from starpayne.importers import import_folder
from starpayne.spectra import ObservedSpectrum
from starpayne.training import Recipe, TrainingData, train

RESOLUTION = 47_000
OPTIONS = {"window": (5161.0, 5209.0), "mask": ((5163.5, 5166.5),)}


def facts(result: FitResult, seconds: float) -> dict:
    data = result.to_dict()
    keep = ("rv", "rv_error", "vsini", "vsini_error", "reduced_chi2", "jitter", "n_pixels", "flags")
    labels = {n: f"{e['value']:.3f} ± {e['error']:.3f}" for n, e in data["labels"].items()}
    return {"labels": labels, **{k: data[k] for k in keep}, "seconds": round(seconds, 1)}


def main() -> None:
    path = Path(sys.argv[1])
    folder = data_folder()
    store = path.with_suffix(".grid.zarr")
    grid = Grid.open(store) if store.exists() else import_folder(folder / "mgb_reference", store)
    start = time.perf_counter()
    recipe = Recipe.preset("payne_wide")
    model = train(
        TrainingData.from_grid(grid, name="mgb_reference"), recipe, path,
        progress=lambda step, total, f: print(step, total, f, flush=True) if "validation_mae" in f else None,
    )  # fmt: skip
    model = bundle.load(path)
    trained = time.perf_counter() - start
    sun = ObservedSpectrum.read(folder / "sun_atlas" / "ATLAS.Sun_47000.txt.gz", unit="nm", medium="air")
    free = ("teff", "logg", "feh", "vmic")
    fixed = {name: 0.0 for name in model.emulator.space.names if name not in free}
    results = {}
    for name, fix in (("a: teff, logg, feh, vmic free", fixed), ("b: all labels free", {})):
        start = time.perf_counter()
        result = fit(sun, model, RESOLUTION, FitOptions(fix=fix, **OPTIONS))
        results[name] = facts(result, time.perf_counter() - start)
        plots.fitted_spectrum(result).savefig(path.parent / f"sun_{name[0]}.png")
    evaluation = evaluate(model, grid)
    record(
        "sun",
        {
            "grid": "mgb_reference, 10,000 training spectra", "test_mae": round(evaluation.mae, 6),
            "training_seconds": round(model.training["seconds"], 1), "this_call_seconds": round(trained, 1),
            "recipe": recipe.to_dict(), "fits": results,
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
