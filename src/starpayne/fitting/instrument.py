"""The instrument as one banded matrix: line-spread function, integration over pixels and coarse Doppler shift.

Made once per star on the host in float64, applied on the device in float32. Rows act on the line depth (flux − 1),
so a flat spectrum stays flat exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.fft import next_fast_len
from scipy.special import ndtr

from starpayne.errors import SpectrumError
from starpayne.fitting.pixels import Bands
from starpayne.fitting.resolution import Profile, TabulatedProfile, extra_width, half_width
from starpayne.wavelengths import SPEED_OF_LIGHT, doppler_factor

ORDER = 8
"""Points of the Lagrange interpolation of the model. Four would lose 0.3 % of the lines of a model sampled at twice
its line width; with eight the loss is under 1e-4."""


@dataclass(frozen=True)
class LogGrid:
    """Wavelengths at equal steps of ln λ: ``exp(start + step * arange(size))`` Å, in the model's medium."""

    start: float
    step: float
    size: int

    @property
    def log_wavelength(self) -> np.ndarray:
        """(size,) float64 ln(λ/Å)."""
        return self.start + self.step * np.arange(self.size)

    @property
    def wavelength(self) -> np.ndarray:
        """(size,) float64 Å."""
        return np.exp(self.log_wavelength)

    @property
    def velocity_step(self) -> float:
        """Step in km/s of the velocity coordinate c·ln λ."""
        return self.step * SPEED_OF_LIGHT


def fast_length(n: int) -> int:
    """Return the next length, from n up, whose Fourier transform of real data is quick."""
    return int(next_fast_len(n, real=True) or n)


