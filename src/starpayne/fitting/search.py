"""Starting values without a guess: templates of the whole label space against the data, in two stages.

First the velocity: a few templates that differ most, at every velocity. For each template, rotation and velocity the
continuum is solved exactly; all velocities at once, because the normal equations of the continuum are
cross-correlations in ln λ, which the FFT gives together. Then labels and rotation: all templates at that velocity and
its neighbours, where the same equations are products of matrices. Several stars share one call of a compiled function.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from starpayne.emulators.base import room
from starpayne.fitting.instrument import LogGrid
from starpayne.fitting.lanes import sizes, together_at
from starpayne.fitting.pixels import AnyArray
from starpayne.fitting.resolution import Resolution, typical_fwhm
from starpayne.fitting.templates import Templates, Views, inside
from starpayne.wavelengths import SPEED_OF_LIGHT

ROTATIONS = (3.0, 12.0, 30.0, 60.0, 120.0)
"""v sin i of the templates in km/s."""

VELOCITY_DEGREE, DEGREE = 2, 6
"""Degrees of the continuum, at most, at every velocity and afterwards: bends are enough to tell lines from it, and
what is the same for all templates does not matter."""

SUMMITS = 3
"""Velocities that are looked at again, the best of the first stage."""

APART = 30.0
"""km/s between them at least."""

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
        some = tuple(r for r in ROTATIONS if low <= r <= high)
        return some or (0.5 * (low + high),)


class Frame(NamedTuple):
    """Bins of equal steps in ln λ that hold a star and the templates at any velocity: what stars of a call share.

    Point j of the templates, at a velocity of ``lag`` bins, lies over bin j + lag − first.

    Args:
        stride, step: of a bin, in points of the templates' grid, and in ln λ.
        first, lags: the first velocity, and how many there are, in bins.
        degree: of the continuum.
        starts: how many to find.
    """

    stride: int
    step: float
    first: int
    lags: int
    degree: int
    starts: int

    @classmethod
    def of(cls, query: Query, templates: Templates) -> Frame:
        grid = templates.grid
        span = np.log(query.wavelength[-1] / query.wavelength[0]) * SPEED_OF_LIGHT
        stride = max(1, round(max(3.0, query.fwhm / 3, span / 8192) / grid.velocity_step))
        step = stride * grid.step
        first, last = (round(v / SPEED_OF_LIGHT / step) for v in query.rv_range)
        starts = min(query.n_starts, len(templates.cube))
        return cls(stride, step, first, last - first + 1, min(query.degree, DEGREE), starts)


def binned(query: Query, frame: Frame, grid: LogGrid, total: int) -> np.ndarray:
    """Return (4, total) float32 of a star in a frame: the weight of each bin, its mean flux, the weighted sum of its
    squares, and where it lies in the star's range, from −1 to 1."""
    bins = np.rint((np.log(query.wavelength) - grid.start) / frame.step).astype(np.int64) - frame.first
    # What no velocity brings over a template counts for nothing.
    seen = (bins >= 0) & (bins < total)
    bins, inverse, flux = bins[seen], query.inverse_variance[seen], query.flux[seen]
    weight = 1.0 / (1.0 / np.maximum(inverse, 1e-30) + ERROR_FLOOR**2) * (inverse > 0)
    w, wy, wyy = (np.bincount(bins, values, total) for values in (weight, weight * flux, weight * flux**2))
    low, high = (bins[0], bins[-1]) if len(bins) else (0, 0)
    place = (2.0 * np.arange(total) - low - high) / max(high - low, 1)
    return np.stack([w, wy / np.maximum(w, 1e-30), wyy, np.clip(place, -1, 1)]).astype(np.float32)


@dataclass(eq=False)
class Inquiry:
    """The search for one star, still to be made; ``starts`` are what it finds, the best first."""

    frame: Frame
    templates: Templates
    views: Views
    query: Query
    star: np.ndarray
    starts: list[Start] | None = None

    @property
    def done(self) -> bool:
        return self.starts is not None

    @property
    def shape(self) -> object:
        """What must be the same for two of them to share a call of a compiled function."""
        return "search", id(self.views), self.frame

    def take(self, template: np.ndarray, rotation: np.ndarray, lag: np.ndarray, misfit: np.ndarray) -> None:
        """Take over what was found: (starts,) each; the lag in bins and parts of them."""
        rv = np.clip(SPEED_OF_LIGHT * np.tanh(lag.astype(np.float64) * self.frame.step), *self.query.rv_range)
        rotations = self.views.rotations
        self.starts = [
            Start(self.templates.cube[i], float(v), rotations[r], float(m))
            for i, r, v, m in zip(template.tolist(), rotation.tolist(), rv, misfit, strict=True)
        ]


