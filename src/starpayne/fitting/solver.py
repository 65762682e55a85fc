"""Bounded least squares by a projected Levenberg–Marquardt method with variable projection, in pure JAX.

Nonlinear parameters (label coordinates, velocity, squares of the broadening velocities) live in the unit cube.
The continuum coefficients are linear: they are solved at every step, and the derivative is that of the remaining
residual (Kaufman 1975, BIT 15, 49), so errors derived from it are marginalised over them. The emulator's error, whose
covariance has low rank, enters by whitening: it is the same as to solve for the amplitudes of its modes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from starpayne.emulators import BoundEmulator
from starpayne.fitting.bounded import bounded_step
from starpayne.fitting.broadening import Broadening
from starpayne.fitting.freedom import FreeLabels
from starpayne.fitting.pixels import AnyArray, PixelMatrix

ROOT_SOFTENING = 0.01
"""km²/s² added to the square of a width with a prior: a tenth of a km/s keeps the derivative of its root finite at
zero."""

MIN_DAMPING, MAX_DAMPING = 1e-6, 1e8

SMALL_STEP = 1e-3
"""Steps shorter than this (in the unit cube) teach nothing about the derivative: float32 rounding would rule."""


@dataclass(frozen=True)
class Parameters:
    """Which nonlinear parameters there are, in order: free labels, then those of rv, vsini, broadening that are
    free."""

    labels: FreeLabels
    rv: bool
    vsini: bool
    broadening: bool

    def __len__(self) -> int:
        return len(self.labels) + self.rv + self.vsini + self.broadening

    @property
    def names(self) -> tuple[str, ...]:
        extra = {"rv": self.rv, "vsini": self.vsini, "broadening": self.broadening}
        return (*self.labels.names, *(name for name, free in extra.items() if free))


class Prior(eqx.Module):
    """Independent Gaussians on labels (physical units), shift, v sin i and broadening (km/s), in this order.

    Args:
        mean: (n_labels + 3,).
        inverse_sigma: (n_labels + 3,), 0 where there is none.
    """

    mean: Float[AnyArray, " values"]
    inverse_sigma: Float[AnyArray, " values"]


class Problem(eqx.Module):
    """One star: everything the solver needs but the emulator; padded pixels have an inverse error of 0.

    Args:
        broadening, pixels: the star's forward model, from line depths on the emulator's grid to its pixels.
        flux: (n,) of order one; inverse_error: (n,).
        basis: (n, n_continuum) continuum curves, far from dependent on the pixels in use.
        whitener: (k, n) Bᵀ such that x − B Bᵀ x is C^(−1/2) x, where C is the covariance of the pixels in units of
            their errors, that of the emulator's error included.
        low, high: (3,) bounds of shift (km/s), vsini² and sigma² (km²/s²); ``low`` is the value of a fixed one.
        prior: None for a flat one.
    """

    broadening: Broadening
    pixels: PixelMatrix
    flux: Float[AnyArray, " n"]
    inverse_error: Float[AnyArray, " n"]
    basis: Float[AnyArray, "n n_continuum"]
    whitener: Float[AnyArray, "k n"]
    low: Float[AnyArray, " three"]
    high: Float[AnyArray, " three"]
    prior: Prior | None = None


class Solution(NamedTuple):
    """Where the solver ended: position in the unit cube, χ², steps taken, and the model and its derivative there."""

    theta: Float[AnyArray, " p"]
    chi2: float
    iterations: int
    model: Float[AnyArray, " n"]
    jacobian: Float[AnyArray, "p n"]


class Slopes(NamedTuple):
    """Derivatives of the residual and of the model: as they were computed, and what the steps since have taught.

    Where a step d ended elsewhere than the derivative said, by b, the secant condition adds the outer product of
    d / |d|² and b to it (Broyden 1965, Math. Comp. 19, 577). They are kept as such: to write whole derivatives at
    every step takes longer than all the rest of it. Derivatives have a row for each parameter: products with pixels
    along the rows are twice as fast on a CPU.

    Args:
        residual, model: (p, rows) and (p, n) as computed.
        directions: (k, p) d / |d|²; ``by_residual`` (k, rows) and ``by_model`` (k, n) what to add along them. Rows of
            zeros are still to be filled.
    """

    residual: Float[AnyArray, "p rows"]
    model: Float[AnyArray, "p n"]
    directions: Float[AnyArray, "k p"]
    by_residual: Float[AnyArray, "k rows"]
    by_model: Float[AnyArray, "k n"]

    def times(self, values: Float[AnyArray, " rows"]) -> Float[Array, " p"]:
        """Return the products of the residual's derivatives with values."""
        return self.residual @ values + (self.by_residual @ values) @ self.directions

    def residual_along(self, step: Float[AnyArray, " p"]) -> Float[Array, " rows"]:
        """Return by how much the residual should change along a step."""
        return step @ self.residual + (self.directions @ step) @ self.by_residual

    def model_along(self, step: Float[AnyArray, " p"]) -> Float[Array, " n"]:
        """Return by how much the model should change along a step."""
        return step @ self.model + (self.directions @ step) @ self.by_model

    def whole_model(self) -> Float[Array, "p n"]:
        """Return the derivatives of the model, with what has been learned."""
        return self.model + self.directions.T @ self.by_model


