"""Descents side by side, with few derivatives: many stars, or starts of one, in one compiled function.

The derivative of a network by seventeen labels costs some twenty times its spectrum. Here it is computed only where a
descent begins, is about to end, or has lost its way; between, it follows the secant condition (Broyden 1965, Math.
Comp. 19, 577). A descent ends only on a step that was judged by an exact derivative, so the solution is that of a
descent that computes it every time. A ``while_loop`` under ``vmap`` runs all lanes until the last has finished: here
finished ones leave the batch between two rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from starpayne.emulators import BoundEmulator
from starpayne.emulators.base import room
from starpayne.fitting.pixels import AnyArray
from starpayne.fitting.solver import (
    Parameters,
    Problem,
    Solution,
    State,
    Trial,
    advance,
    initial_state,
    model_and_jacobian,
    normalised_model,
    secant_trial,
    trial,
    used_rows,
)

CACHED = 16 * 2**20
"""Bytes of derivatives of one star above which labels are differentiated by one after another: a wide network is
half as fast again where its arrays stay in the processor's cache."""

CPU_SIZES, GPU_SIZES = (1, 4, 32), (1, 16, 128)
"""Lanes of a compiled call. Few sizes, because each is compiled; none larger on a CPU, because the arrays of more lanes
leave its caches."""

SECANT_STEPS = 12
"""Steps between two exact derivatives."""

BURST = 3
"""Steps of one call at most: lanes that are done or need a derivative wait no longer than that for the others."""

TRUSTED = 0.1
"""A secant derivative whose step gained less than this fraction of what it promised is made anew."""

Progress = Callable[[int, int], None]


@dataclass(eq=False)
class Lane:
    """One descent under way.

    Args:
        problem: its leaves are NumPy arrays, without a star axis.
        theta: (p,) where it is, in the unit cube.
        tolerance: as of :func:`starpayne.fitting.solver.advance`.
        max_iterations: it is given up after.
        model, derivative: (n,), (p, n) there; None until computed.
        chi2, iterations: so far; ``renewed`` counts the exact derivatives.
        arrived: whether there is no further to go.
    """

    problem: Problem
    theta: np.ndarray
    tolerance: float
    max_iterations: int
    model: np.ndarray | None = None
    derivative: np.ndarray | None = None
    damping: float = 1e-3
    growth: float = 4.0
    chi2: float = np.inf
    iterations: int = 0
    renewed: int = 0
    arrived: bool = False
    _stale: bool = True
    _since: int = 0

    def __post_init__(self) -> None:
        self.theta = np.asarray(self.theta, np.float32)
        self._stale = self.model is None

    @property
    def done(self) -> bool:
        return self.arrived or self.iterations >= self.max_iterations

    @property
    def solution(self) -> Solution:
        """Where it is now; the derivative is exact or one short step away from it."""
        assert self.model is not None
        assert self.derivative is not None
        return Solution(self.theta, self.chi2, self.iterations, self.model, self.derivative)


def sizes() -> tuple[int, ...]:
    """Return how many lanes a compiled call may have on this machine."""
    return CPU_SIZES if jax.default_backend() == "cpu" else GPU_SIZES


