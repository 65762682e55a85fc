"""An emulator of intensities with the viewing angle as a label: does its disc add up to the flux of the star?

``python benchmarks/intensities.py FOLDER`` synthesizes the shipped design ``intensities`` (800 spectra of 12 angles, 6
labels, 5165–5177 Å) into FOLDER/intensities.zarr and trains the recipe ``transformer_intensity`` into
FOLDER/intensities.model, where they are not there yet; then it compares with the 60 test spectra. Target: 2 ∫ i μ dμ is
the grid's flux to 0.2 % on average. Seven minutes of synthesis on one core, a quarter of an hour of training on two
cores.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from yardstick import record

from starpayne.evaluation import evaluate
from starpayne.grid import normalised_intensity
from starpayne.synthesis import Design, run
from starpayne.training import Recipe, TrainingData, train


def rounded(values: dict) -> dict:
    return {name: round(value, 6) for name, value in values.items()}


def main() -> None:
    folder = Path(sys.argv[1])
    start = time.perf_counter()
    grid = run(Design.shipped("intensities"), folder / "intensities.zarr", workers=1)
    synthesized = time.perf_counter() - start
    recipe = Recipe.preset("transformer_intensity")
    data = TrainingData.from_grid(grid, None, recipe.channels, name="intensities", quantity=recipe.quantity)
    model = train(
        data, recipe, folder / "intensities.model",
        progress=lambda step, total, f: print(step, total, f, flush=True) if "validation_mae" in f else None,
    )  # fmt: skip
    facts = evaluate(model, grid).to_dict()
    test = grid.usable(grid.split.test)
    rings = normalised_intensity(grid, test).reshape(len(test), len(grid.mu), -1).mean(axis=1, dtype=np.float64)
    own = np.abs(rings / grid.flux(test) - 1)
    record(
        "intensities",
        {
            "grid": f"intensities: {len(grid.labels)} spectra, {len(grid.mu)} angles, {len(grid.space)} labels and mu, "
            f"{grid.wavelength[0]:.0f}–{grid.wavelength[-1]:.0f} Å",
            "n_train": len(data.split["train"]), "n_rows": len(data.labels), "n_test": facts["n_spectra"],
            "test_mae_of_normalised_intensity": round(facts["mae"], 6),
            "test_rmse_of_normalised_intensity": round(facts["rmse"], 6),
            "relative_error_of_the_disc_flux": rounded(facts["disc_flux_error"]),
            "target_mean_relative_error": 0.002,
            "same_of_the_grids_own_intensities_max": float(own.max()),
            "parameters": model.training["parameters"],
            "training_seconds": round(model.training["seconds"], 1),
            "synthesis_seconds_in_this_call": round(synthesized, 1),
            "recipe": recipe.to_dict(),
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
