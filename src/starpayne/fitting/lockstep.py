"""Descents side by side, with few derivatives: many stars, or starts of one, in one compiled function.

The derivative of a network by seventeen labels costs some twenty times its spectrum. Here it is computed only where a
descent begins, is about to end, or has lost its way; between, it follows the secant condition (Broyden 1965, Math.
Comp. 19, 577). A descent ends only on a step that was judged by an exact derivative, so the solution is that of a
descent that computes it every time. A ``while_loop`` under ``vmap`` runs all lanes until the last has finished: here
finished ones leave the batch between two rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from starpayne.emulators import BoundEmulator
from starpayne.fitting.lanes import EACH, Lane, lanes, memory_at, stacked, star_axes, together_at
from starpayne.fitting.pixels import AnyArray
from starpayne.fitting.solver import (
    Parameters,
    Problem,
    model_and_jacobian,
    normalised_model,
    residual_at,
    used_rows,
)
from starpayne.fitting.steps import State, advance, initial_state, renewed, taught

CACHED = 16 * 2**20
"""Bytes of derivatives of one star above which labels are differentiated by one after another: a wide network is
half as fast again where its arrays stay in the processor's cache."""

SECANT_STEPS = 12
"""Steps between two exact derivatives."""

BURST = 3
"""Steps of one call at most: lanes that are done or need a derivative wait no longer than that for the others."""

GPU_STEPS = 12
"""Steps of one call at most on a GPU. Nineteen of twenty descents end within them; the slowest take twenty, and the
others of their call would wait for them."""

TRUSTED = 0.3
"""A secant derivative whose step gained less than this fraction of what it promised is made anew."""

Progress = Callable[[int, int], None]


@eqx.filter_jit
def derivatives(
    bound: BoundEmulator,
    parameters: Parameters,
    problem: Problem,
    theta: Float[AnyArray, "stars p"],
    own: frozenset[str],
) -> tuple[Float[Array, "stars n"], Float[Array, "stars p n"]]:
    """Return models on the pixels, and their derivatives in the unit cube; fields of ``own`` have a star axis."""
    cached = 4 * bound.floats_per_spectrum * (len(parameters) + 1) <= CACHED
    one_by_one = jax.default_backend() == "cpu" and not cached

    def one(problem: Problem, theta: Array) -> tuple[Array, Array]:
        return model_and_jacobian(bound, parameters, problem, theta, one_by_one)

    return jax.vmap(one, in_axes=(star_axes(problem, own), 0))(problem, theta)


class Reached(NamedTuple):
    """Where lanes of a call have come to: the point, what is known there, and how they are to go on.

    Args:
        theta, model, derivative, residual: at the point.
        iteration, done: steps of this call, and whether the descent has ended.
        damping, growth: of the next step.
        since: steps since the derivative was exact; ``stale`` says that it is to be made anew.
    """

    theta: AnyArray
    model: AnyArray
    derivative: AnyArray
    residual: AnyArray
    iteration: AnyArray
    done: AnyArray
    damping: AnyArray
    growth: AnyArray
    since: AnyArray
    stale: AnyArray