@dataclass(eq=False)
class Searcher:
    """Templates, and what follows from them for one kind of observation."""

    templates: Templates
    _kept: dict[Hashable, Views] = field(default_factory=dict, repr=False)

    def about(self, query: Query) -> Inquiry:
        """Return the search for a star, to be made together with others by :func:`search`."""
        frame, fwhm = Frame.of(query, self.templates), round(query.fwhm, 2)
        key = fwhm, frame.stride, frame.lags, query.rotations, query.limb_darkening, query.model_resolution
        if key not in self._kept:
            self._kept[key] = Views.of(
                self.templates, query.rotations, fwhm, query.model_resolution, query.limb_darkening, frame.stride,
                frame.lags + 1,
            )  # fmt: skip
        views = self._kept[key]
        star = binned(query, frame, self.templates.grid, views.total)
        return Inquiry(frame, self.templates, views, query, star)


def search(waiting: Sequence[Inquiry]) -> None:
    """Make as many of the searches as one call holds; they have the same ``shape``."""
    first, size = waiting[0], max(size for size in sizes() if size <= len(waiting))
    stars = together_at("search", [inquiry.star for inquiry in waiting[:size]])
    found = [np.asarray(each) for each in _found(first.views, first.frame, stars)]
    for inquiry, *each in zip(waiting[:size], *found, strict=True):
        inquiry.take(*each)


Found = tuple[
    Int[Array, "stars starts"], Int[Array, "stars starts"], Float[Array, "stars starts"], Float[Array, "stars starts"]
]