class State(NamedTuple):
    """A descent on its way: a point, what is known there, and what rules the next step.

    Args:
        theta: (p,); ``residual`` (rows,) and ``model`` (n,) there.
        gradient: (p,) of half of χ², and ``hessian`` (p, p), its second derivative without that of the model.
        slopes: the derivatives.
        damping, growth: of the next step, and by what the damping grows if it is not worth taking.
        iteration, done: steps tried, and whether no other is to be tried.
    """

    theta: AnyArray
    residual: AnyArray
    model: AnyArray
    gradient: AnyArray
    hessian: AnyArray
    slopes: Slopes
    damping: AnyArray
    growth: AnyArray
    iteration: AnyArray
    done: AnyArray


def widths(parameters: Parameters, problem: Problem, theta: Float[AnyArray, " p"]) -> Float[AnyArray, " three"]:
    """Return shift, vsini² and sigma² at a point of the unit cube."""
    values, i = [], len(parameters.labels)
    for j, free in enumerate((parameters.rv, parameters.vsini, parameters.broadening)):
        if free:
            values.append(problem.low[j] + (problem.high[j] - problem.low[j]) * theta[i])
            i += 1
        else:
            values.append(problem.low[j])
    return jnp.stack(values)


def model_and_jacobian(
    bound: BoundEmulator,
    parameters: Parameters,
    problem: Problem,
    theta: Float[AnyArray, " p"],
    one_by_one: bool = False,
) -> tuple[Float[AnyArray, " n"], Float[AnyArray, "p n"]]:
    """Return the normalised model on the pixels and its derivative by each parameter.

    Observing is linear in the spectrum: the emulator is differentiated by the labels alone, and all derivatives pass
    through one Fourier transform and one matrix.

    Args:
        one_by_one: differentiate by one label after another rather than by all at once.
    """
    n, broadening = len(parameters.labels), problem.broadening

    def emulate(cube: AnyArray) -> Array:
        return bound(parameters.labels.from_cube(cube)) - 1

    def derivative(tangent: AnyArray) -> tuple[Array, Array]:
        return jax.jvp(emulate, (theta[:n],), (tangent,))

    if n and one_by_one:
        depth, linear = jax.linearize(emulate, theta[:n])
        stack = jnp.concatenate([depth[None], jax.lax.map(linear, jnp.eye(n))])
    elif n:
        depth, by_label = jax.vmap(derivative, out_axes=(None, 0))(jnp.eye(n))
        stack = jnp.concatenate([depth[None], by_label])
    else:
        stack = emulate(theta[:0])[None]

    def transfer(rest: AnyArray) -> Array:
        return broadening.transfer(*widths(parameters, problem, jnp.concatenate([theta[:n], rest])))

    spectra = broadening.spectrum(stack)
    response = transfer(theta[n:])
    products = spectra * response
    if len(parameters) > n:
        by_width = jax.vmap(lambda t: jax.jvp(transfer, (theta[n:],), (t,))[1])(jnp.eye(len(parameters) - n))
        products = jnp.concatenate([products, spectra[:1] * by_width])
    observed = problem.pixels(broadening.back(products, stack.shape[-1]))
    return 1 + observed[0], observed[1:]


def normalised_model(
    bound: BoundEmulator, parameters: Parameters, problem: Problem, theta: Float[AnyArray, " p"]
) -> Float[AnyArray, " n"]:
    """Return the normalised model on the pixels alone."""
    labels = parameters.labels.from_cube(theta[: len(parameters.labels)])
    return 1 + problem.pixels(problem.broadening(bound(labels) - 1, *widths(parameters, problem, theta)))


