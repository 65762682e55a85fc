"""A pseudo-continuum for spectra that come without their continuum."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64

STEP = 0.05
"""Δ ln λ per degree of the polynomial: wide enough that no line is followed, hydrogen's and bands' wings apart."""
HIGHEST_DEGREE = 20
BINS_PER_DEGREE = 12
CLIP = 0.005
"""Bins whose highest pixel lies lower than this (in ln flux) below the fit are left out of the next one."""

METHOD = (
    "pseudo-continuum: Chebyshev polynomial in ln wavelength (one degree per 0.05, 1 to 20) through the logarithms of "
    "the highest fluxes of equal bins, refitted without the bins below it until none is left out"
)


def pseudo_continuum(wavelength: Float64[np.ndarray, " m"], flux: Float[np.ndarray, " m"]) -> Float64[np.ndarray, " m"]:
    """Return a smooth upper envelope (m,) of absolute fluxes, always positive; the same for the same input.

    Synthetic spectra have no noise, so that the highest pixel of a bin is the closest to the continuum. It is no true
    continuum: where lines leave no window, in the blue and in molecular bands, it lies below it.

    Args:
        wavelength: (m,) Å, increasing.
        flux: (m,) absolute; not all of it may be zero or less.
    """
    x = np.log(wavelength)
    width = float(x[-1] - x[0])
    degree = int(np.clip(1 + width // STEP, 1, HIGHEST_DEGREE))
    n_bins = int(np.clip(len(x) // 4, degree + 2, BINS_PER_DEGREE * degree)) if len(x) > 4 * degree else 0
    if n_bins == 0:
        return np.full(len(x), float(np.max(flux)))
    edges = np.searchsorted(x, np.linspace(x[0], x[-1], n_bins + 1)[:-1])
    edges = np.unique(np.minimum(edges, len(x) - 1))
    # A bin of an opaque region may hold nothing but zeros, whose logarithm would pull the whole fit down.
    lowest = 1e-6 * float(np.max(flux))
    values = np.log(np.maximum(np.maximum.reduceat(flux.astype(np.float64), edges), lowest))
    peaks = np.array([a + int(np.argmax(flux[a:b])) for a, b in zip(edges, np.append(edges[1:], len(x)), strict=True)])
    where = 2 * (x - x[0]) / width - 1
    degree = min(degree, len(peaks) - 2)
    kept = np.ones(len(peaks), bool)
    for _ in range(50):
        fit = np.polynomial.chebyshev.chebfit(where[peaks][kept], values[kept], degree)
        above = values > np.polynomial.chebyshev.chebval(where[peaks], fit) - CLIP
        # Enough bins must be left, and at both ends, or the polynomial is free to swing there.
        following = kept & above
        following[[0, -1]] = True
        if np.array_equal(following, kept) or following.sum() < degree + 3:
            break
        kept = following
    return np.exp(np.polynomial.chebyshev.chebval(where, fit))