@eqx.filter_jit
def _found(views: Views, frame: Frame, stars: Float[AnyArray, "stars four total"]) -> Found:
    """Return template, rotation, lag and misfit of the best starts."""
    n_rotations, end = len(views.rotations), frame.lags - 1

    def compare(lags: Array, _: None) -> tuple[Array, tuple[Array, Array]]:
        """Compare all models at three lags; return the best and its neighbours, and what was compared, and found."""
        possible = (lags >= 0) & (lags <= end)
        looks = jax.vmap(partial(_looks, views, frame))(stars, jnp.clip(lags, 0, end))
        misfit = jnp.where(possible[:, :, None], _misfits(views, looks, frame.degree), jnp.inf)
        best = jnp.take_along_axis(lags, jnp.argmin(misfit.min(axis=2), axis=1)[:, None], axis=1)
        return best + jnp.arange(-1, 2), (lags, misfit.reshape(len(stars), 3, -1, n_rotations))

    stars = jnp.asarray(stars)
    if frame.lags <= SUMMITS:
        summits = jnp.broadcast_to(jnp.arange(SUMMITS), (len(stars), SUMMITS))
    else:
        # As many stars at a time as their arrays leave room for: on a CPU, in its cache.
        floats = 4 * (3 * VELOCITY_DEGREE + 2) * len(views.few) * views.total
        at_once = 1 if jax.default_backend() == "cpu" else max(1, min(len(stars), room() // (4 * floats)))
        summits = jax.lax.map(partial(_summits, views, frame), stars, batch_size=at_once)
    # As a loop: to compile it twice takes longer than to run it for hundreds of stars.
    _, found = jax.lax.scan(compare, summits, length=2)
    lags, misfit = (each[1] for each in found)

    # Of each of the best templates its best lag and rotation; no others are worth a start.
    template = jax.lax.top_k(-misfit.min(axis=(1, 3)), frame.starts)[1]
    of_it = jnp.take_along_axis(misfit, template[:, None, :, None], axis=2)
    place = jnp.argmin(of_it.transpose(0, 2, 1, 3).reshape(len(stars), frame.starts, -1), axis=2)
    k, rotation = place // n_rotations, place % n_rotations
    left, middle, right = jnp.moveaxis(jnp.take_along_axis(of_it, rotation[:, None, :, None], axis=3)[..., 0], 1, 0)
    # Where the parabola through the three has its minimum.
    curvature = left - 2 * middle + right
    bent = (k == 1) & (curvature > 0) & jnp.isfinite(curvature)
    vertex = jnp.where(bent, jnp.clip(0.5 * (left - right) / jnp.where(bent, curvature, 1.0), -0.5, 0.5), 0.0)
    lag = frame.first + jnp.take_along_axis(lags, k, axis=1) + vertex
    return template, rotation, lag, of_it.min(axis=(1, 3))


def _looks(
    views: Views, frame: Frame, star: Float[Array, "four total"], lags: Int[Array, " lags"]
) -> Float[Array, "lags c size"]:
    """Return what of a star lies over the models at some lags, from the first one on: what _moments returns, the
    weights, and the weighted squares."""
    size = views.flux.shape[1]
    columns = jnp.concatenate([*_moments(star, frame.degree), star[:1], star[2:3]])
    at = jax.vmap(lambda lag: jax.lax.dynamic_slice_in_dim(columns, lag, size, axis=1))(lags)
    return at * inside(size)


def _moments(star: Float[Array, "four total"], degree: int) -> tuple[Array, Array]:
    """Return the weights (2 degree + 1, total), and the weighted fluxes (degree + 1, total), times each Chebyshev
    polynomial of the places."""
    weight, flux, _, place = star
    polynomials = [jnp.ones_like(place), place]
    while len(polynomials) < 2 * degree + 1:
        polynomials.append(2 * place * polynomials[-1] - polynomials[-2])
    weights = weight * jnp.stack(polynomials[: 2 * degree + 1])
    return weights, flux * weights[: degree + 1]


def _summits(views: Views, frame: Frame, star: Float[Array, "four total"]) -> Int[Array, " summits"]:
    """Return the lags, from the first one on, at which any of a few templates fits best."""
    degree, total = min(VELOCITY_DEGREE, frame.degree), views.total

    def correlate(values: Array, transformed: Array) -> Array:
        """Return (len(values), models, lags)."""
        products = jnp.fft.rfft(values, axis=-1)[:, None] * transformed
        return jnp.fft.irfft(products, total, axis=-1)[..., : frame.lags]

    flat = jnp.conj(jnp.fft.rfft(jnp.asarray(inside(views.flux.shape[1])), total))
    weight, square = correlate(jnp.stack([star[0], star[2]]), flat)[:, 0]
    weights, fluxes = _moments(star, degree)
    misfit = _misfit(correlate(weights, views.few_square), correlate(fluxes, views.few), square)
    misfit = misfit / jnp.maximum(weight, 1e-30)
    good = (weight > 0.6 * weight.max()) & jnp.all(jnp.isfinite(misfit), axis=0)
    left = jnp.where(good, misfit.min(axis=0), jnp.inf)
    apart = max(2, round(APART / (SPEED_OF_LIGHT * frame.step)))
    lags = jnp.arange(frame.lags)
    # An emulator that gives no numbers: the solver will say so.
    chosen = [jnp.where(jnp.any(good), jnp.argmin(left), frame.lags // 2)]
    for _ in range(SUMMITS - 1):
        left = jnp.where(jnp.abs(lags - chosen[-1]) <= apart, jnp.inf, left)
        chosen.append(jnp.where(jnp.any(jnp.isfinite(left)), jnp.argmin(left), chosen[0]))
    return jnp.stack(chosen)


def _misfits(views: Views, looks: Float[Array, "stars lags c size"], degree: int) -> Float[Array, "stars lags models"]:
    """Return how far models are from stars, per weight; infinite where there are no numbers."""
    weights, fluxes = looks[:, :, : 2 * degree + 1], looks[:, :, 2 * degree + 1 : 3 * degree + 2]
    squares, cross = (jnp.moveaxis(a @ b.T, 2, 0) for a, b in ((weights, views.square), (fluxes, views.flux)))
    weight, total = looks[:, :, -2].sum(axis=-1), looks[:, :, -1].sum(axis=-1)
    left = _misfit(squares, cross, total[..., None]) / jnp.maximum(weight, 1e-30)[..., None]
    return jnp.where(jnp.isfinite(left), left, jnp.inf)


def _misfit(squares: Float[Array, ...], cross: Float[Array, ...], total: Float[Array, ...]) -> Array:
    """Return the weighted squares (...) that remain after the continuum is solved, by Gaussian elimination.

    Args:
        squares: (2p − 1, ...) sums of the model's square times each Chebyshev polynomial: the normal equations of p of
            them, as T_i T_j = (T_{i+j} + T_{|i−j|}) / 2.
        cross: (p, ...).
        total: (...) weighted squares of the data.
    """
    i = np.arange(len(cross))
    matrix = 0.5 * (squares[i[:, None] + i] + squares[np.abs(i[:, None] - i)])
    # Enough to keep lags with little overlap solvable; they are not chosen.
    least = 1e-6 * jnp.mean(jnp.abs(matrix[i, i]), axis=0) + 1e-30
    remains = total
    for _ in range(len(i)):
        pivot = jnp.maximum(matrix[0, 0], least)
        remains = remains - cross[0] ** 2 / pivot
        factor = matrix[1:, 0] / pivot
        matrix, cross = matrix[1:, 1:] - factor[:, None] * matrix[0, 1:], cross[1:] - factor * cross[0]
    return jnp.maximum(remains, 0.0)