def whitened(problem: Problem, rows: Float[AnyArray, "*rows n"]) -> Float[AnyArray, "*rows n"]:
    """Multiply rows in units of the errors by C^(−1/2)."""
    return rows - (rows @ problem.whitener.T) @ problem.whitener


def orthonormal(rows: Float[AnyArray, "c n"]) -> tuple[Float[AnyArray, "c n"], Float[AnyArray, "c c"]]:
    """Return orthonormal rows q, and the lower triangular matrix t, with q = t rows.

    By two Cholesky decompositions (Yamamoto et al. 2015, ETNA 44, 306), as good as a Householder QR for rows that are
    not nearly dependent, as those of a problem are made; of the triangles only, small ones, are the inverses solved
    for. So all the rest are products, which a GPU does for many stars at once; and on a CPU a third faster than the
    other.
    """
    unit = jnp.eye(len(rows))
    total = unit
    for _ in range(2):
        gram = rows @ rows.T
        # Columns that no pixel determines stay solvable; what they find is not used.
        least = 1e-7 * jnp.max(jnp.diagonal(gram)) + 1e-30
        inverse = jax.scipy.linalg.solve_triangular(jnp.linalg.cholesky(gram + least * unit), unit, lower=True)
        rows, total = inverse @ rows, inverse @ total
    return rows, total


def without_continuum(
    problem: Problem, model: Float[AnyArray, " n"]
) -> tuple[Float[AnyArray, " n"], Float[AnyArray, "c n"], Float[AnyArray, " n"]]:
    """Return the whitened residual, orthonormal rows of what the continuum explains, and the continuum."""
    w = problem.inverse_error
    # Whitened in one product: that reads more than it computes.
    rows = whitened(problem, jnp.concatenate([problem.basis.T * (model * w), (problem.flux * w)[None]]))
    q, to_q, data = *orthonormal(rows[:-1]), rows[-1]
    along = q @ data
    return data - along @ q, q, problem.basis @ (along @ to_q)


def prior_residual(
    parameters: Parameters, problem: Problem, prior: Prior, theta: Float[AnyArray, " p"]
) -> Float[Array, " values"]:
    """Return how far each value is from the mean of its prior, in units of its σ; 0 where there is none."""
    shift, vsini2, sigma2 = widths(parameters, problem, theta)
    width = jnp.sqrt(jnp.stack([vsini2, sigma2]) + ROOT_SOFTENING)
    labels = parameters.labels.from_cube(theta[: len(parameters.labels)])
    return (jnp.concatenate([labels, shift[None], width]) - prior.mean) * prior.inverse_sigma


def residual_at(
    parameters: Parameters, problem: Problem, theta: Float[AnyArray, " p"], model: Float[AnyArray, " n"]
) -> Float[AnyArray, " rows"]:
    """Return the residual of the pixels, then of the prior, where the model is known."""
    residual = without_continuum(problem, model)[0]
    if problem.prior is None:
        return residual
    return jnp.concatenate([residual, prior_residual(parameters, problem, problem.prior, theta)])


def initial_state(
    parameters: Parameters,
    problem: Problem,
    theta: Float[AnyArray, " p"],
    model: Float[AnyArray, " n"],
    derivative: Float[AnyArray, "p n"],
    steps: int = 0,
) -> State:
    """Return where a descent begins, at a point whose model and derivative are known.

    Args:
        steps: how many there will be without new derivatives: room for what they teach.
    """
    residual, q, continuum = without_continuum(problem, model)
    rows = whitened(problem, derivative * (continuum * problem.inverse_error))
    jacobian, prior = (rows @ q.T) @ q - rows, problem.prior
    if prior is not None:

        def off(theta: AnyArray) -> Array:
            return prior_residual(parameters, problem, prior, theta)

        residual = jnp.concatenate([residual, off(theta)])
        jacobian = jnp.concatenate([jacobian, jax.jacfwd(off)(theta).T], axis=1)
    nothing = (jnp.zeros((steps, n)) for n in (len(theta), len(residual), len(model)))
    return State(
        theta, residual, model, jacobian @ residual, jacobian @ jacobian.T, Slopes(jacobian, derivative, *nothing),
        damping=jnp.asarray(1e-3), growth=jnp.asarray(4.0), iteration=jnp.asarray(0),
        done=~jnp.all(jnp.isfinite(residual)),
    )  # fmt: skip


