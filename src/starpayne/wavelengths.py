"""Wavelengths: air and vacuum, log-λ grids, Doppler factors, and the host-side float64 work of the emulators.

All wavelengths are in Å and float64. Everything that needs more than float32 happens here, once per wavelength
grid, on the host, so that JAX needs no global 64-bit mode.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from starpayne.errors import WavelengthError

MEDIA = ("air", "vacuum")
SPEED_OF_LIGHT = 299792.458
"""km/s, exact."""


def check_medium(medium: str) -> str:
    """Return the medium if it is ``air`` or ``vacuum``; raise WavelengthError otherwise."""
    if medium not in MEDIA:
        raise WavelengthError(f"medium {medium!r} is not known; say 'air' or 'vacuum'")
    return medium


def check_wavelength(wavelength: ArrayLike) -> np.ndarray:
    """Return wavelengths as a float64 array (n,) after checking that they can be used.

    Raises:
        WavelengthError: if they are traced by JAX, not one-dimensional, empty, not finite, not strictly
            increasing, or obviously in another unit than Å (below 900).
    """
    jax = sys.modules.get("jax")  # a tracer can only exist where JAX has been imported
    if jax is not None and isinstance(wavelength, jax.core.Tracer):
        raise WavelengthError(
            "the wavelength is traced by JAX (inside jit, vmap or grad); phases need float64 on the host. "
            "Call bound = emulator.on(wavelength) outside, and transform bound(labels) instead"
        )
    array = np.asarray(wavelength, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise WavelengthError(f"wavelength must be a non-empty one-dimensional array, got shape {array.shape}")
    if not np.all(np.isfinite(array)):
        bad = int(np.flatnonzero(~np.isfinite(array))[0])
        raise WavelengthError(f"wavelength[{bad}] = {array[bad]} is not a finite number")
    if array.size > 1 and not np.all(np.diff(array) > 0):
        bad = int(np.flatnonzero(np.diff(array) <= 0)[0])
        raise WavelengthError(
            f"wavelengths must increase: wavelength[{bad}] = {array[bad]:.4f} is followed by {array[bad + 1]:.4f}; "
            "sort them, or split overlapping orders"
        )
    if array[0] < 900:
        raise WavelengthError(
            f"wavelengths start at {array[0]:g}: starpayne expects Å. For nm multiply by 10, for µm by 10,000"
        )
    return array


def covers(low: float, high: float, wavelength: np.ndarray) -> bool:
    """Return whether increasing wavelengths lie in [low, high] Å, give or take the rounding of a conversion."""
    tolerance = 1e-9 * high
    return bool(wavelength[0] >= low - tolerance and wavelength[-1] <= high + tolerance)


def check_coverage(wavelength: np.ndarray, low: float, high: float, medium: str) -> None:
    """Raise WavelengthError, printing both ranges, if any wavelength is outside [low, high] Å."""
    if not covers(low, high, wavelength):
        raise WavelengthError(
            f"wavelengths {wavelength[0]:.3f} to {wavelength[-1]:.3f} Å leave the model's range "
            f"{low:.3f} to {high:.3f} Å ({medium})"
        )


def log_grid(low: float, high: float, sampling: float) -> np.ndarray:
    """Return wavelengths from low to at most high (Å) at equal steps of ln λ, λ/Δλ = sampling."""
    if not (0 < low < high and sampling > 1):
        raise WavelengthError(f"log_grid needs 0 < low < high and sampling > 1, got {low}, {high}, {sampling}")
    # A ten-thousandth of a step: a grid's own sampling, measured, must give all of its pixels back.
    n = int(np.floor(np.log(high / low) * sampling + 1e-4)) + 1
    return low * np.exp(np.arange(n) / sampling)


def sampling_of(wavelength: np.ndarray) -> float:
    """Return the coarsest λ/Δλ of an increasing wavelength array."""
    if len(wavelength) < 2:
        raise WavelengthError("the sampling of fewer than two wavelengths is not defined")
    return float(1.0 / np.max(np.diff(np.log(wavelength))))


def sampling_needed(teff: float, vmic: float) -> float:
    """Return the λ/Δλ at which the narrowest lines of a star lose less than 1 % of their strength to the sampling.

    Sums over pixels are exact for a band-limited spectrum; of a Gaussian line of standard deviation σ sampled at steps
    h, the first alias has the relative size exp(−2π²σ²/h²). The narrowest line is one of iron at 0.8 Teff. (Fitted at
    R = 40,000, stars came out 0.06 dex too metal-poor from a grid whose weak lines lost 10 % this way.)

    Args:
        teff: the lowest Teff, in K.
        vmic: the lowest microturbulence, in km/s.
    """
    thermal = 8.314 * 0.8 * teff / 0.0558 * 1e-6
    sigma = np.sqrt(thermal + 0.5 * vmic**2)
    return float(SPEED_OF_LIGHT / (np.pi * np.sqrt(2 / np.log(100)) * sigma))


def doppler_factor(velocity: Any) -> Any:
    """Return λ_observed / λ_rest for a radial velocity in km/s (relativistic, positive receding)."""
    beta = velocity / SPEED_OF_LIGHT
    return ((1 + beta) / (1 - beta)) ** 0.5


def vacuum_to_air(wavelength: ArrayLike) -> np.ndarray:
    """Convert vacuum wavelengths (Å) to standard air (Ciddor 1996, Appl. Opt. 35, 1566, via Morton 2000 eq. 8)."""
    vacuum = np.asarray(wavelength, dtype=np.float64)
    return np.asarray(vacuum / _refractive_index(vacuum))


def air_to_vacuum(wavelength: ArrayLike) -> np.ndarray:
    """Convert standard-air wavelengths (Å) to vacuum, the exact inverse of :func:`vacuum_to_air` to 1e-12."""
    air = np.asarray(wavelength, dtype=np.float64)
    vacuum = air * _refractive_index(air)
    for _ in range(4):
        vacuum = air * _refractive_index(vacuum)
    return np.asarray(vacuum)


def convert_medium(wavelength: np.ndarray, source: str, target: str) -> np.ndarray:
    """Return wavelengths (Å) given in one medium in the other (or unchanged)."""
    if check_medium(source) == check_medium(target):
        return wavelength
    return vacuum_to_air(wavelength) if target == "air" else air_to_vacuum(wavelength)


def _refractive_index(vacuum: np.ndarray | np.floating) -> np.ndarray:
    # Below 2000 Å wavelengths are quoted in vacuum everywhere, and the formula is not valid there.
    s2 = (1e4 / vacuum) ** 2
    index = 1 + 5.792105e-2 / (238.0185 - s2) + 1.67917e-3 / (57.362 - s2)
    return np.where(vacuum < 2000.0, 1.0, index)


SCALES = ("log10", "linear")
"""What a network's encoding may be periodic in: log10(λ/Å), or λ in Å."""


