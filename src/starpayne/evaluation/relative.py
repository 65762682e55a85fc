"""Relative errors of what is not the first channel: the flux of the disc, and the continuum."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32, Int

from starpayne.emulators import Emulator
from starpayne.emulators.base import predict_in_chunks
from starpayne.emulators.disc import MOST_UNSEEN, quadrature_of, unseen
from starpayne.grid import Grid

PERCENTILES = (95, 99)


def relative_error(predicted: Float[np.ndarray, "n m"], true: Float[np.ndarray, "n m"]) -> dict[str, float]:
    """Return median, mean, percentiles and maximum of |predicted / true − 1| over spectra and wavelengths."""
    error = np.abs(predicted.astype(np.float64) / true - 1)
    percentiles = {str(q): float(v) for q, v in zip(PERCENTILES, np.percentile(error, PERCENTILES), strict=True)}
    return {"median": float(np.median(error)), "mean": float(np.mean(error)), **percentiles, "max": float(error.max())}


def continuum_error(
    emulator: Emulator, outputs: Float32[np.ndarray, "n channels m"], grid: Grid, rows: Int[np.ndarray, " n"]
) -> dict[str, float] | None:
    """Return the relative error of the continuum, or None where the emulator or the grid has none.

    Args:
        outputs: all channels, predicted for the spectra of these rows.
        rows: a row is repeated where it stands for several viewing angles.
    """
    if "log10_continuum" not in emulator.channels or not grid.has_continuum:
        return None
    predicted = 10.0 ** outputs[:, emulator.channels.index("log10_continuum")].astype(np.float64)
    distinct, place = np.unique(rows, return_inverse=True)
    return relative_error(predicted, grid.continuum(distinct)[place])


def disc_flux_error(
    emulator: Emulator,
    labels: Float[np.ndarray, "n stellar"],
    wavelength: Float[np.ndarray, " m"],
    true: Float32[np.ndarray, "n m"],
) -> dict[str, float] | None:
    """Return the relative error of 2 ∫ i μ dμ against the normalised flux, or None where the disc is not covered.

    Args:
        labels: of the stars, without ``mu``.
        wavelength: Å, in the emulator's medium.
        true: normalised flux of the grid.
    """
    if emulator.domain.quantity != "intensity" or unseen(emulator.domain.mu) > MOST_UNSEEN:
        return None
    quadrature = quadrature_of(emulator.domain)
    total = np.zeros(true.shape)
    for mu, weight in zip(quadrature.mu, quadrature.weight, strict=True):
        stars = np.column_stack([labels, np.full(len(labels), mu)])
        total += weight * predict_in_chunks(emulator, stars, wavelength)[:, 0]
    return relative_error(total, true)
