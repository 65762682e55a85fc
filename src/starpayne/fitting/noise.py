"""Noise beyond the stated errors: what the model lacks, estimated from the residuals themselves.

On real stars missing lines and wrong oscillator strengths, not photons, limit a fit. Their misfit is larger than the
stated errors, has long tails, and is alike over a line-spread function; all three are taken from the residuals.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

NU = 4.0
"""Degrees of freedom of the Student-t distribution of the misfit: long tails, finite variance (Lange et al. 1989)."""

ALIKE = 0.03
"""Relative change of the jitter that no longer matters."""


@dataclass(frozen=True, eq=False)
class Noise:
    """What is added to the stated errors.

    Args:
        jitter: 1 σ added to every pixel, as a fraction of the median flux.
        weight: (n,) factor on the inverse variance of each pixel used; empty for 1.
        inflation: factor on the covariance of the parameters.
    """

    jitter: float = 0.0
    weight: np.ndarray = field(default_factory=lambda: np.ones(0))
    inflation: float = 1.0

    @property
    def nothing(self) -> bool:
        """Whether the stated errors stay as they are."""
        return self.jitter == 0 and not len(self.weight)

    def like(self, other: Noise) -> bool:
        """Return whether the jitter is the same to a few per cent."""
        return abs(self.jitter - other.jitter) <= ALIKE * self.jitter

    def variance(self, stated: np.ndarray) -> np.ndarray:
        """Return the variance of pixels whose stated variance is given."""
        total = stated + self.jitter**2
        return total / self.weight if len(self.weight) else total

    def stated(self, variance: np.ndarray) -> np.ndarray:
        """Invert :meth:`variance`."""
        total = variance * self.weight if len(self.weight) else variance
        return np.maximum(total - self.jitter**2, 1e-12)


def by_chance(freedom: int) -> float:
    """Return the χ² that chance allows (3 σ) where the errors are as stated."""
    return freedom * (1 + 3 * np.sqrt(2 / freedom))


def estimate(residual: np.ndarray, stated: np.ndarray, freedom: int, robust: bool) -> Noise:
    """Return the noise with which the residuals would have a reduced χ² of 1.

    Args:
        residual: (n,) observed minus model, in pixel order.
        stated: (n,) variance of the stated errors and the emulator's.
        freedom: degrees of freedom.
        robust: weigh pixels down by a Student-t distribution instead of a Gaussian.

    Returns:
        no noise where χ² is no larger than chance (3 σ) allows without it.
    """
    if np.sum(residual**2 / stated) <= by_chance(freedom):
        return Noise()

    def weight(total: np.ndarray) -> np.ndarray:
        return (NU + 1) / (NU + residual**2 / total) if robust else np.ones_like(total)

    low, high = 0.0, 1.01 * float(np.sqrt(np.sum(residual**2) / freedom))
    for _ in range(50):
        middle = 0.5 * (low + high)
        total = stated + middle**2
        if np.sum(weight(total) * residual**2 / total) > freedom:
            low = middle
        else:
            high = middle
    total = stated + high**2
    w = weight(total)
    # A Student-t sample of n has the information of (ν + 1)/(ν + 3) n Gaussian ones of the same scale.
    lost = (NU + 3) / (NU + 1) if robust else 1.0
    alike = correlation_time(residual * np.sqrt(w / total))
    # Photon noise is independent from pixel to pixel: only the part of the variance that was added is not.
    added = float(1 - np.mean(stated / total))
    return Noise(high, w, 1 + (lost * alike - 1) * added)


def correlation_time(residual: np.ndarray) -> float:
    """Return over how many neighbouring pixels residuals are alike: 1 + 2 Σ ρ_k up to the first ρ_k <= 0, at least
    1."""
    n = len(residual)
    spectrum = np.fft.rfft(residual - residual.mean(), 2 * n)
    correlation = np.fft.irfft(np.abs(spectrum) ** 2)[: n // 4 + 1]
    if len(correlation) < 2 or correlation[0] <= 0:
        return 1.0
    rho = correlation[1:] / correlation[0]
    negative = np.flatnonzero(rho <= 0)
    return 1.0 + 2.0 * float(np.sum(rho[: negative[0] if len(negative) else len(rho)]))