@dataclass(frozen=True)
class Coordinate:
    """What the encoding of a network calls wavelength: ``(x - zero) / span``, of x = log10(λ/Å) or x = λ/Å.

    Args:
        scale: "log10" or "linear".
        zero, span: the affine scaling of it.

    Raises:
        WavelengthError: for another scale, or numbers that are not finite, or no positive span.
    """

    scale: str = "log10"
    zero: float = 0.0
    span: float = 1.0

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise WavelengthError(f"wavelength scale {self.scale!r} is not known; choose one of {', '.join(SCALES)}")
        if not (np.isfinite(self.zero) and 0 < self.span < np.inf):
            raise WavelengthError(f"a coordinate needs a finite zero and a positive span, got {self.zero}, {self.span}")

    def of(self, wavelength: np.ndarray) -> np.ndarray:
        """Return the coordinate of wavelengths in Å, float64."""
        return ((np.log10(wavelength) if self.scale == "log10" else wavelength) - self.zero) / self.span

    def wavelength(self, values: np.ndarray) -> np.ndarray:
        """Return the wavelengths in Å of values of the coordinate, float64."""
        x = self.zero + self.span * np.asarray(values, np.float64)
        return 10.0**x if self.scale == "log10" else x


LOG10_ANGSTROM = Coordinate()
"""The coordinate of TransformerPayne (arXiv:2407.05751)."""


def phases(wavelength: np.ndarray, periods: np.ndarray, coordinate: Coordinate = LOG10_ANGSTROM) -> np.ndarray:
    """Return sin(2π x / P) as float32 (n_wavelength, n_periods), reduced in float64; x is by default log10(λ/Å).

    The shortest published period, 1e-6, makes the argument exceed 1e7: float32 would keep no digit of it.
    Source: arXiv:2407.05751, its public code.
    """
    turns = coordinate.of(wavelength)[:, None] / periods[None, :]
    return np.sin(2 * np.pi * (turns - np.rint(turns))).astype(np.float32)


def lagrange_weights(nodes: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the cubic (four-point Lagrange) interpolation from nodes to targets as a sparse matrix.

    Args:
        nodes: (m,) increasing, m >= 4.
        targets: (n,) within the nodes.

    Returns:
        indices (n, 4) int32 and weights (n, 4) float64; ``values[indices] @ weights`` interpolates, exactly so at
        the nodes and for cubics.

    Raises:
        WavelengthError: for fewer than four nodes.
    """
    if len(nodes) < 4:
        raise WavelengthError(f"cubic interpolation needs at least 4 wavelengths to start from, got {len(nodes)}")
    left = np.clip(np.searchsorted(nodes, targets, side="right") - 2, 0, len(nodes) - 4)
    indices = left[:, None] + np.arange(4)
    x = nodes[indices]
    weights = np.ones_like(x)
    for j in range(4):
        for k in range(4):
            if j != k:
                weights[:, j] *= (targets - x[:, k]) / (x[:, j] - x[:, k])
    return indices.astype(np.int32), weights
