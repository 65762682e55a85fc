"""Distillation: a small network learns from as many spectra of a trained emulator as it can take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from starpayne import bundle
from starpayne.bundle import Model
from starpayne.emulators.base import predict_in_chunks
from starpayne.errors import RecipeError, TrainingError
from starpayne.training.architectures import check_number
from starpayne.training.build import build
from starpayne.training.data import TrainingData
from starpayne.training.loop import Progress, Run, iterate
from starpayne.training.place import finished_before
from starpayne.training.pool import TeacherSpectra
from starpayne.training.recipe import Recipe


@dataclass(frozen=True)
class Distillation:
    """How a student learns from its teacher.

    Args:
        margin: the training ends when the student's error on true validation spectra is less than this many times the
            teacher's; 0 for all steps in any case.
        true_fraction: of the spectra of each step come from the grid, the others from the teacher.
        first: teacher spectra that are there at the first step.
        spectra: teacher spectra in all, the last of which come halfway through the steps.
    """

    margin: float = 1.15
    true_fraction: float = 0.1
    first: int = 4096
    spectra: int = 32768

    def __post_init__(self) -> None:
        check_number("margin", self.margin, 0.0, 1e6, whole=False)
        check_number("true_fraction", self.true_fraction, 0.0, 0.9, whole=False)
        check_number("first", self.first, 1, 10**8, whole=True)
        check_number("spectra", self.spectra, self.first, 10**9, whole=True)


def distil(
    teacher: Model,
    data: TrainingData,
    recipe: Recipe,
    path: str | Path,
    settings: Distillation | None = None,
    *,
    name: str = "",
    progress: Progress | None = None,
    overwrite: bool = False,
) -> Model:
    """Train a student on spectra of a teacher and of a grid, and write its model folder; resumable like ``train``.

    The student is an ordinary model on the wavelengths of the grid. Teacher spectra are drawn all over the teacher's
    label space and kept in memory; a resumed training computes them again.

    Args:
        teacher: any model of fluxes.
        data: from :meth:`TrainingData.from_grid`; its validation spectra choose the best weights, and say when the
            student is good enough.
        recipe: of the student; its channels must be those of the data.
        path: model folder to make, or to go on with.
        settings: how the student learns; by default as :class:`Distillation` says.
        name: of the teacher, for the record.
        progress: called as ``progress(step, steps, facts)``, with ``teacher_spectra`` when there are more of them.
        overwrite: replace what another training left at the path.

    Returns:
        the student; ``training["distillation"]`` has the settings, the teacher (name, digest, architecture,
        validation, training spectra), ``teacher_mae`` on the validation spectra that chose, ``goal`` and whether it
        was ``reached``.

    Raises:
        RecipeError: for a student that is solved in closed form.
        TrainingError: the teacher's labels, channels or resolution are not those of the grid, or it has seen the
            validation spectra; and as ``train``.
        WavelengthError: the teacher does not cover the grid's wavelengths.
        OutputExistsError: the path holds something else.
    """
    path, settings = Path(path), settings or Distillation()
    if recipe.closed_form:
        raise RecipeError(
            f"a {recipe.emulator} is solved for, not taught step by step; choose a network, such as payne_wide"
        )
    if recipe.channels != data.channels:
        raise TrainingError(f"the recipe's channels {recipe.channels} are not those of the data, {data.channels}")
    data = in_terms_of(teacher, data)
    digest = bundle.digest(teacher.emulator)
    told = {**asdict(settings), "teacher": digest}
    identity = {"recipe": recipe.to_dict(), "data": data.fingerprint, "distillation": told}
    finished = finished_before(path, identity, overwrite)
    if finished is not None:
        if progress is not None:
            progress(recipe.steps, recipe.steps, {"validation_mae": finished.validation["mae"]})
        return finished

    def made(step: int, n: int) -> None:
        if progress is not None:
            progress(step, recipe.steps, {"teacher_spectra": n})

    source = TeacherSpectra(
        teacher.emulator, data, recipe, settings.true_fraction, settings.first, settings.spectra, made
    )
    run = Run.whole(data, recipe, build(data, recipe), source)
    teacher_mae = _error(teacher, run)
    goal = settings.margin * teacher_mae
    model = iterate(run, path, identity, progress, goal)
    facts = {
        "settings": asdict(settings),
        "teacher": {
            "name": name,
            "digest": digest,
            "architecture": teacher.emulator.architecture,
            "validation": dict(teacher.validation),
            "n_train": len(dict(teacher.training.get("split", {})).get("train", ())) or None,
        },
        "teacher_mae": teacher_mae,
        "goal": goal,
        "reached": min(entry["validation_mae"] for entry in model.training["history"]) < goal,
        "steps": model.training["history"][-1]["step"],
    }
    model = replace(model, training={**model.training, "distillation": facts})
    bundle.save(model, path, overwrite=True)
    return model


def in_terms_of(teacher: Model, data: TrainingData) -> TrainingData:
    """Return the data in the teacher's labels and label space, without the spectra outside of it.

    Raises:
        TrainingError, WavelengthError: as :func:`distil`.
    """
    emulator = teacher.emulator
    domain, space = emulator.domain, replace(emulator.space, held=())
    if "intensity" in (domain.quantity, data.domain.quantity):
        raise TrainingError("a teacher of intensities cannot be distilled; train on the grid of intensities itself")
    missing = sorted(set(space.names) - set(data.space.names))
    foreign = sorted(set(data.space.names) - set(space.names))
    if missing or foreign:
        raise TrainingError(
            f"the labels of the grid are not the teacher's: it lacks {', '.join(missing) or 'none'}, and has besides "
            f"{', '.join(foreign) or 'none'}; fine-tune the teacher on the grid first"
        )
    for label in space.labels:
        if label.unit != data.space[label.name].unit:
            unit = data.space[label.name].unit
            raise TrainingError(f"{label.name} is in {label.unit!r} for the teacher, and in {unit!r} in the grid")
    lacking = [channel for channel in data.channels if channel not in emulator.channels]
    if lacking:
        raise TrainingError(f"the teacher does not give {', '.join(lacking)}; it gives {', '.join(emulator.channels)}")
    if domain.resolution != data.domain.resolution:
        raise TrainingError(
            f"the teacher's spectra have resolution {domain.resolution}, those of the grid {data.domain.resolution} "
            "(None: not broadened): the student would learn both at once"
        )
    domain.prepare(data.wavelength, data.domain.medium)
    _refuse_seen(teacher, data)
    order = [data.space.names.index(name) for name in space.names]
    labels, validation = data.labels[:, order], data.validation_labels[:, order]
    kept, held = space.inside(labels), space.inside(validation)
    if np.sum(kept) < 2 or np.sum(held) < 1:
        raise TrainingError(
            f"{np.sum(kept)} training and {np.sum(held)} validation spectra of the grid are inside the teacher's label "
            "ranges; at least 2 and 1 are needed"
        )
    rows = {"train": kept, "validation": held}
    split = {part: np.asarray(data.split[part])[inside].tolist() for part, inside in rows.items()}
    flags = (*data.domain.physics, *(flag for flag in domain.physics if flag not in data.domain.physics))
    return replace(
        data,
        space=space,
        domain=replace(data.domain, physics=flags),
        labels=labels[kept],
        targets=data.targets[kept],
        validation_labels=validation[held],
        validation_targets=data.validation_targets[held],
        split={**data.split, **split},
    )


def _refuse_seen(teacher: Model, data: TrainingData) -> None:
    """Raise TrainingError if the teacher was trained on spectra that are to judge the student."""
    source: Mapping[str, Any] = dict(teacher.training.get("source", {}))
    if source.get("fingerprint") != data.source["fingerprint"]:
        return
    seen = set(dict(teacher.training.get("split", {})).get("train", ())) & set(data.split["validation"])
    if seen:
        raise TrainingError(
            f"the teacher was trained on {len(seen)} of the validation spectra (row {min(seen)} of the grid, for one), "
            "so they cannot judge its student; name validation spectra in the grid's split"
        )


def _error(teacher: Model, run: Run) -> float:
    """Return the teacher's mean absolute error on what the run validates on."""
    rows, columns, data = run.selected_rows, run.selected_columns, run.data
    wavelength = teacher.emulator.domain.prepare(data.wavelength, data.domain.medium)[columns]
    predicted = predict_in_chunks(teacher.emulator, data.validation_labels[rows], wavelength)[:, 0]
    return float(np.mean(np.abs(predicted - data.validation_targets[rows, 0][:, columns])))
