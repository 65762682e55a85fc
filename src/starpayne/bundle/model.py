"""A trained emulator with what is known about it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from starpayne.emulators import Emulator
from starpayne.labels import LabelSpace, is_abundance

SEVERAL = 100
"""Validation spectra from which on it is told how the size of the residuals changes with the labels."""

RIDGE = 0.5
"""Added to the normal equations of that: a label that does not matter stays near zero."""

MOST = 5.0
"""The size of the residuals of one star is at most so many times the typical one, and at least one so-many-th."""


@dataclass(frozen=True)
class Residuals:
    """Low-rank covariance of an emulator's residuals on its validation spectra.

    Args:
        wavelength: (m,) Å, the emulator's native wavelengths.
        modes: (k, m) float32; the covariance is ``modes.T @ modes + diag(noise**2)``, times the square of ``size_at``.
        noise: (m,) float32, what the modes leave.
        size: coefficients (float32) of the logarithm of the size of one star's residuals by its labels; empty where
            that is taken to be the same for all.
    """

    wavelength: np.ndarray
    modes: np.ndarray
    noise: np.ndarray
    size: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))

    @classmethod
    def from_validation(
        cls,
        wavelength: np.ndarray,
        residuals: np.ndarray,
        rank: int = 16,
        space: LabelSpace | None = None,
        labels: np.ndarray | None = None,
    ) -> Residuals:
        """Decompose (n_validation, m) residuals, predicted minus true, about zero (so that a bias counts as error).

        With ``space`` and ``labels`` (n_validation, n_labels), and enough spectra, the size of the residuals depends on
        the labels: cool stars, with their many lines, are emulated worse than hot ones.
        """
        residuals = np.asarray(residuals, np.float64)
        n = len(residuals)
        size = np.zeros(0, np.float32)
        if space is not None and labels is not None and n >= SEVERAL:
            logarithm = 0.5 * np.log(np.maximum(np.mean(residuals**2, axis=1), 1e-16))
            features = _size_features(space, labels)
            normal = features.T @ features + RIDGE * np.diag([0.0] + [1.0] * (features.shape[1] - 1))
            coefficients = np.linalg.solve(normal, features.T @ logarithm)
            # Typical is the mean over the validation spectra.
            coefficients[0] -= np.mean(features @ coefficients)
            size = coefficients.astype(np.float32)
            residuals = residuals / cls(wavelength, residuals, residuals, size).size_at(space, labels)[:, None]
        _, singular, directions = np.linalg.svd(residuals, full_matrices=False)
        # With few validation spectra, half of them at most become modes: the rest must remain as noise.
        k = min(rank, max(1, n // 2))
        modes = singular[:k, None] * directions[:k] / math.sqrt(n)
        left = np.mean(residuals**2, axis=0) - np.sum(modes**2, axis=0)
        return cls(wavelength, modes.astype(np.float32), np.sqrt(np.maximum(left, 0)).astype(np.float32), size)

    @property
    def sigma(self) -> np.ndarray:
        """(m,) 1 σ of the residuals of a typical star at each wavelength: the diagonal of the covariance."""
        modes, noise = np.asarray(self.modes, np.float64), np.asarray(self.noise, np.float64)
        return np.sqrt(np.sum(modes**2, axis=0) + noise**2)

    def size_at(self, space: LabelSpace, labels: np.ndarray) -> np.ndarray:
        """Return (...) how large the residuals of stars (..., n_labels) are, as a multiple of what is typical."""
        if not len(self.size):
            return np.ones(np.shape(labels)[:-1])
        logarithm = _size_features(space, labels) @ np.asarray(self.size, np.float64)
        return np.asarray(np.exp(np.clip(logarithm, -math.log(MOST), math.log(MOST))))


def size_features(space: LabelSpace) -> int:
    """Return how many coefficients the size of the residuals has."""
    few = sum(not is_abundance(name) for name in space.names)
    return 1 + len(space) + few * (few + 1) // 2


def _size_features(space: LabelSpace, labels: np.ndarray) -> np.ndarray:
    """Return (..., features): one, the scaled labels, and the products of those that are no abundances."""
    u = np.asarray(space.scale(np.asarray(labels, np.float64)), np.float64)[..., : len(space)] - 0.5
    few = [i for i, name in enumerate(space.names) if not is_abundance(name)]
    products = [u[..., i] * u[..., j] for k, i in enumerate(few) for j in few[k:]]
    return np.stack([np.ones(u.shape[:-1]), *np.moveaxis(u, -1, 0), *products], axis=-1)


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