def lanes(bound: BoundEmulator, n_parameters: int, n_stars: int) -> int:
    """Return how many descents one compiled call takes, of so many that are waiting."""
    # As many tangents as parameters pass through the network beside its value, in about two copies.
    floats = 2 * bound.floats_per_spectrum * (n_parameters + 1)
    most = max(1, room() // (4 * floats))
    allowed = [size for size in sizes() if size <= most]
    return max(size for size in allowed if size <= max(n_stars, 1))


def in_batches(size: int, rows: np.ndarray, compute: Callable[[np.ndarray], None]) -> None:
    """Call ``compute`` with ``size`` of the rows at a time; the last batch repeats its last row to be as long."""
    for first in range(0, len(rows), size):
        batch = rows[first : first + size]
        compute(np.concatenate([batch, np.repeat(batch[-1:], size - len(batch))]))


def shapes(problem: Problem) -> tuple[object, ...]:
    """Return what problems must have in common to be stacked."""
    leaves, structure = jax.tree.flatten(problem)
    return structure, *map(np.shape, leaves)


def stacked(problems: Sequence[Problem], own: frozenset[str]) -> Problem:
    """Return one problem whose fields named in ``own`` have a star axis in front; the others are those of the first."""
    paths, structure = jax.tree_util.tree_flatten_with_path(problems[0])
    leaves = zip(*(jax.tree.leaves(problem) for problem in problems), strict=True)
    together = [
        np.stack(parts) if path[0].name in own else parts[0] for (path, _), parts in zip(paths, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, together)


def _axes(problem: Problem, own: frozenset[str]) -> Problem:
    """Return, in the place of each array, 0 where it has a star axis in front and None where all stars share it."""

    def axis(path: Any, _: Any) -> int | None:
        return 0 if path[0].name in own else None

    return jax.tree_util.tree_map_with_path(axis, problem)


EACH = frozenset(field.name for field in fields(Problem)) - {"broadening"}
"""Fields of a problem that stars of a survey have each for themselves."""


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

    return jax.vmap(one, in_axes=(_axes(problem, own), 0))(problem, theta)


@eqx.filter_jit
def _pursue(
    bound: BoundEmulator,
    parameters: Parameters,
    problem: Problem,
    own: frozenset[str],
    theta: Float[AnyArray, "stars p"],
    model: Float[AnyArray, "stars n"],
    derivative: Float[AnyArray, "stars p n"],
    damping: Float[AnyArray, " stars"],
    growth: Float[AnyArray, " stars"],
    tolerance: Float[AnyArray, " stars"],
    since: Int[AnyArray, " stars"],
) -> tuple[State, Int[AnyArray, " stars"], Bool[AnyArray, " stars"]]:
    """Take a few steps, until a descent ends or needs a new derivative.

    Returns:
        where they are, how many steps each has taken since its derivative was exact, and whether it needs a new one.
    """

    def one(
        star: Problem, theta: Array, model: Array, derivative: Array, damping: Array, growth: Array, tolerance: Array,
        since: Array,
    ) -> tuple[State, Array, Array]:  # fmt: skip
        rows = used_rows(star)
        state = initial_state(theta, trial(parameters, star, theta, model, derivative))
        state = state._replace(damping=damping, growth=growth)

        def secant(before: State) -> Callable[[Array, Array], Trial]:
            def evaluate(theta: Array, step: Array) -> Trial:
                model = normalised_model(bound, parameters, star, theta)
                return secant_trial(parameters, star, before, theta, step, model)

            return evaluate

        def iterate(loop: tuple[State, Int[Array, ""], Bool[Array, ""]]) -> tuple[State, Array, Array]:
            before, steps, _ = loop
            after, ratio = advance(before, rows, secant(before), tolerance)
            exact = since + steps == 0
            lost = ~exact & ((ratio < TRUSTED) | after.done)
            # A step that a secant derivative got wrong says nothing about the damping.
            wrong = ~exact & ~(ratio > 0)
            damping, growth = (
                jnp.where(wrong, old, new)
                for old, new in ((before.damping, after.damping), (before.growth, after.growth))
            )
            after = after._replace(damping=damping, growth=growth, done=after.done & exact)
            steps = steps + 1
            return after, steps, lost | after.done | (since + steps >= SECANT_STEPS)

        def proceed(loop: tuple[State, Int[Array, ""], Bool[Array, ""]]) -> Bool[Array, ""]:
            return ~loop[2] & (loop[1] < BURST)

        state, steps, stop = jax.lax.while_loop(proceed, iterate, (state, jnp.asarray(0), state.done))
        return state, since + steps, stop

    axes = (_axes(problem, own), 0, 0, 0, 0, 0, 0, 0)
    return jax.vmap(one, in_axes=axes)(problem, theta, model, derivative, damping, growth, tolerance, since)


def proceed(
    bound: BoundEmulator, parameters: Parameters, waiting: Sequence[Lane], own: frozenset[str] = EACH
) -> Sequence[Lane]:
    """Take as many lanes as one call holds and renew their derivatives, or go a few steps; return those taken.

    Args:
        bound: the emulator on the model grid.
        parameters: which are free.
        waiting: lanes that are not done, whose problems have arrays of the same shapes.
        own: fields of the problems that differ from lane to lane.
    """
    # Of the two kinds of work, the one that more lanes wait for.
    stale = [lane for lane in waiting if lane._stale]
    fresh = [lane for lane in waiting if not lane._stale]
    waiting = max(stale, fresh, key=len)
    size = lanes(bound, len(parameters), len(waiting))
    taken = list(waiting[:size])
    filled = [*taken, *[taken[-1]] * (size - len(taken))]
    problem = stacked([lane.problem for lane in filled], own)
    theta = np.stack([lane.theta for lane in filled])
    if not len(parameters):
        for lane, model, derivative in zip(taken, *derivatives(bound, parameters, problem, theta, own), strict=False):
            lane.model, lane.derivative, lane.arrived = np.asarray(model), np.asarray(derivative), True
            residual = trial(parameters, lane.problem, lane.theta, lane.model, lane.derivative).residual
            lane.chi2 = float(np.sum(np.asarray(residual, np.float64) ** 2))
        return taken
    if jax.default_backend() != "cpu":
        to_the_end(bound, parameters, problem, own, theta, taken)
        return taken
    if taken[0]._stale:
        model, derivative = (np.asarray(x) for x in derivatives(bound, parameters, problem, theta, own))
        for i, lane in enumerate(taken):
            lane.model, lane.derivative, lane._stale, lane._since = model[i], derivative[i], False, 0
            lane.renewed += 1
        return taken
    state, since, stop = _pursue(
        bound, parameters, problem, own, theta,
        *(np.stack([getattr(lane.solution, n) for lane in filled]) for n in ("model", "jacobian")),
        *(np.array([getattr(lane, n) for lane in filled], np.float32) for n in ("damping", "growth", "tolerance")),
        since=np.array([lane._since for lane in filled], np.int32),
    )  # fmt: skip
    chi2 = np.sum(np.asarray(state.residual, np.float64) ** 2, axis=1)
    where, model, derivative = (np.asarray(x) for x in (state.theta, state.model, state.derivative))
    damping, growth, iteration, done, steps, stale = (
        np.asarray(x).tolist() for x in (state.damping, state.growth, state.iteration, state.done, since, stop)
    )
    for i, lane in enumerate(taken):
        lane.theta, lane.model, lane.derivative = where[i], model[i], derivative[i]
        lane.damping, lane.growth, lane.chi2 = damping[i], growth[i], float(chi2[i])
        lane.iterations += iteration[i]
        lane.arrived, lane._stale, lane._since = done[i], stale[i], steps[i]
    return taken


def to_the_end(
    bound: BoundEmulator, parameters: Parameters, problem: Problem, own: frozenset[str], theta: np.ndarray,
    taken: Sequence[Lane],
) -> None:  # fmt: skip
    """Follow lanes to their ends in one call, with an exact derivative at every step.

    For a GPU, to which derivatives are cheap, but each call is dear, and what has to be moved there and back: it pays
    to wait for the last lane.

    Args:
        problem, theta: stacked, of the lanes taken, and of copies of the last one up to what the call holds.
        taken: the lanes.
    """
    limits = [lane.max_iterations - lane.iterations for lane in taken]
    limits += [1] * (len(theta) - len(taken))
    tolerances = [lane.tolerance for lane in taken] + [taken[-1].tolerance] * (len(theta) - len(taken))
    state = _descend(
        bound, parameters, problem, own, theta, np.array(tolerances, np.float32), np.array(limits, np.int32)
    )
    chi2 = np.sum(np.asarray(state.residual, np.float64) ** 2, axis=1)
    where, model, derivative, iterations = (
        np.asarray(x) for x in (state.theta, state.model, state.derivative, state.iteration)
    )
    for i, lane in enumerate(taken):
        lane.theta, lane.model, lane.derivative, lane.chi2 = where[i], model[i], derivative[i], float(chi2[i])
        lane.iterations += int(iterations[i])
        lane.arrived, lane._stale = True, False


@eqx.filter_jit
def _descend(
    bound: BoundEmulator,
    parameters: Parameters,
    problem: Problem,
    own: frozenset[str],
    theta: Float[AnyArray, "stars p"],
    tolerance: Float[AnyArray, " stars"],
    limit: Int[AnyArray, " stars"],
) -> State:
    """Return where descents end; none takes more than ``limit`` steps."""

    def one(star: Problem, theta: Array, tolerance: Array, limit: Array) -> State:
        rows = used_rows(star)

        def evaluate(theta: Array, step: Array) -> Trial:
            return trial(parameters, star, theta, *model_and_jacobian(bound, parameters, star, theta))

        def ahead(state: State) -> Bool[Array, ""]:
            return ~state.done & (state.iteration < limit)

        start = initial_state(theta, evaluate(theta, theta))
        return jax.lax.while_loop(ahead, lambda state: advance(state, rows, evaluate, tolerance)[0], start)

    return jax.vmap(one, in_axes=(_axes(problem, own), 0, 0, 0))(problem, theta, tolerance, limit)


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
