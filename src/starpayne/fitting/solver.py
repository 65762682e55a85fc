"""Bounded least squares by a projected Levenberg–Marquardt method with variable projection, in pure JAX.

Nonlinear parameters (label coordinates, velocity, squares of the broadening velocities) live in the unit cube.
Linear ones (continuum coefficients, amplitudes of the emulator's error modes) are solved at every step, and the
derivative is that of the remaining residual (Kaufman 1975, BIT 15, 49), so errors derived from it are marginalised
over them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from starpayne.emulators import BoundEmulator
from starpayne.fitting.bounded import bounded_step
from starpayne.fitting.broadening import Broadening
from starpayne.fitting.freedom import FreeLabels
from starpayne.fitting.instrument import PixelMatrix

TOLERANCE = 0.01
"""Stop when the best step should lower χ² by less than this times the reduced χ²: a step of 0.1 σ. Also when damping
has made
the step promise a tenth of that: along directions that the data hardly constrain, float32 has no more to say."""

MIN_DAMPING, MAX_DAMPING = 1e-6, 1e8


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


class Problem(eqx.Module):
    """One star: everything the solver needs but the emulator; padded pixels have an inverse error of 0.

    Args:
        broadening, pixels: the star's forward model, from line depths on the emulator's grid to its pixels.
        flux: (n,) of order one; inverse_error: (n,).
        basis: (n, n_continuum) continuum polynomials.
        modes: (n, n_modes) emulator error modes on the pixels, times the continuum; amplitudes have unit variance.
        low, high: (3,) bounds of shift (km/s), vsini² and sigma² (km²/s²); ``low`` is the value of a fixed one.
    """

    broadening: Broadening
    pixels: PixelMatrix
    flux: Float[Array, " n"]
    inverse_error: Float[Array, " n"]
    basis: Float[Array, "n n_continuum"]
    modes: Float[Array, "n n_modes"]
    low: Float[Array, " three"]
    high: Float[Array, " three"]


class Solution(NamedTuple):
    """Where the solver ended: position in the unit cube, χ², steps taken, and the model and its derivative there."""

    theta: Float[Array, " p"]
    chi2: Float[Array, ""]
    iterations: Int[Array, ""]
    model: Float[Array, " n"]
    jacobian: Float[Array, "p n"]


class State(NamedTuple):
    """A descent on its way: a point, what is known there (as in Trial), and what rules the next step."""

    theta: Array
    residual: Array
    jacobian: Array
    model: Array
    derivative: Array
    damping: Array
    growth: Array
    iteration: Array
    done: Array


def widths(parameters: Parameters, problem: Problem, theta: Float[Array, " p"]) -> Float[Array, " three"]:
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
    theta: Float[Array, " p"],
    one_by_one: bool = False,
) -> tuple[Float[Array, " n"], Float[Array, "p n"]]:
    """Return the normalised model on the pixels and its derivative by each parameter.

    Observing is linear in the spectrum: the emulator is differentiated by the labels alone, and all derivatives pass
    through one Fourier transform and one matrix.

    Args:
        one_by_one: differentiate by one label after another rather than by all at once.
    """
    n, broadening = len(parameters.labels), problem.broadening

    def emulate(cube: Array) -> Array:
        return bound(parameters.labels.from_cube(cube)) - 1

    def derivative(tangent: Array) -> tuple[Array, Array]:
        return jax.jvp(emulate, (theta[:n],), (tangent,))

    if n and one_by_one:
        depth, linear = jax.linearize(emulate, theta[:n])
        stack = jnp.concatenate([depth[None], jax.lax.map(linear, jnp.eye(n))])
    elif n:
        depth, by_label = jax.vmap(derivative, out_axes=(None, 0))(jnp.eye(n))
        stack = jnp.concatenate([depth[None], by_label])
    else:
        stack = emulate(theta[:0])[None]

    def transfer(rest: Array) -> Array:
        return broadening.transfer(*widths(parameters, problem, jnp.concatenate([theta[:n], rest])))

    spectra = broadening.spectrum(stack)
    response = transfer(theta[n:])
    products = spectra * response
    if len(parameters) > n:
        by_width = jax.vmap(lambda t: jax.jvp(transfer, (theta[n:],), (t,))[1])(jnp.eye(len(parameters) - n))
        products = jnp.concatenate([products, spectra[:1] * by_width])
    observed = problem.pixels(broadening.back(products, stack.shape[-1]))
    return 1 + observed[0], observed[1:]


def project(
    problem: Problem, model: Float[Array, " n"], derivative: Float[Array, "p n"]
) -> tuple[Float[Array, " rows"], Float[Array, "rows p"]]:
    """Return residual and its derivative with the linear parameters solved.

    Rows are pixels, then one per error mode: its amplitude, whose prior is a unit Gaussian.
    """
    w, n_modes = problem.inverse_error, problem.modes.shape[1]
    continuum_columns = problem.basis * (model * w)[:, None]
    prior = jnp.concatenate([jnp.zeros((n_modes, problem.basis.shape[1])), jnp.eye(n_modes)], axis=1)
    design = jnp.concatenate([jnp.concatenate([continuum_columns, problem.modes * w[:, None]], axis=1), prior])
    data = jnp.concatenate([problem.flux * w, jnp.zeros(n_modes)])
    # Reduced QR rather than normal equations: float32 keeps its digits.
    q, r = jnp.linalg.qr(design)
    along = q.T @ data
    coefficients = jax.scipy.linalg.solve_triangular(r, along)
    continuum = problem.basis @ coefficients[: problem.basis.shape[1]]
    columns = jnp.concatenate([(derivative * (continuum * w)).T, jnp.zeros((n_modes, derivative.shape[0]))])
    return data - q @ along, -(columns - q @ (q.T @ columns))


class Trial(NamedTuple):
    """What is known at a point: residual and its derivative with the linear parameters solved; the model and its."""

    residual: Float[Array, " rows"]
    jacobian: Float[Array, "rows p"]
    model: Float[Array, " n"]
    derivative: Float[Array, "p n"]


def exact_trial(bound: BoundEmulator, parameters: Parameters, problem: Problem, theta: Float[Array, " p"]) -> Trial:
    """Return all that a step needs to know at a point, by automatic differentiation."""
    model, derivative = model_and_jacobian(bound, parameters, problem, theta)
    return Trial(*project(problem, model, derivative), model, derivative)


def initial_state(theta: Float[Array, " p"], trial: Trial) -> State:
    """Return where a descent begins."""
    return State(
        theta, *trial, damping=jnp.asarray(1e-3), growth=jnp.asarray(4.0), iteration=jnp.asarray(0),
        done=~jnp.all(jnp.isfinite(trial.residual)),
    )  # fmt: skip


def advance(
    state: State, rows: Int[Array, ""], evaluate: Callable[[Array, Array], Trial], tolerance: float = TOLERANCE
) -> tuple[State, Float[Array, ""]]:
    """Take one step, or raise the damping (after Nielsen 1999, IMM-REP-1999-05).

    Args:
        state: where the descent is; the new one is ``done`` if this step was not worth taking, or none can be taken.
        rows: pixels in use.
        evaluate: from the point to try, and the step to it, to what is known there.
        tolerance: as TOLERANCE.

    Returns:
        the new state, and the decrease of χ² as a fraction of what was expected.
    """
    gradient = state.jacobian.T @ state.residual
    hessian = state.jacobian.T @ state.jacobian
    step, expected = bounded_step(hessian, gradient, state.theta, state.damping)
    # Judged by the undamped step: along a nearly degenerate direction the damped one is always small.
    _, to_gain = bounded_step(hessian, gradient, state.theta, MIN_DAMPING)
    theta = jnp.clip(state.theta + step, 0.0, 1.0)
    trial = evaluate(theta, step)
    # Differences before squares: the sums of float32 squares would lose a change of a few in 10⁶.
    gained = jnp.sum((state.residual - trial.residual) * (state.residual + trial.residual))
    good = jnp.isfinite(gained) & (gained > 0) & (expected > 0)
    ratio = gained / jnp.maximum(expected, 1e-30)
    shrink = jnp.maximum(1 / 3, 1 - (2 * jnp.clip(ratio, 0, 1) - 1) ** 3)
    damping = jnp.where(good, state.damping * shrink, state.damping * state.growth)
    least = tolerance * jnp.maximum(1.0, jnp.sum(state.residual**2) / rows)
    arrived = (to_gain < least) | (expected < 0.1 * least)
    kept = (jnp.where(good, new, old) for new, old in zip((theta, *trial), state[:5], strict=True))
    state = State(
        *kept,
        damping=jnp.clip(damping, MIN_DAMPING, MAX_DAMPING),
        growth=jnp.where(good, 4.0, 2 * state.growth),
        iteration=state.iteration + 1,
        done=arrived | (damping > MAX_DAMPING) | ~jnp.all(jnp.isfinite(step)),
    )
    return state, ratio


def used_rows(problem: Problem) -> Int[Array, ""]:
    """Return how many pixels count, at least one."""
    return jnp.maximum(jnp.sum(problem.inverse_error > 0), 1)


def levenberg_marquardt(
    bound: BoundEmulator, parameters: Parameters, problem: Problem, start: Float[Array, " p"], max_iterations: int
) -> Solution:
    """Minimise χ² from a start in the unit cube."""
    rows = used_rows(problem)

    def proceed(state: State) -> Bool[Array, ""]:
        return ~state.done & (state.iteration < max_iterations)

    def iterate(state: State) -> State:
        return advance(state, rows, lambda theta, step: exact_trial(bound, parameters, problem, theta))[0]

    state = initial_state(start, exact_trial(bound, parameters, problem, start))
    state = jax.lax.while_loop(proceed, iterate, state) if len(parameters) else state
    return Solution(state.theta, jnp.sum(state.residual**2), state.iteration, state.model, state.derivative)


@eqx.filter_jit
def solve(
    bound: BoundEmulator,
    parameters: Parameters,
    problems: Problem,
    starts: Float[Array, "stars p"],
    max_iterations: int,
) -> Solution:
    """Solve many stars (or many starts of one) in one compiled call; the leaves of ``problems`` are stacked."""

    def one(problem: Problem, start: Array) -> Solution:
        return levenberg_marquardt(bound, parameters, problem, start, max_iterations)

    return jax.vmap(one)(problems, starts)
