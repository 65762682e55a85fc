"""A student beside its teacher, and beside the same network without one, on the same held-out spectra."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starpayne.bundle import Model
from starpayne.errors import GridError
from starpayne.evaluation.residuals import Evaluation, evaluate
from starpayne.grid import Grid

TEACHER, STUDENT, ALONE = "teacher", "student", "without the teacher"


@dataclass(frozen=True)
class Comparison:
    """Errors of teacher and student on true spectra that neither was trained on.

    Args:
        evaluations: of the "teacher", the "student", and perhaps the same network "without the teacher".
        split: what the spectra are, in words.
    """

    evaluations: Mapping[str, Evaluation]
    split: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data: ``mae`` and ``rmse`` of each, the ratios of the student's MAE to the others'."""
        student = self.evaluations[STUDENT]
        return {
            "split": self.split,
            "n_spectra": len(student.rows),
            **{
                name: {"mae": found.mae, "rmse": found.rmse, "n_outside_domain": found.n_outside}
                for name, found in self.evaluations.items()
            },
            "student_over": {
                name: student.mae / found.mae for name, found in self.evaluations.items() if name != STUDENT
            },
        }

    def as_text(self) -> str:
        """Return a table of MAE, RMSE, and MAE as a multiple of the teacher's."""
        teacher = self.evaluations[TEACHER].mae
        lines = [f"{len(self.evaluations[STUDENT].rows)} {self.split}"]
        lines += [f"{'':21s}{'MAE':>9s}{'RMSE':>9s}{'× teacher':>11s}"]
        lines += [
            f"{name:21s}{found.mae:9.5f}{found.rmse:9.5f}{found.mae / teacher:11.2f}"
            for name, found in self.evaluations.items()
        ]
        return "\n".join(lines)


def compare_distilled(teacher: Model, student: Model, grid: Grid, alone: Model | None = None) -> Comparison:
    """Hold teacher and student, and the network trained without a teacher, against the same spectra of their grid.

    These are the test spectra of the grid, or its validation spectra if it names none, inside the label space of the
    student and not among those that any of the models was trained on.

    Raises:
        GridError: no such spectrum is left.
    """
    models = {TEACHER: teacher, STUDENT: student} | ({} if alone is None else {ALONE: alone})
    seen: set[int] = set()
    for model in models.values():
        if dict(model.training.get("source", {})).get("fingerprint") == grid.fingerprint:
            seen |= set(dict(model.training.get("split", {})).get("train", ()))
    tested = len(grid.usable(grid.split.test)) > 0
    held = grid.split.test if tested else dict(student.training["split"])["validation"]
    space = student.emulator.space
    order = [grid.space.names.index(name) for name in space.names]
    rows = [int(r) for r in grid.usable(held) if r not in seen and space.inside(grid.labels[r][order])]
    if not rows:
        raise GridError(f"{grid.path} has no held-out spectra that teacher and student have not been trained on")
    found = {name: evaluate(model, grid, rows) for name, model in models.items()}
    return Comparison(found, f"{'test' if tested else 'validation'} spectra of {grid.path.name}")
