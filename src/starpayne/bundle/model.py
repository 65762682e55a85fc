"""A trained emulator with what is known about it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from starpayne.emulators import Emulator


@dataclass(frozen=True)
class Residuals:
    """Low-rank covariance of an emulator's residuals on its validation spectra.

    Args:
        wavelength: (m,) Å, the emulator's native wavelengths.
        modes: (k, m) float32; the covariance is ``modes.T @ modes + diag(noise**2)``.
        noise: (m,) float32, what the modes leave.
    """

    wavelength: np.ndarray
    modes: np.ndarray
    noise: np.ndarray

    @classmethod
    def from_validation(cls, wavelength: np.ndarray, residuals: np.ndarray, rank: int = 16) -> Residuals:
        """Decompose (n_validation, m) residuals, predicted minus true, about zero (so that a bias counts as error)."""
        residuals = np.asarray(residuals, np.float64)
        n = len(residuals)
        _, singular, directions = np.linalg.svd(residuals, full_matrices=False)
        # With few validation spectra, half of them at most become modes: the rest must remain as noise.
        k = min(rank, max(1, n // 2))
        modes = singular[:k, None] * directions[:k] / math.sqrt(n)
        left = np.mean(residuals**2, axis=0) - np.sum(modes**2, axis=0)
        return cls(wavelength, modes.astype(np.float32), np.sqrt(np.maximum(left, 0)).astype(np.float32))


@dataclass(frozen=True)
class Model:
    """An emulator with what is known about it.

    Args:
        emulator: the network.
        residuals: covariance of its validation residuals; None if it was never validated.
        training: recipe, split, grid and history of its training; plain JSON data.
        validation: ``mae``, ``rmse``, ``n_spectra`` of its validation spectra.
    """

    emulator: Emulator
    residuals: Residuals | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    validation: Mapping[str, Any] = field(default_factory=dict)
