"""The few spectra of another grid, in the labels and the medium of the model that is to be fine-tuned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from starpayne.bundle import Model
from starpayne.emulators import CHANNELS, SpectralDomain, Target
from starpayne.errors import TrainingError, WavelengthError
from starpayne.grid import Grid
from starpayne.labels import mapped_space
from starpayne.training.build import output_scaling
from starpayne.training.data import TrainingData
from starpayne.training.recipe import Recipe
from starpayne.training.transfer.choice import representative
from starpayne.wavelengths import convert_medium, sampling_of

Pick = Literal["first", "representative"]
PICKS = get_args(Pick)

FEWEST = 5
"""Spectra that fine-tuning needs, so that each can be held out of a fit to the others."""


def few_spectra(
    base: Model,
    grid: Grid,
    n: int | None = None,
    *,
    hold: Mapping[str, float] | None = None,
    continuum: bool = False,
    convert: bool = False,
    pick: Pick = "first",
    name: str = "",
) -> TrainingData:
    """Return n of the spectra that the grid's split trains or validates on, none of them set apart yet.

    Args:
        base: the model to be fine-tuned.
        grid: its new grid.
        n: how many spectra; by default all.
        hold: values at which to hold labels of the model that the grid lacks.
        continuum: learn the continuum too, where the model had none.
        convert: convert the grid's wavelengths to the medium of the model, if they differ.
        pick: the "first" n, or those whose stars are "representative" of all (see :func:`representative`).
        name: of the grid, for the record.

    Returns:
        data whose labels are in the order of the adapted model, with empty validation arrays.

    Raises:
        LabelError: for labels that do not map (see :func:`~starpayne.labels.mapped_space`).
        WavelengthError: for another medium, without ``convert``.
        TrainingError: for a model of intensities, too few spectra, or more than there are.
    """
    if pick not in PICKS:
        raise TrainingError(f"pick = {pick!r} is not known; choose one of {', '.join(PICKS)}")
    domain = base.emulator.domain
    if domain.quantity != "flux":
        raise TrainingError("fine-tuning takes grids of fluxes, and the model gives intensities; train afresh")
    if grid.medium != domain.medium and not convert:
        raise WavelengthError(
            f"the wavelengths of the grid are in {grid.medium}, those of the model in {domain.medium}: the same line "
            "would be at two places; --convert-medium converts the grid's"
        )
    space = mapped_space(base.emulator.space, grid.space, hold or {})
    channels = CHANNELS if continuum else base.emulator.channels
    rows = grid.usable([*grid.split.train, *grid.split.validation])
    n = len(rows) if n is None else n
    if not FEWEST <= n <= len(rows):
        raise TrainingError(
            f"{n} spectra asked for; the grid has {len(rows)} usable ones to train and validate on, and fine-tuning "
            f"needs at least {FEWEST}: fewer cannot be validated"
        )
    if pick == "representative" and n < len(rows):
        rows = rows[representative(grid.space, grid.labels[rows], n)]
    rows = rows[:n]
    order = [grid.space.names.index(label) for label in space.names]
    wavelength = convert_medium(grid.wavelength, grid.medium, domain.medium)
    parts = [grid.flux(rows)]
    if "log10_continuum" in channels:
        parts.append(np.log10(grid.continuum(rows)))
    targets = np.stack(parts, axis=1)
    return TrainingData(
        space=space,
        domain=SpectralDomain(
            low=float(wavelength[0]),
            high=float(wavelength[-1]),
            medium=domain.medium,
            sampling=sampling_of(wavelength),
            resolution=grid.resolution,
            physics=grid.physics,
        ),
        wavelength=wavelength,
        labels=grid.labels[rows][:, order],
        targets=targets,
        validation_labels=np.empty((0, len(order))),
        validation_targets=np.empty((0, *targets.shape[1:]), np.float32),
        channels=channels,
        split={"train": rows.tolist(), "validation": [], "test": [int(i) for i in grid.split.test]},
        source={"grid": name, "fingerprint": grid.fingerprint, "provenance": grid.provenance},
    )


def parted(data: TrainingData, held: np.ndarray) -> TrainingData:
    """Return the data with the spectra of these places held out for validation."""
    kept = np.setdiff1d(np.arange(len(data.labels)), held)
    rows = np.asarray(data.split["train"])
    return replace(
        data, labels=data.labels[kept], targets=data.targets[kept], validation_labels=data.labels[held],
        validation_targets=data.targets[held],
        split={**data.split, "train": rows[kept].tolist(), "validation": rows[held].tolist()},
    )  # fmt: skip


def target_of(base: Model, data: TrainingData, recipe: Recipe) -> Target:
    """Return what the model's network is adapted to for these data."""
    # Whatever the network's own output: what is new to it has to start from the mean spectrum.
    recipe = recipe.replace(output="standardised")
    center, width = output_scaling(base.emulator.network_targets(data.targets), recipe)
    return Target(
        data.space, data.domain, data.wavelength, data.channels, center.astype(np.float32), width.astype(np.float32)
    )
