"""Fit many stars of one set-up side by side, with few derivatives: for networks that are dear to differentiate.

The derivative of a network by seventeen labels costs some twenty times its spectrum. Here it is computed only where a
descent begins, is about to end, or has lost its way; between, it follows the secant condition (Broyden 1965, Math.
Comp. 19, 577). A descent ends only on a step that was judged by an exact derivative, so the solution is that of
:func:`starpayne.fitting.solver.solve`. A ``while_loop`` under ``vmap`` runs all lanes until the last has finished:
here finished stars leave the batch.
"""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from starpayne.emulators import BoundEmulator
from starpayne.fitting.solver import (
    Parameters,
    Problem,
    Solution,
    State,
    Trial,
    advance,
    initial_state,
    model_and_jacobian,
    project,
    used_rows,
)

MEMORY = 256 * 2**20
"""Bytes of intermediate arrays that one compiled call may use."""

CACHED = 16 * 2**20
"""Bytes of derivatives of one star above which labels are differentiated by one after another: a wide network is
half as fast again where its arrays stay in the processor's cache."""

MAX_LANES = 64
"""Stars per compiled call at most: the last call of a round computes as many, however few are left."""

SECANT_STEPS = 12
"""Steps between two exact derivatives."""

TRUSTED = 0.1
"""A secant derivative whose step gained less than this fraction of what it promised is made anew."""

TOLERANCE = 0.04
"""As in the solver, but a step of 0.2 σ (which is still taken): statistics over many stars do not see more."""

SMALL_STEP = 1e-3
"""Steps shorter than this (in the unit cube) teach nothing about the derivative: float32 rounding would rule."""

Progress = Callable[[int, int], None]


