"""TransformerPayne of 128×8 on 10,000 and on 1,000 spectra, in minutes of a GPU, and a Payne that learns from each.

``python benchmarks/gpu_training.py GRID`` on an imported ``mgb_reference``; with the defaults five minutes on an H100.
The number of steps is what fits into ``--seconds`` (of the larger grid, of the smaller one) at the speed measured here.
Recorded are the errors on the test spectra, beside those of the networks of the same size that were trained alone where
``--alone N=MODEL`` gives them. The models are kept in ``--folder``. ``--tiny`` goes through all of it in a minute or
two on a CPU, and says nothing.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from gpu import device
from yardstick import record

from starpayne import bundle
from starpayne.bundle import Model
from starpayne.evaluation import evaluate
from starpayne.grid import Grid
from starpayne.training import Distillation, Recipe, TrainingData, distil, train
from starpayne.training.speed import steps_per_second

TEACHER = Recipe.preset("transformer_128")
STUDENT = Recipe.preset("payne_wide").replace(batch_spectra=512, precision="bfloat16")
SIZES = {10_000: 20_000, 1_000: 10_000}
"""Training spectra, and steps of the student that learns from them."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", type=Path)
    parser.add_argument("--seconds", type=float, nargs=2, default=(140.0, 60.0))
    parser.add_argument("--alone", action="append", default=[], metavar="N=MODEL")
    parser.add_argument("--folder", type=Path, default=Path("gpu-training"))
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    begun = time.time()
    grid = Grid.open(given.grid)
    teacher, student = TEACHER, STUDENT
    settings = Distillation(margin=0.0, true_fraction=0.2, first=16_384, spectra=131_072)
    sizes = SIZES
    if given.tiny:
        teacher = teacher.replace(batch_spectra=4, batch_wavelengths=64, architecture={"width": 32, "depth": 2})
        student = student.replace(batch_spectra=8)
        settings = Distillation(margin=0.0, true_fraction=0.2, first=16, spectra=16)
        sizes = {40: 20, 20: 20}

    def progress(step: int, steps: int, facts: Any) -> None:
        if "validation_mae" in facts:
            print(f"[{time.time() - begun:.0f} s] {step} of {steps}: {facts['validation_mae']:.5f}", flush=True)

    def facts_of(model: Model) -> dict[str, Any]:
        history = [[h["step"], round(h["validation_mae"], 6)] for h in model.training["history"]]
        return {
            "test_mae": evaluate(model, grid).mae, "validation_mae": model.validation["mae"],
            "seconds": model.training["seconds"], "steps": history[-1][0], "history": history,
        }  # fmt: skip

    alone = {int(n): bundle.load(path) for n, _, path in (word.partition("=") for word in given.alone)}
    rate, rows = 0.0, {}
    for (n, steps), seconds in zip(sizes.items(), given.seconds, strict=True):
        data = TrainingData.from_grid(grid, n, name="mgb_reference")
        rate = rate or steps_per_second(data, teacher)
        total = 20 if given.tiny else max(1000, int(rate * seconds) // 1000 * 1000)
        taught = teacher.replace(steps=total, validate_every=total // 20)
        master = train(data, taught, given.folder / f"transformer_{n}", progress=progress)
        learns = student.replace(steps=steps, validate_every=steps // 20)
        place = given.folder / f"student_{n}"
        pupil = distil(master, data, learns, place, settings, name=f"transformer_{n}", progress=progress)
        row: dict[str, Any] = {"transformer": facts_of(master), "student": facts_of(pupil)}
        over = row["student"]["test_mae"]
        row["student_over_teacher"] = over / row["transformer"]["test_mae"]
        if n in alone:
            row["alone_test_mae"] = evaluate(alone[n], grid).mae
            row["student_over_alone"] = over / row["alone_test_mae"]
        rows[str(n)] = row
    record(
        "gpu_training_tiny" if given.tiny else "gpu_training",
        {
            "device": device(), "grid": given.grid.name, "steps_per_second": rate, "teacher": teacher.to_dict(),
            "student": student.to_dict(), "trained_on": rows,
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
