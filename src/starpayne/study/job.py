"""One job of a study: train, evaluate, recover labels, measure the cost, and keep the result as JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from starpayne import bundle
from starpayne.errors import OutputExistsError, StarpayneError, StudyError
from starpayne.evaluation import evaluate, recover
from starpayne.files import read_json, write_json
from starpayne.grid import Grid
from starpayne.study.cost import matrix_product_rate, prediction_cost
from starpayne.study.plan import Job, RecoverySettings
from starpayne.training import TrainingData, train

RESULT = "result.json"
MODEL = "model"
PIXELS_PER_FWHM = 3.0

Note = Callable[[str], None]


def run_job(job: Job, recovery: RecoverySettings, grid: Grid, folder: Path, note: Note) -> dict[str, Any]:
    """Do what is left of a job and return its result; what was done before is not done again.

    Args:
        job: the training.
        recovery: how labels are recovered.
        grid: the grid.
        folder: of this job; its model goes to ``model/``.
        note: is told in words what goes on.

    Returns:
        plain JSON data; where a job cannot be done (too few spectra for a polynomial, a loss that is not finite)
        ``failed`` says why.
    """
    folder.mkdir(parents=True, exist_ok=True)
    full = {**identity_of(job, grid), "recovery": asdict(recovery)}
    stored = stored_result(folder, job, grid)
    if stored is not None and stored["identity"] == full:
        return stored
    head = {"identity": full, "emulator": job.emulator, "n_train": job.n_train, "seed": job.seed}
    try:
        note("training")
        data = TrainingData.from_grid(
            grid, job.n_train, job.recipe.channels, name=grid.path.name, quantity=job.recipe.quantity
        )
        rate = matrix_product_rate()
        model = train(
            data, job.recipe, folder / MODEL,
            progress=lambda step, steps, facts: note(f"step {step:,} of {steps:,}{_error_in(facts)}"),
        )  # fmt: skip
        note("evaluation")
        result = head | {
            "parameters": model.training["parameters"],
            "training_seconds": model.training["seconds"],
            "matrix_product_gflops": rate,
            "hardware": model.training["hardware"],
            "validation": dict(model.validation),
            "test": evaluate(model, grid).to_dict(),
            "cost": prediction_cost(model.emulator, data.validation_labels),
            **_recovered(model, grid, recovery, note),
        }
    except OutputExistsError:
        raise
    except StarpayneError as error:
        result = head | {"failed": str(error)}
    write_json(folder / RESULT, result)
    return result


def _recovered(model: bundle.Model, grid: Grid, settings: RecoverySettings, note: Note) -> dict[str, Any]:
    """Return the recovered labels, or why there are none: the training and its errors stand all the same."""
    if settings.n_spectra == 0:
        return {"recovery": None}
    try:
        result = recover(
            model, grid, n_spectra=settings.n_spectra, resolution=settings.resolution, snr=settings.snr,
            pixels_per_fwhm=PIXELS_PER_FWHM, n_starts=settings.n_starts, seed=settings.seed,
            progress=lambda done, total: note(f"labels of star {done} of {total}"),
        )  # fmt: skip
    except StarpayneError as error:
        return {"recovery": None, "recovery_failed": str(error)}
    return {"recovery": result.to_dict()}


def identity_of(job: Job, grid: Grid) -> dict[str, Any]:
    """Return what makes a training this one and no other."""
    return {"recipe": job.recipe.to_dict(), "n_train": job.n_train, "grid": grid.fingerprint}


def stored_result(folder: Path, job: Job, grid: Grid) -> dict[str, Any] | None:
    """Return an earlier result of this very training, None if there is none.

    Raises:
        StudyError: if the result is that of another training or grid.
    """
    if not (folder / RESULT).exists():
        return None
    identity = identity_of(job, grid)
    stored = read_json(folder / RESULT, StudyError)
    before = stored.get("identity")
    if not isinstance(before, dict) or {k: before.get(k) for k in identity} != identity:
        raise StudyError(
            f"{folder} holds another training ({_difference(before, identity)}); "
            "give another --out, or remove that folder"
        )
    return stored


def _difference(before: Any, now: dict[str, Any]) -> str:
    if not isinstance(before, dict):
        return "its description is damaged"
    if before.get("grid") != now["grid"]:
        return "on another grid"
    recipe = before.get("recipe") or {}
    changed = [f"{k} was {recipe.get(k)!r}" for k, v in now["recipe"].items() if recipe.get(k) != v]
    return ", ".join(changed) or "its settings differ"


def _error_in(facts: Any) -> str:
    return f", validation MAE {facts['validation_mae']:.5f}" if "validation_mae" in facts else ""