@eqx.filter_jit
def _pursue(
    bound: BoundEmulator,
    parameters: Parameters,
    problem: Problem,
    own: frozenset[str],
    theta: Float[AnyArray, "stars p"],
    renew: bool | Bool[AnyArray, ""],
    model: Float[AnyArray, "stars n"],
    derivative: Float[AnyArray, "stars p n"],
    damping: Float[AnyArray, " stars"],
    growth: Float[AnyArray, " stars"],
    tolerance: Float[AnyArray, " stars"],
    since: Int[AnyArray, " stars"],
) -> Reached:
    """Take a few steps, until a descent ends or needs a new derivative.

    Args:
        renew: compute models and derivatives first; what is given is not looked at. By a value, not by what is given:
            two functions would be compiled.
        model, derivative: the models at theta, and their derivatives of ``since`` steps ago.
    """

    def one(
        star: Problem, theta: Array, model: Array, derivative: Array, damping: Array, growth: Array, tolerance: Array,
        since: Array,
    ) -> Reached:  # fmt: skip
        rows = used_rows(star)
        state = initial_state(parameters, star, theta, model, derivative, BURST)
        state = state._replace(damping=damping, growth=growth)

        def evaluate(theta: Array) -> tuple[Array, Array]:
            model = normalised_model(bound, parameters, star, theta)
            return residual_at(parameters, star, theta, model), model

        def iterate(loop: tuple[State, Int[Array, ""], Bool[Array, ""]]) -> tuple[State, Array, Array]:
            before, since, _ = loop
            found = advance(before, rows, evaluate, tolerance)
            after, ratio = taught(before, found), found.ratio
            exact = since == 0
            lost = ~exact & ((ratio < TRUSTED) | after.done)
            # A step that a secant derivative got wrong says nothing about the damping.
            wrong = ~exact & ~(ratio > 0)
            damping, growth = (
                jnp.where(wrong, old, new)
                for old, new in ((before.damping, after.damping), (before.growth, after.growth))
            )
            after = after._replace(damping=damping, growth=growth, done=after.done & exact)
            # Where a step was not worth taking, the derivative is as good as it was.
            since = since + jnp.any(after.theta != before.theta)
            return after, since, lost | after.done | (since >= SECANT_STEPS)

        def proceed(loop: tuple[State, Int[Array, ""], Bool[Array, ""]]) -> Bool[Array, ""]:
            return ~loop[2] & (loop[0].iteration < BURST)

        state, since, stop = jax.lax.while_loop(proceed, iterate, (state, since, state.done))
        return Reached(
            state.theta, state.model, state.slopes.whole_model(), state.residual, state.iteration, state.done,
            state.damping, state.growth, since, stop,
        )  # fmt: skip

    def exact() -> tuple[Array, Array]:
        return derivatives(bound, parameters, problem, theta, own)

    model, derivative = jax.lax.cond(renew, exact, lambda: (jnp.asarray(model), jnp.asarray(derivative)))
    axes = (star_axes(problem, own), 0, 0, 0, 0, 0, 0, 0)
    return jax.vmap(one, in_axes=axes)(problem, theta, model, derivative, damping, growth, tolerance, since)


def proceed(
    bound: BoundEmulator, parameters: Parameters, waiting: Sequence[Lane], own: frozenset[str] = EACH
) -> Sequence[Lane]:
    """Take as many lanes as one call holds a few steps further, on a GPU most of them to their ends; return those
    taken.

    Args:
        bound: the emulator on the model grid.
        parameters: which are free.
        waiting: lanes that are not done, whose problems have arrays of the same shapes.
        own: fields of the problems that differ from lane to lane.
    """
    if on_cpu := jax.default_backend() == "cpu":
        # Those that need an exact derivative get it in the same call; of the two kinds, the one that more lanes are of.
        stale = [lane for lane in waiting if lane.stale]
        fresh = [lane for lane in waiting if not lane.stale]
        waiting = max(stale, fresh, key=len)
    size = lanes(bound, len(parameters), len(waiting))
    taken = list(waiting[:size])
    filled = [*taken, *[taken[-1]] * (size - len(taken))]
    problem = stacked([lane.problem for lane in filled], own)
    theta = np.stack([lane.theta for lane in filled])
    if not len(parameters):
        _look(bound, parameters, problem, own, theta, taken)
    elif on_cpu:
        _some_steps(bound, parameters, problem, own, theta, filled, len(taken))
    else:
        _exact_steps(bound, parameters, problem, own, theta, filled, len(taken))
    return taken


def _look(
    bound: BoundEmulator, parameters: Parameters, problem: Problem, own: frozenset[str], theta: np.ndarray,
    taken: Sequence[Lane],
) -> None:  # fmt: skip
    """Compute models of lanes with nothing to go along."""
    for lane, model, derivative in zip(taken, *derivatives(bound, parameters, problem, theta, own), strict=False):
        lane.model, lane.derivative, lane.arrived = np.asarray(model), np.asarray(derivative), True
        residual = residual_at(parameters, lane.problem, lane.theta, lane.model)
        lane.chi2 = float(np.sum(np.asarray(residual, np.float64) ** 2))


def _some_steps(
    bound: BoundEmulator, parameters: Parameters, problem: Problem, own: frozenset[str], theta: np.ndarray,
    filled: Sequence[Lane], n: int,
) -> None:  # fmt: skip
    """Take lanes a few steps further; the first n of those given are to move, the others fill the call."""
    renew = filled[0].stale
    if renew:
        shape = *theta.shape, len(filled[0].problem.flux)
        model, derivative = np.zeros((shape[0], shape[2]), np.float32), memory_at("derivative", shape, theta.dtype)
    else:
        solutions = [lane.solution for lane in filled]
        model = np.stack([solution.model for solution in solutions])
        derivative = together_at("derivative", [solution.jacobian for solution in solutions])
    damping, growth, tolerance = (
        np.array([getattr(lane, name) for lane in filled], np.float32) for name in ("damping", "growth", "tolerance")
    )
    since = np.array([0 if renew else lane.since for lane in filled], np.int32)
    reached = _pursue(
        bound, parameters, problem, own, theta, np.array(renew), model, derivative, damping, growth, tolerance, since
    )
    reached = Reached(*map(np.asarray, reached))
    chi2 = np.sum(reached.residual.astype(np.float64) ** 2, axis=1).tolist()
    iteration, done, damping, growth, since, stale = (each.tolist() for each in reached[4:])
    for i, lane in enumerate(filled[:n]):
        lane.theta, lane.model, lane.derivative = (each[i] for each in reached[:3])
        lane.damping, lane.growth, lane.chi2 = damping[i], growth[i], chi2[i]
        lane.iterations += iteration[i]
        lane.renewed += renew
        lane.arrived, lane.stale, lane.since = done[i], stale[i], since[i]


