"""The continuum as a second channel, on ``mgb_reference`` (17 labels), N = 1,000: its error, and its price.

``STARPAYNE_DATA=… python benchmarks/continuum.py FOLDER`` trains with ``channels = ["flux", "log10_continuum"]`` into
FOLDER, where the models are not there yet: ``payne_scaled`` as it ships and a short ``transformer``; with names behind
FOLDER, such as ``additive``, the recipes of these names instead (kept in ``continuum_NAMES.json``). Target: a median
relative error of the continuum of 0.5 % on the 500 test spectra.
"""

from __future__ import annotations

import sys
from pathlib import Path

from yardstick import data_folder, record

from starpayne.emulators import CHANNELS
from starpayne.evaluation import evaluate
from starpayne.grid import Grid
from starpayne.importers import import_folder
from starpayne.training import Recipe, TrainingData, train

N = 1000
RECIPES = {
    "payne_scaled": Recipe.preset("payne_scaled").replace(channels=CHANNELS),
    "transformer, 1,000 steps": Recipe.preset("transformer").replace(
        channels=CHANNELS, steps=1000, batch_spectra=16, batch_wavelengths=96
    ),
}
FLUX_ALONE = {"payne_scaled": 0.0031, "additive": 0.0021}
"""Test MAE of the same recipe without the continuum (docs/designs-and-recipes.md)."""


def main() -> None:
    folder = Path(sys.argv[1])
    store = folder / "mgb_reference.zarr"
    grid = Grid.open(store) if store.exists() else import_folder(data_folder() / "mgb_reference", store)
    data = TrainingData.from_grid(grid, N, CHANNELS, name="mgb_reference")
    rows, names = {}, sys.argv[2:]
    recipes = {name: Recipe.preset(name).replace(channels=CHANNELS) for name in names} or RECIPES
    for name, recipe in recipes.items():
        path = folder / f"continuum_{recipe.emulator}.model"
        model = train(
            data, recipe, path,
            progress=lambda step, total, f: print(step, total, f, flush=True) if "validation_mae" in f else None,
        )  # fmt: skip
        facts = evaluate(model, grid).to_dict()
        rows[name] = {
            "continuum_relative_error": {k: round(v, 6) for k, v in facts["continuum_error"].items()},
            "test_mae_of_flux": round(facts["mae"], 6),
            "test_mae_of_flux_alone": FLUX_ALONE.get(name),
            "training_seconds": round(model.training["seconds"], 1),
            "recipe": recipe.to_dict(),
        }
        print(name, {k: v for k, v in rows[name].items() if k != "recipe"}, flush=True)
    split = f"first {N:,} training spectra, {len(data.validation_labels)} validation, {facts['n_spectra']} test"
    record(
        "_".join(["continuum", *names]),
        {"grid": "mgb_reference", "split": split, "target_median": 0.005, "emulators": rows},
    )


if __name__ == "__main__":
    main()
