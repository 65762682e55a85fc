"""The arrays a training reads, cut from a grid by its stored split. Touches no file format."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from starpayne.emulators import CHANNELS, QUANTITIES, SpectralDomain
from starpayne.errors import TrainingError
from starpayne.grid import Grid, labels_with_mu, normalised_intensity, space_with_mu
from starpayne.labels import LabelSpace
from starpayne.wavelengths import sampling_of

HELD_OUT = 0.05
"""Fraction of the training spectra that validate where the grid's split names no validation spectra."""


@dataclass(frozen=True)
class TrainingData:
    """Labels and spectra to train and to validate on.

    Args:
        space, domain: label table and spectral domain of the emulator to be.
        wavelength: (n_wavelength,) Å.
        labels, validation_labels: (n, n_labels) float64.
        targets, validation_targets: (n, channels, n_wavelength) float32.
        channels: what the targets are.
        split: the rows of the grid (one for all viewing angles of a spectrum) that train, validate and test, as stored
            with the model.
        source: name, fingerprint and provenance of the grid.
    """

    space: LabelSpace
    domain: SpectralDomain
    wavelength: np.ndarray
    labels: np.ndarray
    targets: np.ndarray
    validation_labels: np.ndarray
    validation_targets: np.ndarray
    channels: tuple[str, ...]
    split: Mapping[str, list[int]]
    source: Mapping[str, Any]

    @classmethod
    def from_grid(
        cls,
        grid: Grid,
        n_train: int | None = None,
        channels: tuple[str, ...] = ("flux",),
        name: str = "",
        quantity: str = "flux",
    ) -> TrainingData:
        """Take the first ``n_train`` spectra of the grid's training order, and its validation spectra.

        Where the grid names no validation spectra, every twentieth of those training spectra validates instead.
        Spectra that failed in synthesis are passed over.

        With ``quantity="intensity"`` every (spectrum, μ) pair is a row, ``mu`` is the last label, and the first target
        is the normalised intensity π I / F_c. Spectra are counted and split, not rows: none has angles on both sides.

        Raises:
            TrainingError: if fewer spectra are there than asked for, or too few to train and validate.
            GridError: if intensities or a continuum are asked for that the grid does not store.
        """
        if channels not in (CHANNELS[:1], CHANNELS):
            raise TrainingError(f"channels = {channels}: choose ('flux',) or ('flux', 'log10_continuum')")
        if quantity not in QUANTITIES:
            raise TrainingError(f"quantity = {quantity!r} is not known; choose one of {', '.join(QUANTITIES)}")
        angles = grid.mu if quantity == "intensity" else None
        space = grid.space if angles is None else space_with_mu(grid)
        train = grid.usable(grid.split.train)
        if n_train is not None:
            if not 1 <= n_train <= len(train):
                raise TrainingError(
                    f"--n-train {n_train} is outside the range 1 to {len(train)}: "
                    f"the grid's split has {len(train)} usable training spectra"
                )
            train = train[:n_train]
        validation = grid.usable(grid.split.validation)
        if len(validation) == 0:
            step = int(1 / HELD_OUT)
            validation = train[step // 2 :: step]
            train = np.setdiff1d(train, validation, assume_unique=True)
        if len(train) < 2 or len(validation) < 1:
            raise TrainingError(
                f"{len(train)} training and {len(validation)} validation spectra are too few; "
                "at least 2 and 1 are needed (11 training spectra where the split names no validation spectra)"
            )
        domain = SpectralDomain(
            low=float(grid.wavelength[0]),
            high=float(grid.wavelength[-1]),
            medium=grid.medium,
            sampling=sampling_of(grid.wavelength),
            resolution=grid.resolution,
            physics=grid.physics,
            quantity=quantity,
            mu=() if angles is None else tuple(np.sort(angles).tolist()),
        )

        def labels(rows: np.ndarray) -> np.ndarray:
            return grid.labels[rows] if angles is None else labels_with_mu(grid.labels[rows], angles)

        def targets(rows: np.ndarray) -> np.ndarray:
            parts = [grid.flux(rows) if angles is None else normalised_intensity(grid, rows)]
            if "log10_continuum" in channels:
                continuum = np.log10(grid.continuum(rows))
                parts.append(continuum if angles is None else np.repeat(continuum, len(angles), axis=0))
            return np.stack(parts, axis=1)

        return cls(
            space=space,
            domain=domain,
            wavelength=grid.wavelength,
            labels=labels(train),
            targets=targets(train),
            validation_labels=labels(validation),
            validation_targets=targets(validation),
            channels=tuple(channels),
            split={
                "train": train.tolist(),
                "validation": validation.tolist(),
                "test": [int(i) for i in grid.split.test],
            },
            source={"grid": name, "fingerprint": grid.fingerprint, "provenance": grid.provenance},
        )

    @property
    def fingerprint(self) -> str:
        """A hash of the rows, their source and the spectra: the same training data give the same one."""
        text = f"{self.source['fingerprint']} {self.split['train']} {self.split['validation']} {self.channels}"
        text += "" if self.domain.quantity == "flux" else f" {self.domain.quantity}"
        digest = hashlib.sha256(text.encode())
        for array in (self.wavelength, self.labels, self.targets, self.validation_labels, self.validation_targets):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]
