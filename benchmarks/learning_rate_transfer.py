"""Whether μP carries a learning rate from one width to another: validation MAE by width and rate, with it and without.

``python benchmarks/learning_rate_transfer.py GRID`` on an imported ``mgb_reference``, N = 1,000: The Payne with four
hidden layers, Muon, short trainings. With ``reference_width`` the best rate should be the same at every width.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from yardstick import record

from starpayne.grid import Grid
from starpayne.training import Recipe, TrainingData, train

N, STEPS = 1000, 400
WIDTHS = (64, 128, 512)
RATES = (5e-3, 1e-2, 2e-2, 4e-2, 8e-2)


def main() -> None:
    path = Path(sys.argv[1])
    data = TrainingData.from_grid(Grid.open(path), N, name=path.name)
    tables = {}
    for reference in (0, WIDTHS[0]):
        for width in WIDTHS:
            row = {}
            for rate in RATES:
                recipe = Recipe.preset("payne_scaled").replace(
                    architecture={"hidden": [width] * 4}, learning_rate=rate, reference_width=reference,
                    steps=STEPS, validate_every=STEPS // 2, ema=0.99,
                )  # fmt: skip
                with tempfile.TemporaryDirectory() as folder:
                    row[str(rate)] = round(train(data, recipe, Path(folder) / "m").validation["mae"], 5)
            key = f"reference_width = {reference or 'none'}"
            tables.setdefault(key, {})[str(width)] = {"best_rate": min(row, key=row.__getitem__), **row}
            print(key, width, row, flush=True)
    record("learning_rate_transfer", {"grid": path.name, "n_train": N, "steps": STEPS, "validation_mae": tables})


if __name__ == "__main__":
    main()
