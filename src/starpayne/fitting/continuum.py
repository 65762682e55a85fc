"""The continuum as a linear design matrix: Chebyshev polynomials of the observed wavelength, per segment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from starpayne.errors import SpectrumError


def chebyshev(wavelength: np.ndarray, degree: int) -> np.ndarray:
    """Return (n, degree + 1) Chebyshev polynomials of the wavelength scaled to [−1, 1]."""
    if degree < 0:
        raise SpectrumError(f"continuum degree {degree} must be 0 or more")
    middle, half = (wavelength[0] + wavelength[-1]) / 2, (wavelength[-1] - wavelength[0]) / 2
    return np.polynomial.chebyshev.chebvander((wavelength - middle) / max(half, 1e-12), degree)


def design_matrix(
    wavelength: np.ndarray, degree: int, segments: Sequence[tuple[float, float]] | None = None
) -> np.ndarray:
    """Return (n, n_segments · (degree + 1)): one polynomial per segment, zero outside it.

    Args:
        wavelength: (n,) observed, Å.
        degree: of the polynomial.
        segments: (low, high) in Å; by default one segment over everything. Pixels in no segment get a zero row.

    Raises:
        SpectrumError: for a negative degree or a segment without pixels.
    """
    if segments is None:
        return chebyshev(wavelength, degree)
    columns = []
    for low, high in segments:
        inside = (wavelength >= low) & (wavelength <= high)
        if not inside.any():
            raise SpectrumError(f"continuum segment {low:g} to {high:g} Å holds no pixel")
        block = np.zeros((len(wavelength), degree + 1))
        block[inside] = chebyshev(wavelength[inside], degree)
        columns.append(block)
    return np.concatenate(columns, axis=1)
