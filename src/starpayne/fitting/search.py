"""Starting values without a guess: templates of the whole label space against the data, in two stages.

First the velocity: a few templates that differ most, at every velocity. For each template, rotation and velocity the
continuum is solved exactly; all velocities at once, because the normal equations of the continuum are
cross-correlations in ln λ, which the FFT gives together. Then labels and rotation: all templates at that velocity and
its neighbours, where the same equations are products of matrices. What depends on the templates alone is kept from one
star to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np
from scipy.fft import irfft, rfft

from starpayne.emulators import Emulator
from starpayne.fitting.broadening import rotation_transfer
from starpayne.fitting.continuum import chebyshev
from starpayne.fitting.freedom import FreeLabels
from starpayne.fitting.instrument import LogGrid, fast_length
from starpayne.fitting.resolution import FWHM, Resolution, typical_fwhm
from starpayne.wavelengths import SPEED_OF_LIGHT

T = TypeVar("T")

ROTATIONS = (3.0, 12.0, 30.0, 60.0, 120.0)
"""v sin i of the templates in km/s."""

VELOCITY_TEMPLATES = 16
"""Templates that are tried at every velocity."""

VELOCITY_DEGREE = 2
"""Degree of the continuum there, at most: a bend is enough to tell lines from it."""

SUMMITS = 3
"""Velocities that are looked at again, the best of the first stage."""

SOME = 4
"""Of so many templates one is compared at every summit; the others at the best one alone."""

WORTH = 8
"""Templates for each start that are compared at the velocities around the best one."""

BINS = 256
"""Lengths are rounded up to multiples of this, so that what is kept for one star serves the next."""

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

    def most_different(self, n: int) -> np.ndarray:
        """Return the places of n templates, each as far as can be from those before it; the first is the most
        typical."""
        depth = self.depth[:, :: max(1, self.grid.size // 500)]
        square = np.sum(depth**2, axis=1)
        distance = np.sqrt(np.maximum(square[:, None] + square - 2 * depth @ depth.T, 0.0))
        chosen = [int(np.argmin(distance.sum(axis=1)))]
        while len(chosen) < min(n, len(depth)):
            chosen.append(int(np.argmax(distance[chosen].min(axis=0))))
        return np.array(chosen)


@dataclass(frozen=True)
class Query:
    """What is asked of the search for one star.

    Args:
        wavelength: (n,) observed, Å, in the model's medium.
        flux: (n,) of order one.
        inverse_variance: (n,), 0 where masked.
        resolution: of the observation; ``model_resolution`` is that of the model.
        rv_range: km/s.
        vsini: the lowest and the highest that may be, km/s.
        degree: of the continuum.
        limb_darkening: of the rotation profile.
        n_starts: how many starts to return at most.
    """

    wavelength: np.ndarray
    flux: np.ndarray
    inverse_variance: np.ndarray
    resolution: Resolution
    model_resolution: float | None
    rv_range: tuple[float, float]
    vsini: tuple[float, float]
    degree: int
    limb_darkening: float
    n_starts: int

    @cached_property
    def fwhm(self) -> float:
        """Of the line-spread function, km/s; one number for all pixels."""
        return typical_fwhm(self.resolution)

    @cached_property
    def rotations(self) -> tuple[float, ...]:
        """v sin i to try, km/s."""
        low, high = self.vsini
        inside = tuple(r for r in ROTATIONS if low <= r <= high)
        return inside or (0.5 * (low + high),)


@dataclass(frozen=True)
class Binned:
    """A star in bins of equal steps in ln λ, whose first lies over point ``origin`` of the templates at velocity 0.

    Args:
        step: in ln λ; ``stride`` of the templates' grid.
        weight, flux: (bins,) sum of the weights, weighted mean of the flux.
        square: the weighted sum of squares of the flux in each bin.
    """

    origin: int
    step: float
    stride: int
    weight: np.ndarray
    flux: np.ndarray
    square: np.ndarray

    @classmethod
    def of(cls, query: Query, grid: LogGrid) -> Binned:
        """Sum the pixels; bins without any have no weight."""
        span = np.log(query.wavelength[-1] / query.wavelength[0]) * SPEED_OF_LIGHT
        coarse = max(3.0, query.fwhm / 3, span / 8192)
        stride = max(1, round(coarse / grid.velocity_step))
        step = stride * grid.step
        bins = np.rint((np.log(query.wavelength) - grid.start) / step).astype(np.int64)
        origin = int(bins.min())
        size = -(-int(bins.max() - origin + 1) // BINS) * BINS
        inverse = query.inverse_variance
        weight = 1.0 / (1.0 / np.maximum(inverse, 1e-30) + ERROR_FLOOR**2) * (inverse > 0)
        w = np.bincount(bins - origin, weight, size)
        wy = np.bincount(bins - origin, weight * query.flux, size)
        wyy = np.bincount(bins - origin, weight * query.flux**2, size)
        return cls(origin, step, stride, w, wy / np.maximum(w, 1e-30), wyy)


@dataclass(eq=False)
class Searcher:
    """Templates, and what follows from them for one kind of observation."""

    templates: Templates
    _kept: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def __call__(self, query: Query) -> list[Start]:
        """Return a start for each of the best templates, at its best velocity and rotation; the best first."""
        grid = self.templates.grid
        data = Binned.of(query, grid)
        size = len(range(0, grid.size, data.stride))
        first, last = (round(v / SPEED_OF_LIGHT / data.step) for v in query.rv_range)
        lags = np.arange(first, last + 1)
        summits = lags if len(lags) <= SUMMITS else self._velocities(query, data, lags, size)
        return self._at(query, data, summits, size, (first, last))

    def _once(self, key: Hashable, make: Callable[[], T]) -> T:
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def _models(self, query: Query, data: Binned) -> np.ndarray:
        """Return (templates, rotations, size) float32 fluxes as the instrument sees them, at the step of the bins."""
        fwhm = query.fwhm
        key = ("models", round(fwhm, 2), data.stride, query.rotations, query.limb_darkening, query.model_resolution)

        def make() -> np.ndarray:
            seen = [
                1 + smoothed(self.templates, r, fwhm, query.model_resolution, data.step, query.limb_darkening)
                for r in query.rotations
            ]
            return np.stack([each[:, :: data.stride] for each in seen], axis=1, dtype=np.float32)

        return self._once(key, make)

    def _velocities(self, query: Query, data: Binned, lags: np.ndarray, size: int) -> np.ndarray:
        """Return the lags at which any of a few templates fits best."""
        # Bin i of the data lies over point i + origin − lag of the model: at no lag may it come round to the other end.
        offsets = data.origin - lags
        longest = max(size - int(offsets.min()), len(data.weight) + int(offsets.max())) + 2
        total = fast_length(-(-longest // BINS) * BINS)
        models = self._models(query, data)

        def transforms() -> tuple[np.ndarray, np.ndarray]:
            few = self._once("few", lambda: self.templates.most_different(VELOCITY_TEMPLATES))
            # Every other rotation: to find the velocity, lines need not be as broad as the star's.
            few = models[few, ::2].reshape(-1, size) * _inside(size)
            return rfft(few, total, axis=-1), rfft(few**2, total, axis=-1)  # pyright: ignore[reportReturnType]

        key = ("transforms", total, round(query.fwhm, 2), data.stride, query.rotations)
        model, model_square = self._once(key, transforms)
        degree = min(VELOCITY_DEGREE, query.degree)
        moments = chebyshev(np.linspace(-1, 1, len(data.weight)), 2 * degree).T
        at = offsets % total

        def correlate(values: np.ndarray, transformed: np.ndarray) -> np.ndarray:
            """Return (len(values), models, lags)."""
            ours = np.conj(np.asarray(rfft(values.astype(np.float32), total, axis=-1)))
            products = ours[:, None] * transformed[None]
            return np.asarray(irfft(products, total, axis=-1, overwrite_x=True))[..., at]

        flat = np.asarray(rfft(_inside(size).astype(np.float32), total))[None]
        weight_sum, square_sum = correlate(np.stack([data.weight, data.square]), flat)[:, 0]
        enough = weight_sum > 0.6 * weight_sum.max()
        squares = correlate(data.weight * moments, model_square)
        cross = correlate(data.weight * data.flux * moments[: degree + 1], model)
        # In double precision from here on: what remains is a small difference.
        misfit = _misfit(squares.astype(np.float64), cross.astype(np.float64), square_sum.astype(np.float64))
        misfit /= np.maximum(weight_sum, 1e-30)
        lowest = np.where(enough & np.isfinite(misfit).all(axis=0), misfit.min(axis=0), np.inf)
        if not np.isfinite(lowest).any():  # an emulator that gives no numbers: the solver will say so
            return lags[len(lags) // 2 :][:1]
        return lags[_lowest(lowest, SUMMITS, apart=max(2, round(30 / (SPEED_OF_LIGHT * data.step))))]

    def _at(self, query: Query, data: Binned, summits: np.ndarray, size: int, ends: tuple[int, int]) -> list[Start]:
        """Return a start for each of the best templates: the best of its rotations at these lags."""
        models = self._models(query, data)
        n, n_rotations = models.shape[:2]
        flat = models.reshape(-1, size)
        squares = self._once(("squares", id(models)), lambda: flat**2)
        n_bins = len(data.weight)
        degree = min(query.degree, max(0, n_bins // 4))
        moments = chebyshev(np.linspace(-1, 1, n_bins), 2 * degree)

        def misfits(lags: np.ndarray, of: np.ndarray | slice) -> np.ndarray:
            """Return (lags, models) of some of the models."""
            parts = []
            for lag in lags.tolist():
                begin = data.origin - lag
                # Points 1 … size − 2 of the model: the outermost are left out.
                low, high = max(1, begin), min(size - 1, begin + n_bins)
                part, over = slice(low, high), slice(low - begin, high - begin)
                w, of_square = data.weight[over, None] * moments[over], data.square[over].sum()
                normal = squares[of, part] @ w.astype(np.float32)
                cross = flat[of, part] @ (w[:, : degree + 1] * data.flux[over, None]).astype(np.float32)
                parts.append((normal.T, cross.T, np.full(len(normal), of_square), data.weight[over].sum()))
            normal, cross, total = (np.stack(x, -2, dtype=np.float64) for x in list(zip(*parts, strict=True))[:3])
            left = _misfit(normal, cross, total) / np.maximum([[p[3]] for p in parts], 1e-30)
            return np.nan_to_num(left, nan=np.inf)

        # Sobol's points are spread evenly from the first one on.
        some = slice(n_rotations * -(-n // SOME))
        lag = int(summits[np.argmin(misfits(summits, some).min(axis=1))])
        # Of each of the best templates its best lag and rotation; no others are worth a start.
        lowest = misfits(np.array([lag]), slice(None)).reshape(n, n_rotations).min(axis=1)
        chosen = np.argsort(lowest, kind="stable")[: WORTH * query.n_starts]
        lags = np.unique(np.clip([lag - 1, lag, lag + 1], *ends))
        models = (chosen[:, None] * n_rotations + np.arange(n_rotations)).ravel()
        misfit = misfits(lags, models).reshape(len(lags), len(chosen), n_rotations)
        best_of = misfit.min(axis=(0, 2))
        starts = []
        for i in np.argsort(best_of, kind="stable")[: query.n_starts]:
            k, r = np.unravel_index(int(np.argmin(misfit[:, i])), misfit[:, i].shape)
            offset = _vertex(misfit[:, i, r], int(k))
            rv = SPEED_OF_LIGHT * np.tanh((lags[k] + offset) * data.step)
            rv = float(min(max(rv, query.rv_range[0]), query.rv_range[1]))
            starts.append(Start(self.templates.cube[chosen[i]], rv, query.rotations[r], float(best_of[i])))
        return starts


def _inside(size: int) -> np.ndarray:
    inside = np.zeros(size, np.float32)
    inside[1:-1] = 1.0
    return inside


def _lowest(values: np.ndarray, n: int, apart: int) -> list[int]:
    """Return the places of the n lowest values, so many places apart from each other."""
    left, chosen = values.copy(), []
    for _ in range(n):
        j = int(np.argmin(left))
        if not np.isfinite(left[j]):
            break
        chosen.append(j)
        left[max(0, j - apart) : j + apart + 1] = np.inf
    return chosen


def _misfit(squares: np.ndarray, cross: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Return the weighted squares (...) that remain after the continuum is solved.

    By a Cholesky decomposition written out: thousands of small systems, one array operation for each of their elements.

    Args:
        squares: (2p − 1, ...) sums of the model's square times each Chebyshev polynomial: the normal equations of p of
            them, as T_i T_j = (T_{i+j} + T_{|i−j|}) / 2.
        cross: (p, ...).
        total: (...) weighted squares of the data.
    """
    p = len(cross)
    # Enough to keep lags with little overlap solvable; they are not chosen.
    least = 0.5e-6 * sum(np.abs(squares[2 * i] + squares[0]) for i in range(p)) / p + 1e-30
    left: dict[tuple[int, int], np.ndarray] = {}
    remains = total
    solved: list[np.ndarray] = []
    for i in range(p):
        for j in range(i):
            inner = sum((left[i, k] * left[j, k] for k in range(j)), start=0.0)
            left[i, j] = (0.5 * (squares[i + j] + squares[i - j]) - inner) / left[j, j]
        diagonal = 0.5 * (squares[2 * i] + squares[0]) - sum((left[i, k] ** 2 for k in range(i)), start=0.0)
        left[i, i] = np.sqrt(np.maximum(diagonal, least))
        value = (cross[i] - sum((left[i, k] * solved[k] for k in range(i)), start=0.0)) / left[i, i]
        solved.append(value)
        remains = remains - value**2
    return np.maximum(remains, 0.0)


def _vertex(values: np.ndarray, j: int) -> float:
    """Return where, within half a step of j, the parabola through three values has its minimum."""
    if not 0 < j < len(values) - 1:
        return 0.0
    left, middle, right = values[j - 1 : j + 2].tolist()
    curvature = left - 2 * middle + right
    return min(max(0.5 * (left - right) / curvature, -0.5), 0.5) if 0 < curvature < np.inf else 0.0


def smoothed(
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
    return np.asarray(irfft(np.asarray(rfft(padded, axis=1)) * transfer, total, axis=1))[:, : grid.size]
