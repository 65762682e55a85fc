"""Spectra onto a common log-λ grid: interpolated where it is the finer, averaged over its pixels where it is not."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Float64

from starpayne.wavelengths import lagrange_weights


@dataclass(frozen=True)
class Resampler:
    """Carries values from one wavelength array (m,) to another (k,), both increasing, in Å.

    Args:
        source, target: the target lies within the source.
    """

    source: Float64[np.ndarray, " m"]
    target: Float64[np.ndarray, " k"]

    def __call__(self, values: Float[np.ndarray, " m"]) -> Float64[np.ndarray, " k"]:
        """Return the values at the target's wavelengths."""
        if not self.averages:
            indices, weights = self._weights
            return np.einsum("ij,ij->i", np.asarray(values, np.float64)[indices], weights)
        steps = np.diff(self.source)
        area = np.concatenate([[0.0], np.cumsum(0.5 * (values[1:] + values[:-1]) * steps, dtype=np.float64)])
        low, high = self._edges
        return (self._area_to(high, area, values) - self._area_to(low, area, values)) / (high - low)

    @cached_property
    def averages(self) -> bool:
        """Whether the target's pixels are wider than the source's anywhere: points would miss lines between them."""
        inside = (self.source > self.target[0]) & (self.source < self.target[-1])
        if inside.sum() < 2:
            return False
        native = np.interp(self.target, self.source[:-1], np.diff(self.source))
        return bool(np.any(np.gradient(self.target) > 1.5 * native))

    @cached_property
    def _weights(self) -> tuple[np.ndarray, np.ndarray]:
        return lagrange_weights(self.source, self.target)

    @cached_property
    def _edges(self) -> tuple[np.ndarray, np.ndarray]:
        middles = np.sqrt(self.target[1:] * self.target[:-1])
        first, last = self.target[0] ** 2 / middles[0], self.target[-1] ** 2 / middles[-1]
        low, high = np.concatenate([[first], middles]), np.concatenate([middles, [last]])
        # The outermost pixels are cut where the source ends.
        return np.maximum(low, self.source[0]), np.minimum(high, self.source[-1])

    def _area_to(self, edge: np.ndarray, area: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Return the integral of the linear interpolant up to each edge."""
        i = np.clip(np.searchsorted(self.source, edge, side="right") - 1, 0, len(self.source) - 2)
        t = edge - self.source[i]
        slope = (values[i + 1] - values[i]) / (self.source[i + 1] - self.source[i])
        return area[i] + t * (values[i] + 0.5 * slope * t)
