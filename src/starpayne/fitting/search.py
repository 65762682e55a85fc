"""Starting values without a guess: templates of the whole label space against the data at every velocity.

For each template, rotation and velocity the continuum is solved exactly. All velocities at once, because the normal
equations of the continuum are cross-correlations in ln λ, which the FFT gives together.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from numpy.fft import irfft, rfft

from starpayne.emulators import Emulator
from starpayne.fitting.broadening import rotation_transfer
from starpayne.fitting.continuum import chebyshev
from starpayne.fitting.freedom import FreeLabels
from starpayne.fitting.instrument import FWHM, LogGrid, Resolution, TabulatedProfile, fast_length
from starpayne.wavelengths import SPEED_OF_LIGHT

ROTATIONS = (3.0, 12.0, 30.0, 60.0, 120.0)
"""v sin i of the templates in km/s."""

ERROR_FLOOR = 0.01
"""No pixel counts as better than this fraction of the flux: templates are never closer to the star than that."""


@dataclass(frozen=True)
class Start:
    """One place to start from: unit-cube coordinates of the free labels, velocity and v sin i in km/s."""

    cube: np.ndarray
    rv: float
    vsini: float
    misfit: float


@dataclass(frozen=True)
class Templates:
    """Emulated spectra to search with: the same for all stars of one set-up.

    Args:
        grid: their wavelengths.
        cube: (n, n_free) where they stand in the unit cube of the free labels.
        depth: (n, grid.size) float32, flux − 1.
    """

    grid: LogGrid
    cube: np.ndarray
    depth: np.ndarray

    @classmethod
    def of(cls, emulator: Emulator, grid: LogGrid, free: FreeLabels, n: int, seed: int) -> Templates:
        """Emulate up to n templates, spread over the free labels."""
        cube = free.design(n, seed)
        wavelength = np.clip(grid.wavelength, emulator.domain.low, emulator.domain.high)
        flux = emulator.predict(free.from_cube(cube), wavelength, extrapolate=True).flux
        return cls(grid, cube, flux - 1)


def coarse_search(
    templates: Templates,
    wavelength: np.ndarray,
    flux: np.ndarray,
    inverse_variance: np.ndarray,
    resolution: Resolution,
    *,
    model_resolution: float | None,
    rv_range: tuple[float, float],
    vsini: float | None,
    vsini_max: float,
    degree: int,
    limb_darkening: float,
) -> list[Start]:
    """Return a start for each template at its best velocity and rotation, the best first.

    Args:
        templates: what to search with.
        wavelength: (n,) observed, Å, in the model's medium.
        flux: (n,) of order one.
        inverse_variance: (n,), 0 where masked.
        resolution: of the observation; ``model_resolution`` is that of the model.
        rv_range: km/s.
        vsini: None to search, or the fixed value; ``vsini_max`` bounds the search.
        degree: of the continuum.
        limb_darkening: of the rotation profile.
    """
    grid = templates.grid
    fwhm = _typical_fwhm(resolution)
    span = np.log(wavelength[-1] / wavelength[0]) * SPEED_OF_LIGHT
    coarse = max(3.0, fwhm / 3, span / 8192)
    stride = max(1, round(coarse / grid.velocity_step))
    step = stride * grid.step

    # The data in bins of the coarse grid, whose origin is the model's: lag j is then j steps of velocity.
    bins = np.rint((np.log(wavelength) - grid.start) / step).astype(np.int64)
    origin, n_bins = int(bins.min()), int(bins.max() - bins.min() + 1)
    weight = 1.0 / (1.0 / np.maximum(inverse_variance, 1e-30) + ERROR_FLOOR**2) * (inverse_variance > 0)
    w = np.bincount(bins - origin, weight, n_bins)
    wy = np.bincount(bins - origin, weight * flux, n_bins)
    wyy = np.bincount(bins - origin, weight * flux**2, n_bins)
    basis = chebyshev(np.linspace(-1, 1, n_bins), min(degree, max(0, n_bins // 4)))
    p = basis.shape[1]

    size = len(range(0, grid.size, stride))
    first_lag, last_lag = (round(v / SPEED_OF_LIGHT / step) for v in rv_range)
    lags = np.arange(first_lag, last_lag + 1)
    total = fast_length(n_bins + size + 2)

    def transform(values: np.ndarray) -> np.ndarray:
        return rfft(values, total, axis=-1)

    pairs = [(i, j) for i in range(p) for j in range(i, p)]
    data_squares = transform(np.stack([w * basis[:, i] * basis[:, j] for i, j in pairs]))
    data_cross = transform(np.stack([wy * basis[:, k] for k in range(p)]))
    data_sums = transform(np.stack([w, wyy]))
    # Bin i of the data lies over point i + origin − lag of the model.
    at = (origin - lags) % total

    def correlate(data: np.ndarray, model: np.ndarray) -> np.ndarray:
        return irfft(np.conj(data) * model, total, axis=-1)[..., at]

    inside = np.zeros(size)
    inside[1:-1] = 1.0
    weight_sum, square_sum = correlate(data_sums, transform(inside))
    enough = weight_sum > 0.6 * weight_sum.max()

    rotations = (vsini,) if vsini is not None else tuple(r for r in ROTATIONS if r <= max(vsini_max, ROTATIONS[0]))
    best: dict[int, Start] = {}
    for rotation in rotations:
        smooth = 1 + _smoothed(templates, rotation, fwhm, model_resolution, step, limb_darkening)[:, ::stride]
        for i, model in enumerate(smooth):
            squares = correlate(data_squares, transform(inside * model**2))
            cross = correlate(data_cross, transform(inside * model))
            misfit = np.where(enough, _misfit(squares, cross, square_sum, pairs, p) / weight_sum, np.inf)
            j = int(np.argmin(misfit))
            if i not in best or misfit[j] < best[i].misfit:
                offset = _vertex(misfit, j)
                rv = SPEED_OF_LIGHT * np.tanh((lags[j] + offset) * step)
                best[i] = Start(templates.cube[i], float(np.clip(rv, *rv_range)), rotation, float(misfit[j]))
    return sorted(best.values(), key=lambda s: s.misfit)


def _misfit(
    squares: np.ndarray, cross: np.ndarray, total: np.ndarray, pairs: list[tuple[int, int]], p: int
) -> np.ndarray:
    """Return the weighted squares that remain after the continuum is solved, at every lag."""
    normal = np.empty((squares.shape[-1], p, p))
    for index, (i, j) in enumerate(pairs):
        normal[:, i, j] = normal[:, j, i] = squares[index]
    # Enough to keep lags with little overlap solvable; they are not chosen.
    trace = np.trace(normal, axis1=1, axis2=2)
    normal += (1e-9 * np.abs(trace) + 1e-30)[:, None, None] * np.eye(p)
    solution = np.linalg.solve(normal, cross.T[..., None])[..., 0]
    return np.maximum(total - np.sum(solution * cross.T, axis=1), 0.0)


def _vertex(values: np.ndarray, j: int) -> float:
    """Return where, within half a step of j, the parabola through three values has its minimum."""
    if not 0 < j < len(values) - 1 or not np.all(np.isfinite(values[j - 1 : j + 2])):
        return 0.0
    left, middle, right = values[j - 1 : j + 2]
    curvature = left - 2 * middle + right
    return float(np.clip(0.5 * (left - right) / curvature, -0.5, 0.5)) if curvature > 0 else 0.0


def _typical_fwhm(resolution: Resolution) -> float:
    if isinstance(resolution, TabulatedProfile):
        v, r = resolution.velocity, resolution.response / resolution.response.sum()
        return FWHM * float(np.sqrt(np.sum(r * v**2) - np.sum(r * v) ** 2))
    return SPEED_OF_LIGHT / float(np.median(resolution))


def _smoothed(
    templates: Templates, rotation: float, fwhm: float, model_resolution: float | None, step: float, limb: float
) -> np.ndarray:
    """Return depths on the model grid, rotated, at the instrument's resolution and averaged over coarse bins."""
    grid = templates.grid
    pad = 64 + int(200 / grid.velocity_step)
    total = fast_length(grid.size + 2 * pad)
    padded = np.concatenate(
        [templates.depth, np.repeat(templates.depth[:, -1:], pad, 1),
         np.repeat(templates.depth[:, :1], total - grid.size - pad, 1)], axis=1,
    )  # fmt: skip
    k = 2 * np.pi * np.fft.rfftfreq(total, grid.velocity_step)
    own = 0.0 if model_resolution is None else SPEED_OF_LIGHT / model_resolution
    sigma2 = max(fwhm**2 - own**2, 0.0) / FWHM**2
    rotate = np.asarray(rotation_transfer(jnp.asarray((k * rotation) ** 2, jnp.float32), limb))
    transfer = rotate * np.exp(-0.5 * sigma2 * k**2) * np.sinc(k * step * SPEED_OF_LIGHT / (2 * np.pi))
    return irfft(rfft(padded, axis=1) * transfer, total, axis=1)[:, : grid.size]