def lanes(bound: BoundEmulator, n_parameters: int, n_stars: int) -> int:
    """Return how many stars one compiled call may take."""
    # As many tangents as parameters pass through the network beside its value, in about two copies.
    floats = 2 * bound.floats_per_spectrum * (n_parameters + 1)
    return int(np.clip(MEMORY // (4 * floats), 1, max(1, min(MAX_LANES, n_stars))))


def in_batches(size: int, rows: np.ndarray, compute: Callable[[np.ndarray], None]) -> None:
    """Call ``compute`` with ``size`` of the rows at a time; the last batch repeats its last row to be as long."""
    for first in range(0, len(rows), size):
        batch = rows[first : first + size]
        compute(np.concatenate([batch, np.repeat(batch[-1:], size - len(batch))]))


@eqx.filter_jit
def derivatives(
    bound: BoundEmulator, parameters: Parameters, problem: Problem, theta: Float[Array, "stars p"]
) -> tuple[Float[Array, "stars n"], Float[Array, "stars p n"]]:
    """Return models on the pixels, and their derivatives in the unit cube."""
    one_by_one = 4 * bound.floats_per_spectrum * (len(parameters) + 1) > CACHED
    return jax.vmap(lambda t: model_and_jacobian(bound, parameters, problem, t, one_by_one))(theta)


@eqx.filter_jit
def _begin(problem: Problem, flux: Array, theta: Array, model: Array, derivative: Array) -> State:
    def one(flux: Array, theta: Array, model: Array, derivative: Array) -> State:
        star = eqx.tree_at(lambda p: p.flux, problem, flux)
        return initial_state(theta, Trial(*project(star, model, derivative), model, derivative))

    return jax.vmap(one)(flux, theta, model, derivative)


@eqx.filter_jit
def _pursue(
    bound: BoundEmulator, parameters: Parameters, problem: Problem, flux: Float[Array, "stars n"], states: State
) -> State:
    """Go on from exact derivatives until a descent ends or needs a new one."""
    rows = used_rows(problem)

    def model_at(theta: Array) -> Array:
        labels = parameters.labels.from_cube(theta)
        return 1 + problem.pixels(problem.broadening(bound(labels) - 1, *problem.low))

    def one(flux: Array, state: State) -> State:
        star = eqx.tree_at(lambda p: p.flux, problem, flux)

        def secant(state: State) -> Callable[[Array, Array], Trial]:
            def evaluate(theta: Array, step: Array) -> Trial:
                model = model_at(theta)
                length2 = jnp.sum(step**2)
                missed = model - state.model - step @ state.derivative
                learned = jnp.outer(step, missed) / jnp.maximum(length2, SMALL_STEP**2)
                derivative = state.derivative + jnp.where(length2 > SMALL_STEP**2, learned, 0.0)
                return Trial(*project(star, model, derivative), model, derivative)

            return evaluate

        def iterate(loop: tuple[State, Int[Array, ""], Bool[Array, ""]]) -> tuple[State, Array, Array]:
            before, steps, _ = loop
            after, ratio = advance(before, rows, secant(before), TOLERANCE)
            exact = steps == 0
            lost = ~exact & ((ratio < TRUSTED) | after.done)
            # A step that a secant derivative got wrong says nothing about the damping.
            wrong = ~exact & ~(ratio > 0)
            damping, growth = (
                jnp.where(wrong, old, new)
                for old, new in ((before.damping, after.damping), (before.growth, after.growth))
            )
            after = after._replace(damping=damping, growth=growth, done=after.done & exact)
            return after, steps + 1, lost | after.done

        def proceed(loop: tuple[State, Int[Array, ""], Bool[Array, ""]]) -> Bool[Array, ""]:
            return ~loop[2] & (loop[1] < SECANT_STEPS)

        return jax.lax.while_loop(proceed, iterate, (state, jnp.asarray(0), state.done))[0]

    return jax.vmap(one)(flux, states)


def solve_together(
    bound: BoundEmulator,
    parameters: Parameters,
    problem: Problem,
    flux: np.ndarray,
    starts: np.ndarray,
    max_iterations: int,
    known: tuple[np.ndarray, np.ndarray] | None = None,
    progress: Progress | None = None,
) -> tuple[Solution, np.ndarray]:
    """Minimise the χ² of many stars that share pixels and weights.

    Args:
        bound: the emulator on the model grid.
        parameters: labels alone; velocity and widths are fixed.
        problem: what the stars share; its flux is not used.
        flux: (stars, n) of order one.
        starts: (stars, p) in the unit cube.
        max_iterations: of each star.
        known: models (stars, n) and derivatives (stars, p, n) at the starts, where they have been computed already.
        progress: called with the number of stars that have finished, and of all.

    Returns:
        the solutions, leaves stacked, on the host (derivatives are exact or one short step away from it), and the
        number of exact derivatives (stars,).
    """
    flux, theta = np.asarray(flux, np.float32), np.array(starts, np.float32)
    n_stars, p, n = len(flux), theta.shape[1], flux.shape[1]
    size = lanes(bound, p, n_stars)
    model, derivative = np.empty((n_stars, n), np.float32), np.empty((n_stars, p, n), np.float32)
    if known is not None:
        model[:], derivative[:] = known
    damping, growth = np.full(n_stars, 1e-3, np.float32), np.full(n_stars, 4.0, np.float32)
    iterations, renewed = np.zeros(n_stars, np.int32), np.zeros(n_stars, np.int32)
    chi2, done = np.full(n_stars, np.inf, np.float32), np.zeros(n_stars, bool)

    def renew(rows: np.ndarray) -> None:
        model[rows], derivative[rows] = derivatives(bound, parameters, problem, jnp.asarray(theta[rows]))

    def pursue(rows: np.ndarray) -> None:
        state = _begin(problem, *(jnp.asarray(a[rows]) for a in (flux, theta, model, derivative)))
        state = state._replace(damping=jnp.asarray(damping[rows]), growth=jnp.asarray(growth[rows]))
        state = _pursue(bound, parameters, problem, jnp.asarray(flux[rows]), state)
        theta[rows], model[rows], derivative[rows] = state.theta, state.model, state.derivative
        damping[rows], growth[rows] = state.damping, state.growth
        chi2[rows] = np.sum(np.asarray(state.residual, np.float64) ** 2, axis=1)
        taken = np.zeros(n_stars, np.int32)
        taken[rows] = state.iteration
        iterations[:] += taken
        done[rows] = state.done

    active = np.arange(n_stars)
    while len(active):
        if known is None:
            in_batches(size, active, renew)
            renewed[active] += 1
        known = None
        in_batches(size, active, pursue)
        active = np.flatnonzero(~done & (iterations < max_iterations))
        if progress:
            progress(n_stars - len(active), n_stars)
    return Solution(theta, chi2, iterations, model, derivative), renewed  # pyright: ignore[reportArgumentType]
