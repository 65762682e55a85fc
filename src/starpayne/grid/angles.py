"""Viewing angles as a label: the (spectrum, μ) pairs of a grid as rows of labels and normalised intensities."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32, Int

from starpayne.errors import GridError
from starpayne.grid.store import Grid
from starpayne.labels import MU, Label, LabelSpace


def space_with_mu(grid: Grid) -> LabelSpace:
    """Return the grid's label space with ``mu`` as its last label, bounded by the grid's smallest and largest μ.

    Raises:
        GridError: for a grid without intensities, or with one viewing angle only.
        LabelError: if ``mu`` is a label of the grid already.
    """
    low, high = float(np.min(grid.mu)), float(np.max(grid.mu))
    if not low < high:
        raise GridError(f"{grid.path} has the one viewing angle mu = {low:g}; at least two make a label of it")
    return LabelSpace((*grid.space.labels, Label(MU, low, high)), grid.space.constraints)


def labels_with_mu(labels: Float[np.ndarray, "n labels"], mu: Float[np.ndarray, " angles"]) -> Float[np.ndarray, "m k"]:
    """Return the labels (n · n_mu, n_labels + 1) of all pairs: all angles of one spectrum, then those of the next."""
    return np.column_stack([np.repeat(labels, len(mu), axis=0), np.tile(mu, len(labels))])


def normalised_intensity(grid: Grid, rows: Int[np.ndarray, " n"]) -> Float32[np.ndarray, "m wavelengths"]:
    """Return i = π I / F_c of all pairs, (n · n_mu, n_wavelength), in the order of :func:`labels_with_mu`.

    F_c is the continuum surface flux of the same spectrum. The normalised flux is then 2 ∫ i μ dμ, and i is smooth in μ
    and of order one for every star, which the intensity itself (∝ Teff⁴) is not.
    """
    intensity, continuum = grid.intensity(rows), grid.continuum(rows)
    normalised = np.pi * intensity / continuum[:, None, :]
    return normalised.reshape(-1, continuum.shape[1]).astype(np.float32)