def pixel_edges(wavelength: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return lower and upper edges (n,) of pixels: midway between neighbours, whatever the sampling.

    Where the distance to one neighbour is over 1.5 times that to the other, the pixel borders on a gap (a masked
    stretch cut out, the end of an order) and takes the smaller half-width on both sides.
    """
    if len(wavelength) < 2:
        raise SpectrumError(f"a spectrum needs at least two pixels, got {len(wavelength)}")
    half = np.diff(wavelength) / 2
    below = np.concatenate([half[:1], half])
    above = np.concatenate([half, half[-1:]])
    smaller = np.minimum(below, above)
    gap = np.maximum(below, above) > 1.5 * smaller
    below, above = np.where(gap, smaller, below), np.where(gap, smaller, above)
    return wavelength - below, wavelength + above


def usable_pixels(
    grid: LogGrid,
    wavelength: np.ndarray,
    resolution: Profile,
    *,
    velocity: float = 0.0,
    model_resolution: float | None = None,
    margin: float = 0.0,
) -> np.ndarray:
    """Return (n,) bool: which pixels, with their profile and a margin (km/s), lie inside the model grid."""
    lower, upper = (np.log(edge / doppler_factor(velocity)) for edge in pixel_edges(wavelength))
    room = half_width(resolution, model_resolution) + margin / SPEED_OF_LIGHT + (ORDER // 2) * grid.step
    end = grid.start + grid.step * (grid.size - 1)
    return (lower - room >= grid.start) & (upper + room <= end)


def pixel_bands(
    grid: LogGrid,
    wavelength: np.ndarray,
    resolution: Profile,
    *,
    velocity: float = 0.0,
    model_resolution: float | None = None,
    margin: float = 0.0,
    pixels_alone: bool = False,
) -> tuple[Bands, np.ndarray]:
    """Return the matrix from line depths on the model grid to observed pixels, and which pixels it can give.

    Row i is the integral of the model over pixel i, seen through the line-spread function:
    ``∫ f(x) [C(x − a) − C(x − b)] dx / (b − a)`` with x = ln λ, a and b the edges of the pixel in the rest frame and C
    the cumulative line-spread function. The model between its points is the Lagrange interpolation of eight points.

    Args:
        grid: the model's wavelengths.
        wavelength: (n,) observed, Å, increasing, in the model's medium.
        resolution: λ/FWHM (one, or one per pixel), or a table.
        velocity: coarse radial velocity in km/s, relativistic.
        model_resolution: λ/FWHM already in the model's spectra, subtracted in quadrature.
        margin: km/s that must remain free at the ends for broadening and for the rest of the velocity.
        pixels_alone: leave out the line-spread function, which is applied elsewhere (see :func:`uniform_width`).

    Returns:
        the matrix, and (n,) bool: False where the pixel or its profile leaves the model (the row is then zero).
    """
    usable = usable_pixels(
        grid, wavelength, resolution, velocity=velocity, model_resolution=model_resolution, margin=margin
    )
    lower, upper = (np.log(edge / doppler_factor(velocity)) for edge in pixel_edges(wavelength))
    reach = half_width(resolution, model_resolution)
    if not usable.any():
        nothing = np.zeros((len(wavelength), 1), np.float32)
        return Bands(np.zeros(len(wavelength), np.int32), nothing), usable
    if pixels_alone:
        start, weights = _pixel_average(
            (lower[usable] - grid.start) / grid.step, (upper[usable] - grid.start) / grid.step
        )
        return _whole(*_keep_inside(start, weights, grid.size), usable), usable
    if isinstance(resolution, TabulatedProfile):
        sigma = np.zeros(len(wavelength))
    else:
        sigma = np.broadcast_to(extra_width(resolution, model_resolution), wavelength.shape)
    # Profiles wider than three steps are sampled at the model's points themselves; narrower ones eight times finer,
    # and never narrower than that sampling can carry.
    fine = 1 if sigma[usable].min() > 3 * grid.step else 8
    sigma = np.maximum(sigma, 0.7 * grid.step / 8)
    a, b, width = lower[usable], upper[usable], sigma[usable]
    first = np.floor((a - reach - grid.start) / grid.step).astype(np.int64)
    count = int(np.ceil((b - a).max() / grid.step + 2 * reach / grid.step)) + 2
    response = np.empty((len(a), count * fine))
    offsets = np.arange(count * fine) / fine
    block = max(1, 2_000_000 // len(offsets))
    for start in range(0, len(a), block):
        rows = slice(start, start + block)
        x = grid.start + grid.step * (first[rows, None] + offsets)
        low, high = x - a[rows, None], x - b[rows, None]
        if isinstance(resolution, TabulatedProfile):
            response[rows] = _cumulative(resolution, low) - _cumulative(resolution, high)
        else:
            response[rows] = ndtr(low / width[rows, None]) - ndtr(high / width[rows, None])
    response = response.reshape(len(a), count, fine)
    weights = np.zeros((len(a), count + ORDER - 1))
    table = _interpolation_table(fine)
    for point in range(ORDER):
        weights[:, point : point + count] += response @ table[:, point]
    weights /= weights.sum(axis=1, keepdims=True)
    # Trim the columns that no row uses, then shift the rows that would reach past the ends of the grid.
    start = first - (ORDER // 2 - 1)
    used = np.flatnonzero(np.any(np.abs(weights) > 1e-9, axis=0))
    weights, start = weights[:, used[0] : used[-1] + 1], start + used[0]
    return _whole(*_keep_inside(start, weights, grid.size), usable), usable


def _whole(start: np.ndarray, weights: np.ndarray, usable: np.ndarray) -> Bands:
    """Return the matrix of all pixels from the bands of the usable ones."""
    first, all_weights = np.zeros(len(usable), np.int32), np.zeros((len(usable), weights.shape[1]), np.float32)
    first[usable], all_weights[usable] = start, weights
    return Bands(first, all_weights)


def _pixel_average(lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return first points (n,) and weights (n, K) of the mean over pixels of the interpolated model, exactly.

    Args:
        lower, upper: (n,) edges in steps of the grid.
    """
    cell, last = (np.floor(edge).astype(np.int64) for edge in (lower, upper))
    ends = last - cell
    cells = int(np.max(ends)) + 1
    # A row for each point of the grid, of all pixels: longer rows are quicker, as there are few points.
    weights = np.zeros((cells + ORDER - 1, len(lower)))
    table = _antiderivatives()
    whole = table.sum(axis=1, keepdims=True)

    def integrals(fraction: np.ndarray) -> np.ndarray:
        """Return (ORDER, n) from the left end of a cell."""
        powers = np.empty((ORDER, len(fraction)))
        powers[0] = fraction
        for k in range(1, ORDER):
            np.multiply(powers[k - 1], fraction, out=powers[k])
        return table @ powers

    weights[:ORDER] = -integrals(lower - cell)
    to_the_end = integrals(upper - last)
    for k in range(cells):
        weights[k : k + ORDER] += to_the_end * (ends == k) + whole * (ends > k)
    return cell - (ORDER // 2 - 1), (weights / weights.sum(axis=0)).T


@cache
def _antiderivatives() -> np.ndarray:
    """Return (ORDER, ORDER) the integrals from 0 of the Lagrange polynomials of points −3 … 4: a row for each point, of
    the coefficients of x, x² …"""
    nodes = np.arange(ORDER) - (ORDER // 2 - 1)
    rows = []
    for node in nodes:
        others = nodes[nodes != node].astype(float)
        polynomial = np.polynomial.polynomial.polyfromroots(others) / np.prod(node - others)
        rows.append(np.polynomial.polynomial.polyint(polynomial)[1:])
    return np.stack(rows)


def _keep_inside(start: np.ndarray, weights: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Shift bands that reach past either end of the grid inwards; what is cut there is below the reach of a
    profile."""
    width = weights.shape[1]
    moved = np.clip(start, 0, max(0, size - width))
    beyond = np.flatnonzero(moved != start)
    out = weights.copy() if len(beyond) else weights
    for row in beyond:
        out[row] = 0.0
        columns = np.arange(width) + start[row] - moved[row]
        good = (columns >= 0) & (columns < width)
        out[row, columns[good]] = weights[row, good]
        out[row] /= out[row].sum()
    return moved, out


def _cumulative(profile: TabulatedProfile, x: np.ndarray) -> np.ndarray:
    """Return the integral of a tabulated profile (linear between its points) up to x in ln λ."""
    v, r = profile.velocity, profile.response
    steps = np.diff(v)
    total = np.concatenate([[0.0], np.cumsum(steps * (r[1:] + r[:-1]) / 2)])
    velocity = np.clip(x * SPEED_OF_LIGHT, v[0], v[-1])
    i = np.clip(np.searchsorted(v, velocity, side="right") - 1, 0, len(v) - 2)
    t = velocity - v[i]
    return (total[i] + t * (r[i] + 0.5 * t * (r[i + 1] - r[i]) / steps[i])) / total[-1]


def _interpolation_table(fine: int) -> np.ndarray:
    """Return (fine, ORDER) Lagrange weights of the points −3 … 4 for the fractions 0, 1/fine, …"""
    nodes = np.arange(ORDER) - (ORDER // 2 - 1)
    fraction = np.arange(fine) / fine
    table = np.ones((fine, ORDER))
    for j, node in enumerate(nodes):
        for other in nodes:
            if other != node:
                table[:, j] *= (fraction - other) / (node - other)
    return table
