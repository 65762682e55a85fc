"""The continuum as a linear design matrix: Chebyshev polynomials or cubic splines of the wavelength, per segment."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.interpolate import BSpline

from starpayne.errors import SpectrumError

GAP = 5.0
"""A step between two pixels that is so many times the usual one parts two segments."""


@dataclass(frozen=True)
class Continuum:
    """How the continuum may bend.

    Args:
        degree: of the Chebyshev polynomial on each segment.
        knots: Å between the knots of a cubic spline, which then takes the polynomial's place; None for none.
        segments: (low, high) in Å of the parts that have a continuum each, such as the orders of an echelle. Pixels in
            none are not fitted. "gaps" parts the spectrum where pixels are missing; empty is one segment.

    Raises:
        SpectrumError: for a value that is out of its range, or segments that overlap.
    """

    degree: int = 3
    knots: float | None = None
    segments: tuple[tuple[float, float], ...] | str = ()

    def __post_init__(self) -> None:
        if not 0 <= self.degree <= 30:
            raise SpectrumError(f"continuum degree = {self.degree} is outside the range 0 to 30")
        if self.knots is not None and not self.knots > 0:
            raise SpectrumError(f"continuum knots every {self.knots:g} Å: the distance must be positive")
        if isinstance(self.segments, str):
            if self.segments != "gaps":
                raise SpectrumError(f"continuum segments {self.segments!r}: give (low, high) windows in Å, or 'gaps'")
            return
        ends = sorted(self.segments)
        for low, high in ends:
            if not low < high:
                raise SpectrumError(f"the continuum segment {low:g} to {high:g} must have its lower end first")
        for (_, end), (begin, _) in pairwise(ends):
            if begin < end:
                raise SpectrumError(f"continuum segments overlap between {begin:g} and {end:g} Å: a pixel has one")

    def parts(self, wavelength: np.ndarray) -> list[np.ndarray]:
        """Return (n,) bool for each segment that holds pixels: which it holds."""
        if self.segments == "gaps":
            steps = np.diff(wavelength)
            number = np.concatenate([[0], np.cumsum(steps > GAP * np.median(steps))])
            return [number == k for k in range(int(number[-1]) + 1)]
        if not self.segments:
            return [np.ones(len(wavelength), bool)]
        inside = [(wavelength >= low) & (wavelength <= high) for low, high in sorted(self.segments)]
        return [part for part in inside if part.any()]

    def basis(self, wavelength: np.ndarray, used: np.ndarray) -> np.ndarray:
        """Return (n, columns): the columns of each segment are zero outside it.

        Args:
            wavelength: (n,) observed, Å, increasing.
            used: (n,) bool. What no used pixel determines is left out.
        """
        columns = []
        for part in self.parts(wavelength):
            x = wavelength[part]
            held = chebyshev(x, min(self.degree, max(0, int(used[part].sum()) - 1)))
            if self.knots is not None:
                held = spline(x, self.knots)
            held = held[:, np.sum(held[used[part]] ** 2, axis=0) > 1e-6]
            block = np.zeros((len(wavelength), held.shape[1]))
            block[part] = held
            columns.append(block)
        return np.concatenate(columns, axis=1) if columns else np.zeros((len(wavelength), 0))

    def covered(self, wavelength: np.ndarray) -> np.ndarray:
        """Return (n,) bool: which pixels lie in a segment."""
        return np.any(self.parts(wavelength) or [np.zeros(len(wavelength), bool)], axis=0)


def chebyshev(wavelength: np.ndarray, degree: int) -> np.ndarray:
    """Return (n, degree + 1) Chebyshev polynomials of the wavelength scaled to [−1, 1]."""
    if degree < 0:
        raise SpectrumError(f"continuum degree {degree} must be 0 or more")
    middle, half = (wavelength[0] + wavelength[-1]) / 2, (wavelength[-1] - wavelength[0]) / 2
    return np.polynomial.chebyshev.chebvander((wavelength - middle) / max(half, 1e-12), degree)


def spline(wavelength: np.ndarray, distance: float) -> np.ndarray:
    """Return (n, intervals + 3) cubic B-splines with knots at about this distance in Å."""
    low, high = float(wavelength[0]), float(wavelength[-1])
    intervals = max(1, round((high - low) / distance))
    knots = np.concatenate([[low] * 3, np.linspace(low, high, intervals + 1), [high] * 3])
    if not high > low:
        return np.ones((len(wavelength), 1))
    return BSpline.design_matrix(wavelength, knots, 3).toarray()
