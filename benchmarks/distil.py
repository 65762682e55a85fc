"""A student that learns from a teacher of few spectra, beside the same network on those spectra alone.

``python benchmarks/distil.py GRID --teacher MODEL --teacher MODEL … --n-train 1000`` on an imported ``mgb_reference``.
All teachers must have been trained on the same first N spectra; the one with the least validation error teaches. The
student is the recipe ``payne_wide``; ``--steps`` and ``--batch`` change what it says. Run again after a stop, it goes
on in ``--folder``. Goals: a test MAE of at most 1.15 times the teacher's, and 0.7 times that of the network alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from yardstick import record

from starpayne import bundle
from starpayne.evaluation import compare_distilled
from starpayne.grid import Grid
from starpayne.study.cost import prediction_cost
from starpayne.training import Distillation, Recipe, TrainingData, distil, train

OVER_TEACHER, OVER_ALONE = 1.15, 0.7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("grid", type=Path)
    parser.add_argument("--teacher", type=Path, action="append", required=True)
    parser.add_argument("--n-train", type=int, default=1000)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--margin", type=float, default=1.1)
    parser.add_argument("--folder", type=Path, default=Path("distil-benchmark"))
    parser.add_argument("--note", default="")
    given = parser.parse_args()
    grid = Grid.open(given.grid)
    changes = {"steps": given.steps, "batch_spectra": given.batch, "validate_every": given.steps and given.steps // 20}
    recipe = Recipe.preset("payne_wide").replace(**{k: v for k, v in changes.items() if v})
    data = TrainingData.from_grid(grid, given.n_train, name=given.grid.name)
    teachers = {path.name: bundle.load(path) for path in given.teacher}
    for name, model in teachers.items():
        if list(model.training["split"]["train"]) != data.split["train"]:
            sys.exit(f"{name} was not trained on the first {given.n_train} spectra of {given.grid.name}")
    name = min(teachers, key=lambda n: teachers[n].validation["mae"])
    teacher = teachers[name]

    def progress(step: int, steps: int, facts: Mapping[str, object]) -> None:
        if "validation_mae" in facts or "teacher_spectra" in facts:
            print(step, steps, facts, flush=True)

    settings = Distillation(margin=given.margin)
    student = distil(teacher, data, recipe, given.folder / "student.model", settings, name=name, progress=progress)
    alone = train(data, recipe, given.folder / "alone.model", progress=progress)
    compared = compare_distilled(teacher, student, grid, alone)
    print(compared.as_text())
    found = compared.to_dict()
    over = found["student_over"]
    labels = compared.evaluations["student"].labels
    record(
        "distil",
        {
            "note": given.note,
            "grid": given.grid.name,
            "n_train": given.n_train,
            "recipe": recipe.to_dict(),
            "teachers": {n: {"validation_mae": m.validation["mae"], "recipe": m.training["identity"]["recipe"],
                             "seconds": m.training["seconds"]} for n, m in teachers.items()},
            "distillation": student.training["distillation"],
            "seconds": {"student": student.training["seconds"], "alone": alone.training["seconds"]},
            "steps_taken": {"student": student.training["history"][-1]["step"], "alone": recipe.steps},
            "history": {
                who: [[h["step"], round(h["validation_mae"], 6)] for h in m.training["history"]]
                for who, m in (("student", student), ("alone", alone))
            },
            "held_out": found,
            "goals": {
                f"student at most {OVER_TEACHER} × teacher": over["teacher"] <= OVER_TEACHER,
                f"student at most {OVER_ALONE} × without the teacher": over["without the teacher"] <= OVER_ALONE,
            },
            "ms_per_spectrum_in_batch": {
                who: prediction_cost(m.emulator, labels)["ms_per_spectrum_in_batch"]
                for who, m in (("teacher", teacher), ("student", student))
            },
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
