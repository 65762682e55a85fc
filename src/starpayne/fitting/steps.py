"""Steps of a bounded least-squares descent: projected Levenberg–Marquardt, with derivatives exact or by the secant.

What a step needs is small (gradient, second derivative); the derivatives themselves are as large as all pixels, and are
carried along as they were computed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from starpayne.fitting.bounded import bounded_step
from starpayne.fitting.pixels import AnyArray
from starpayne.fitting.solver import Parameters, Problem, prior_residual, whitened, without_continuum

MIN_DAMPING, MAX_DAMPING = 1e-6, 1e8

SMALL_STEP = 1e-3
"""Steps shorter than this (in the unit cube) teach nothing about the derivative: float32 rounding would rule."""

SHORTER = np.geomspace(0.02, 0.8, 13).astype(np.float32)
"""Fractions of a step that was not worth taking, one of which is tried next."""


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
        shorter: (p,) what to try next of a step that was not worth taking; zeros if the last one was.
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
    shorter: AnyArray
    iteration: AnyArray
    done: AnyArray


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
        damping=jnp.asarray(1e-3), growth=jnp.asarray(4.0), shorter=jnp.zeros(len(theta)), iteration=jnp.asarray(0),
        done=~jnp.all(jnp.isfinite(residual)),
    )  # fmt: skip


class Trial(NamedTuple):
    """A step, and what it has led to.

    Args:
        state: the new one, whose derivatives are still those of the old one.
        step: (p,), zeros if it was not taken.
        bend: (rows,) by how much the residual at its end is off from what the derivative promised.
        ratio: the decrease of χ² as a fraction of what was expected.
    """

    state: State
    step: Float[AnyArray, " p"]
    bend: Float[AnyArray, " rows"]
    ratio: Float[AnyArray, ""]


def advance(
    state: State,
    rows: Int[Array, ""],
    evaluate: Callable[[Array], tuple[Array, Array]],
    tolerance: float | Float[AnyArray, ""],
) -> Trial:
    """Take one step, or raise the damping (after Nielsen 1999, IMM-REP-1999-05) and try less of it.

    Labels that a spectrum hardly constrains make valleys that bend: there a whole step leads far, and its end is higher
    than where it began. It says how the residual bends along it, and so where on the way χ² is lowest; damping alone
    takes three or four steps to find that, and is too high from then on.

    Args:
        state: where the descent is; the new one is ``done`` if this step was not worth taking, or none can be taken.
        rows: pixels in use.
        evaluate: from the point to try to its residual and model.
        tolerance: it ends when the best step should lower χ² by less than this times the reduced χ² (0.01 is a step of
            0.1 σ), or when the step to try, damped or shortened, promises a tenth of that: along directions that the
            data hardly constrain, float32 has no more to say.
    """
    # Judged by the undamped step: along a nearly degenerate direction the damped one is always small. Both at once, as
    # a loop is dear to compile.
    dampings = jnp.stack([jnp.asarray(state.damping, jnp.float32), jnp.asarray(MIN_DAMPING, jnp.float32)])
    steps, gains = jax.vmap(bounded_step, in_axes=(None, None, None, 0))(
        state.hessian, state.gradient, state.theta, dampings
    )
    again = jnp.any(state.shorter != 0)
    step = jnp.where(again, state.shorter, steps[0])
    expected = jnp.where(again, promised(state, step), gains[0])
    to_gain = gains[1]
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
    bend = jnp.where(jnp.isfinite(gained), residual - state.residual - state.slopes.residual_along(step), 0.0)
    new = state._replace(
        theta=jnp.where(good, theta, state.theta),
        residual=jnp.where(good, residual, state.residual),
        model=jnp.where(good, model, state.model),
        damping=jnp.clip(damping, MIN_DAMPING, MAX_DAMPING),
        growth=jnp.where(good, 4.0, 2 * state.growth),
        shorter=jnp.where(good, 0.0, lowest_along(state, step, bend) * step),
        iteration=state.iteration + 1,
        done=arrived | (damping > MAX_DAMPING) | ~jnp.all(jnp.isfinite(step)),
    )
    return Trial(new, jnp.where(good, step, 0.0), bend, ratio)


def promised(state: State, step: Float[AnyArray, " p"]) -> Float[Array, ""]:
    """Return by how much a step should lower χ²."""
    return -(2 * state.gradient @ step + step @ state.hessian @ step)


def lowest_along(state: State, step: Float[AnyArray, " p"], bend: Float[AnyArray, " rows"]) -> Float[Array, ""]:
    """Return at which fraction of a step, at whose end the residual is off by ``bend``, χ² should be lowest.

    Along it the residual is taken as a parabola: from where it is, with the derivative there, to what was found.
    """
    linear, square = 2 * state.gradient @ step, step @ state.hessian @ step + 2 * state.residual @ bend
    cubic, quartic = 2 * state.slopes.times(bend) @ step, jnp.sum(bend**2)
    t = jnp.asarray(SHORTER)
    return t[jnp.argmin(t * (linear + t * (square + t * (cubic + t * quartic))))]


def renewed(parameters: Parameters, problem: Problem, state: State, derivative: Float[AnyArray, "p n"]) -> State:
    """Return a state with the exact derivative of its model in the place of what it had."""
    at = initial_state(parameters, problem, state.theta, state.model, derivative)
    return state._replace(gradient=at.gradient, hessian=at.hessian, slopes=at.slopes)


def taught(before: State, found: Trial) -> State:
    """Return the state after a step with derivatives that follow the secant condition from those before it.

    That of the residual by itself, rather than by way of the model's: projecting one residual is cheap, projecting all
    derivatives is not. Nothing is learned from a short step, or one that was not taken.
    """
    after, step, by_residual, _ = found
    length2 = jnp.sum(step**2)
    direction = jnp.where(length2 > SMALL_STEP**2, step / jnp.maximum(length2, SMALL_STEP**2), 0.0)
    slopes, place = before.slopes, before.iteration
    by_model = after.model - before.model - slopes.model_along(step)
    across = jnp.outer(direction, slopes.times(by_residual))
    hessian = before.hessian + across + across.T + jnp.sum(by_residual**2) * jnp.outer(direction, direction)
    slopes = slopes._replace(
        directions=slopes.directions.at[place].set(direction),
        by_residual=slopes.by_residual.at[place].set(by_residual),
        by_model=slopes.by_model.at[place].set(by_model),
    )
    return after._replace(gradient=slopes.times(after.residual), hessian=hessian, slopes=slopes)