def advance(
    state: State,
    rows: Int[Array, ""],
    evaluate: Callable[[Array], tuple[Array, Array]],
    tolerance: float | Float[AnyArray, ""],
) -> tuple[State, Float[AnyArray, " p"], Float[AnyArray, ""]]:
    """Take one step, or raise the damping (after Nielsen 1999, IMM-REP-1999-05).

    Args:
        state: where the descent is; the new one is ``done`` if this step was not worth taking, or none can be taken.
        rows: pixels in use.
        evaluate: from the point to try to its residual and model.
        tolerance: it ends when the best step should lower χ² by less than this times the reduced χ² (0.01 is a step of
            0.1 σ), or when damping has made the step promise a tenth of that: along directions that the data hardly
            constrain, float32 has no more to say.

    Returns:
        the new state, whose derivatives are still those of the old one; the step, zero if it was not taken; and the
        decrease of χ² as a fraction of what was expected.
    """
    # Judged by the undamped step: along a nearly degenerate direction the damped one is always small. Both at once, as
    # a loop is dear to compile.
    dampings = jnp.stack([jnp.asarray(state.damping, jnp.float32), jnp.asarray(MIN_DAMPING, jnp.float32)])
    steps, gains = jax.vmap(bounded_step, in_axes=(None, None, None, 0))(
        state.hessian, state.gradient, state.theta, dampings
    )
    step, expected, to_gain = steps[0], gains[0], gains[1]
    theta = jnp.clip(state.theta + step, 0.0, 1.0)
    residual, model = evaluate(theta)
    # Differences before squares: the sums of float32 squares would lose a change of a few in 10⁶.
    gained = jnp.sum((state.residual - residual) * (state.residual + residual))
    good = jnp.isfinite(gained) & (gained > 0) & (expected > 0)
    ratio = gained / jnp.maximum(expected, 1e-30)
    shrink = jnp.maximum(1 / 3, 1 - (2 * jnp.clip(ratio, 0, 1) - 1) ** 3)
    damping = jnp.where(good, state.damping * shrink, state.damping * state.growth)
    least = tolerance * jnp.maximum(1.0, jnp.sum(state.residual**2) / rows)
    arrived = (to_gain < least) | (expected < 0.1 * least)
    state = state._replace(
        theta=jnp.where(good, theta, state.theta),
        residual=jnp.where(good, residual, state.residual),
        model=jnp.where(good, model, state.model),
        damping=jnp.clip(damping, MIN_DAMPING, MAX_DAMPING),
        growth=jnp.where(good, 4.0, 2 * state.growth),
        iteration=state.iteration + 1,
        done=arrived | (damping > MAX_DAMPING) | ~jnp.all(jnp.isfinite(step)),
    )
    return state, jnp.where(good, step, 0.0), ratio


def renewed(parameters: Parameters, problem: Problem, state: State, derivative: Float[AnyArray, "p n"]) -> State:
    """Return a state with the exact derivative of its model in the place of what it had."""
    at = initial_state(parameters, problem, state.theta, state.model, derivative)
    return state._replace(gradient=at.gradient, hessian=at.hessian, slopes=at.slopes)


def taught(before: State, after: State, step: Float[AnyArray, " p"]) -> State:
    """Return a state with derivatives that follow the secant condition from those before the step.

    That of the residual by itself, rather than by way of the model's: projecting one residual is cheap, projecting all
    derivatives is not.

    Args:
        step: from ``before`` to ``after``; nothing is learned from a short one, or zero.
    """
    length2 = jnp.sum(step**2)
    direction = jnp.where(length2 > SMALL_STEP**2, step / jnp.maximum(length2, SMALL_STEP**2), 0.0)
    slopes, place = before.slopes, before.iteration
    by_residual = after.residual - before.residual - slopes.residual_along(step)
    by_model = after.model - before.model - slopes.model_along(step)
    across = jnp.outer(direction, slopes.times(by_residual))
    hessian = before.hessian + across + across.T + jnp.sum(by_residual**2) * jnp.outer(direction, direction)
    slopes = slopes._replace(
        directions=slopes.directions.at[place].set(direction),
        by_residual=slopes.by_residual.at[place].set(by_residual),
        by_model=slopes.by_model.at[place].set(by_model),
    )
    return after._replace(gradient=slopes.times(after.residual), hessian=hessian, slopes=slopes)


def used_rows(problem: Problem) -> Int[Array, ""]:
    """Return how many pixels count, at least one."""
    return jnp.maximum(jnp.sum(problem.inverse_error > 0), 1)
