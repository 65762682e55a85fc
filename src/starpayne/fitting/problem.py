"""From an observation and a plan to the arrays the solver works on; host side, float64."""

from __future__ import annotations

from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from starpayne.bundle import Model
from starpayne.fitting.broadening import Broadening
from starpayne.fitting.continuum import design_matrix
from starpayne.fitting.forward import ForwardModel, kernel_reach, log_velocity
from starpayne.fitting.instrument import LogGrid, PixelMatrix
from starpayne.fitting.noise import Noise
from starpayne.fitting.observation import Observation
from starpayne.fitting.options import FitOptions
from starpayne.fitting.plan import Plan, matrix_at
from starpayne.fitting.solver import Parameters, Problem, Solution
from starpayne.wavelengths import lagrange_weights

PAD_PIXELS, PAD_BAND = 256, 8
"""Sizes are rounded up to multiples of these, so that stars of one set-up share one compiled function."""


def build(
    star: Observation,
    plan: Plan,
    parameters: Parameters,
    theta: np.ndarray,
    model: Model,
    options: FitOptions,
    noise: Noise,
) -> Problem:
    """Return the arrays of one descent; the emulator's error is that of the star at ``theta``.

    Args:
        noise: added to the stated errors and the emulator's.
    """
    matrix, _ = matrix_at(plan, star, model)
    used = plan.used
    assert used is not None
    rows = np.flatnonzero(used)
    # By the pixels of the observation, not those used, which change with the velocity.
    size = -(-len(star.wavelength) // PAD_PIXELS) * PAD_PIXELS
    band = -(-matrix.weights.shape[1] // PAD_BAND) * PAD_BAND
    first, weights = np.zeros(size, np.int32), np.zeros((size, band), np.float32)
    # The band is widened on the right with zeros, and shifted left where that would leave the grid.
    begin = np.asarray(matrix.first)[rows]
    back = np.maximum(begin + band - star.grid.size, 0)
    columns = np.arange(matrix.weights.shape[1]) + back[:, None]
    weights[np.arange(len(rows))[:, None], columns] = np.asarray(matrix.weights)[rows]
    first[: len(rows)] = begin - back
    pixels = PixelMatrix(jnp.asarray(first), jnp.asarray(weights))
    broadening = broadening_of(star, plan, options)

    def padded(array: np.ndarray) -> np.ndarray:
        out = np.zeros((size, *array.shape[1:]))
        out[: len(rows)] = array[rows]
        return out

    whole_basis = design_matrix(star.own_wavelength, options.continuum_degree)
    basis, flux, error = (padded(array) for array in (whole_basis, star.flux, star.error))
    n_labels = len(parameters.labels)
    labels = jnp.asarray(parameters.labels.from_cube(np.asarray(theta[:n_labels], np.float32)))
    problem = Problem(
        broadening=broadening, pixels=pixels, flux=jnp.asarray(flux, jnp.float32),
        inverse_error=jnp.zeros(size), basis=jnp.asarray(basis, jnp.float32), modes=jnp.zeros((size, 0)),
        low=jnp.asarray(plan.low, jnp.float32), high=jnp.asarray(plan.high, jnp.float32),
    )  # fmt: skip
    here = widths_at(plan, parameters, theta)
    variance = error[: len(rows)] ** 2
    modes = np.zeros((size, 0))
    if model.residuals is not None and options.emulator_error:
        curves = np.concatenate([model.residuals.modes, model.residuals.noise[None]])
        on_grid = jnp.asarray(onto_grid(model.residuals.wavelength, curves, star.grid), jnp.float32)
        seen = np.asarray(_observe(broadening, pixels, on_grid[:-1], jnp.asarray(here, jnp.float32)), np.float64)
        # What the modes leave is taken to be alike over one line-spread function: no averaging of it is claimed.
        left = np.asarray(pixels(on_grid[-1]), np.float64)
        depth = _observe(broadening, pixels, star.bound(labels)[None] - 1, jnp.asarray(here, jnp.float32))[0]
        continuum = continuum_at(1 + np.asarray(depth, np.float64), basis, flux, np.where(error > 0, error, np.inf))
        modes = (seen * continuum).T
        variance = variance + (left * continuum)[: len(rows)] ** 2
    inverse = np.zeros(size)
    inverse[: len(rows)] = noise.variance(variance) ** -0.5
    return eqx.tree_at(
        lambda p: (p.inverse_error, p.modes), problem,
        (jnp.asarray(inverse, jnp.float32), jnp.asarray(modes, jnp.float32)),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Descent:
    """Where the solver came to from one plan: the problem it solved, its solution, and the noise that was added.

    Args:
        iterations: of the solver, over all descents of the star so far.
    """

    plan: Plan
    problem: Problem
    solution: Solution
    noise: Noise
    iterations: int

    @property
    def chi2(self) -> float:
        """χ² of the solver; infinite if it is no number."""
        value = float(self.solution.chi2)
        return value if np.isfinite(value) else np.inf

    @property
    def theta(self) -> np.ndarray:
        """(p,) float64 position in the unit cube."""
        return np.asarray(self.solution.theta, np.float64)

    def widths(self, parameters: Parameters) -> np.ndarray:
        """Return (3,) shift, vsini², sigma² where it ended."""
        return widths_at(self.plan, parameters, self.theta)


@eqx.filter_jit
def _observe(broadening: Broadening, pixels: PixelMatrix, depth: jnp.ndarray, widths: jnp.ndarray) -> jnp.ndarray:
    return pixels(broadening(depth, widths[0], widths[1], widths[2]))


def broadening_of(star: Observation, plan: Plan, options: FitOptions) -> Broadening:
    """Return the transfer function with room for the widest kernel that the options allow.

    The room does not follow the plan, so that the arrays of all stars have one length and share one compiled function.
    """
    vsini = options.vsini_max if options.vsini is None else options.vsini
    sigma = options.broadening_max if options.broadening is None else options.broadening
    return Broadening.on(star.grid, kernel_reach(plan.half_range, vsini, sigma), options.limb_darkening)


def widths_at(plan: Plan, parameters: Parameters, theta: np.ndarray) -> np.ndarray:
    """Return (3,) shift, vsini², sigma² at a point of the solver's unit cube, float64."""
    values, i = plan.low.copy(), len(parameters.labels)
    for j, free in enumerate((parameters.rv, parameters.vsini, parameters.broadening)):
        if free:
            values[j] += (plan.high[j] - plan.low[j]) * theta[i]
            i += 1
    return values


def continuum_at(model: np.ndarray, basis: np.ndarray, flux: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Return (n,) the continuum that fits best through a model."""
    design = basis * (model / error)[:, None]
    return basis @ np.linalg.lstsq(design, flux / error, rcond=None)[0]


def onto_grid(wavelength: np.ndarray, curves: np.ndarray, grid: LogGrid) -> np.ndarray:
    """Interpolate curves (k, m) given at wavelengths (m,) to the model grid (k, grid.size); constant beyond the
    ends."""
    target = np.clip(grid.wavelength, wavelength[0], wavelength[-1])
    indices, weights = lagrange_weights(np.asarray(wavelength, np.float64), target)
    return np.sum(np.asarray(curves, np.float64)[:, indices] * weights, axis=-1)


def forward_of(star: Observation, plan: Plan, model: Model, options: FitOptions) -> ForwardModel:
    """Return the forward model of a plan on every pixel of the observation (masked ones too)."""
    matrix, _ = matrix_at(plan, star, model)
    broadening = broadening_of(star, plan, options)
    return ForwardModel(star.bound, broadening, matrix, jnp.asarray(log_velocity(plan.rv), jnp.float32))