def _exact_steps(
    bound: BoundEmulator, parameters: Parameters, problem: Problem, own: frozenset[str], theta: np.ndarray,
    filled: Sequence[Lane], n: int,
) -> None:  # fmt: skip
    """Take lanes further with an exact derivative at every step; the first n of those given are to move.

    For a GPU, to which derivatives are cheap, but each call is dear, and what has to be moved there and back: what a
    lane knows of its derivative stays behind.
    """
    damping, growth, tolerance = (
        np.array([getattr(lane, name) for lane in filled], np.float32) for name in ("damping", "growth", "tolerance")
    )
    limit = np.array([min(GPU_STEPS, lane.max_iterations - lane.iterations) for lane in filled], np.int32)
    limit[n:] = 1
    state = _descend(bound, parameters, problem, own, theta, damping, growth, tolerance, limit)
    chi2 = np.sum(np.asarray(state.residual, np.float64) ** 2, axis=1).tolist()
    where, model, derivative = (np.asarray(x) for x in (state.theta, state.model, state.slopes.model))
    damping, growth, iteration, done = (
        np.asarray(x).tolist() for x in (state.damping, state.growth, state.iteration, state.done)
    )
    for i, lane in enumerate(filled[:n]):
        lane.theta, lane.model, lane.derivative = where[i], model[i], derivative[i]
        lane.damping, lane.growth, lane.chi2 = damping[i], growth[i], chi2[i]
        lane.iterations += iteration[i]
        lane.arrived, lane.stale = done[i], False


@eqx.filter_jit
def _descend(
    bound: BoundEmulator,
    parameters: Parameters,
    problem: Problem,
    own: frozenset[str],
    theta: Float[AnyArray, "stars p"],
    damping: Float[AnyArray, " stars"],
    growth: Float[AnyArray, " stars"],
    tolerance: Float[AnyArray, " stars"],
    limit: Int[AnyArray, " stars"],
) -> State:
    """Return where descents come to; none takes more than ``limit`` steps."""

    def one(star: Problem, theta: Array, damping: Array, growth: Array, tolerance: Array, limit: Array) -> State:
        rows = used_rows(star)

        def evaluate(theta: Array) -> tuple[Array, Array]:
            model = normalised_model(bound, parameters, star, theta)
            return residual_at(parameters, star, theta, model), model

        def ahead(state: State) -> Bool[Array, ""]:
            return ~state.done & (state.iteration < limit)

        def iterate(state: State) -> State:
            state = advance(state, rows, evaluate, tolerance).state
            _, derivative = model_and_jacobian(bound, parameters, star, state.theta)
            return renewed(parameters, star, state, derivative)

        start = initial_state(parameters, star, theta, *model_and_jacobian(bound, parameters, star, theta))
        return jax.lax.while_loop(ahead, iterate, start._replace(damping=damping, growth=growth))

    return jax.vmap(one, in_axes=(star_axes(problem, own), 0, 0, 0, 0, 0))(
        problem, theta, damping, growth, tolerance, limit
    )


def solve_together(
    bound: BoundEmulator,
    parameters: Parameters,
    waiting: Sequence[Lane],
    own: frozenset[str] = EACH,
    progress: Progress | None = None,
) -> None:
    """Follow lanes to their ends.

    Args:
        bound, parameters, waiting, own: as of :func:`proceed`.
        progress: called with the number of lanes that have finished, and of all.
    """
    active = [lane for lane in waiting if not lane.done]
    while active:
        # In turns, so that the lanes of a batch are at about the same stage.
        taken = set(map(id, proceed(bound, parameters, active, own)))
        active = [lane for lane in active if id(lane) not in taken] + [
            lane for lane in active if id(lane) in taken and not lane.done
        ]
        if progress:
            progress(len(waiting) - len(active), len(waiting))
