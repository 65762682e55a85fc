"""What a step of the solver knows: the projected residual, its derivative, and both where only the model is new."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_star import RESOLUTION

from starpayne.bundle import Model
from starpayne.emulators import BoundEmulator
from starpayne.fitting import FitOptions, lockstep
from starpayne.fitting.continuum import chebyshev
from starpayne.fitting.lanes import EACH, Lane
from starpayne.fitting.lockstep import proceed, solve_together
from starpayne.fitting.noise import Noise
from starpayne.fitting.observation import observation
from starpayne.fitting.plan import Plan, share_pixels
from starpayne.fitting.problem import Scene, conditioned
from starpayne.fitting.projection import project
from starpayne.fitting.search import Start
from starpayne.fitting.setup import Setup
from starpayne.fitting.solver import (
    Parameters,
    Problem,
    Solution,
    model_and_jacobian,
    normalised_model,
    orthonormal,
    residual_at,
)
from starpayne.fitting.steps import SHORTER, Slopes, State, Trial, advance, initial_state, taught
from starpayne.spectra import ObservedSpectrum

Observe = Callable[..., ObservedSpectrum]


@pytest.fixture(scope="module")
def setup(with_residuals: Model) -> Setup:
    """With the emulator's error, and a prior: all that a residual may be made of."""
    return Setup(with_residuals, FitOptions(prior={"teff": (5200.0, 300.0)}))


@pytest.fixture
def lane(setup: Setup, observe: Observe) -> Lane:
    star = observation(observe(rv=3.0), RESOLUTION, setup)
    cube = np.full(len(setup.parameters.labels), 0.4)
    (plan,) = share_pixels([Plan.of(Start(cube, 2.0, 10.0, 0.0), star, setup.options)], star, setup)
    scene, theta = Scene.of(star, plan, setup), plan.theta(setup.parameters)
    problem: Problem = scene.problem(scene.seen_from(theta, setup), Noise())
    return Lane(problem, theta, 0.01, 60)


def bound_of(setup: Setup, observe: Observe) -> BoundEmulator:
    return observation(observe(rv=3.0), RESOLUTION, setup).bound


@eqx.filter_jit
def exact(bound: BoundEmulator, parameters: Parameters, problem: Problem, theta: jax.Array, steps: int = 0) -> State:
    return initial_state(
        parameters, problem, theta, *model_and_jacobian(bound, parameters, problem, theta), steps
    )  # fmt: skip


@eqx.filter_jit
def secant(bound: BoundEmulator, parameters: Parameters, problem: Problem, before: State, step: jax.Array) -> State:
    theta = before.theta + step
    model = normalised_model(bound, parameters, problem, theta)
    residual = residual_at(parameters, problem, theta, model)
    after = before._replace(theta=theta, residual=residual, model=model, iteration=before.iteration + 1)
    bend = residual - before.residual - before.slopes.residual_along(step)
    return taught(before, Trial(after, step, bend, jnp.asarray(1.0)))


def test_rows_become_orthonormal() -> None:
    rows = np.random.default_rng(0).normal(size=(5, 400)) * np.array([[1.0], [10.0], [0.1], [3.0], [1.0]])
    rows[3] += 30 * rows[0]
    q, to_q = orthonormal(jnp.asarray(rows, jnp.float32))
    assert np.allclose(q @ q.T, np.eye(5), atol=1e-5)
    assert np.allclose(to_q @ rows, q, atol=1e-4)
    assert np.allclose(np.triu(to_q, 1), 0)
    # They span the same: what is along q is all there is.
    assert np.allclose((rows @ np.asarray(q).T) @ q, rows, atol=1e-3)


@pytest.mark.parametrize(("degree", "part"), [(4, 1.0), (10, 0.5), (20, 0.7), (20, 0.5)])
def test_a_continuum_of_which_much_is_masked_is_still_solved(degree: int, part: float) -> None:
    used = np.arange(2048) < part * 2048
    basis = conditioned(chebyshev(np.linspace(5000.0, 5050.0, 2048), degree), used)
    q, _ = orthonormal(jnp.asarray(basis.T * used, jnp.float32))
    assert np.allclose(q @ q.T, np.eye(len(q)), atol=1e-5)
    # What is left still follows a curve that the polynomials have, where there are pixels.
    curve = 1 + 0.3 * np.linspace(-1, 1, 2048) ** 3
    assert np.allclose((curve * used @ np.asarray(q, np.float64).T) @ q, curve * used, atol=1e-4)


def test_the_projection_is_that_in_double_precision(setup: Setup, lane: Lane, observe: Observe) -> None:
    found = exact(bound_of(setup, observe), setup.parameters, lane.problem, jnp.asarray(lane.theta))
    solution = Solution(lane.theta, 0.0, 0, np.asarray(found.model), np.asarray(found.slopes.model))
    residual, jacobian = project(lane.problem, solution)
    n = len(residual)
    assert np.allclose(found.residual[:n], residual, atol=1e-3 * np.std(residual))
    rows = np.asarray(found.slopes.residual, np.float64)
    assert np.allclose(rows[:, :n], jacobian.T, atol=1e-4 * np.abs(jacobian).max())
    # Sums of float32 products: in units of the lengths of their rows.
    length = np.linalg.norm(rows, axis=1)
    assert np.allclose(found.hessian / np.outer(length, length), rows @ rows.T / np.outer(length, length), atol=1e-5)
    size = length * np.linalg.norm(found.residual)
    assert np.allclose(found.gradient / size, rows @ np.asarray(found.residual, np.float64) / size, atol=1e-5)


def test_where_only_the_model_is_new_derivatives_follow_the_secant(setup: Setup, lane: Lane, observe: Observe) -> None:
    bound, parameters, problem = bound_of(setup, observe), setup.parameters, lane.problem
    state = exact(bound, parameters, problem, jnp.asarray(lane.theta), 2)
    random = np.random.default_rng(1)
    for _ in range(2):
        before, step = state, jnp.asarray(0.05 * random.normal(size=len(lane.theta)), jnp.float32)
        state = secant(bound, parameters, problem, before, step)
        truth = exact(bound, parameters, problem, before.theta + step)
        scale = float(jnp.std(truth.residual))
        assert np.allclose(state.residual, truth.residual, atol=1e-3 * scale)
        assert np.allclose(state.slopes.residual_along(step), state.residual - before.residual, atol=1e-3 * scale)
        assert np.allclose(state.slopes.model_along(step), state.model - before.model, atol=1e-5)
        assert np.allclose(step @ state.slopes.whole_model(), state.model - before.model, atol=1e-5)
        # Along what is at right angles to the step, nothing is learned.
        across = jnp.asarray(random.normal(size=len(step)), jnp.float32)
        across -= step * (across @ step) / (step @ step)
        assert np.allclose(
            state.slopes.residual_along(across), before.slopes.residual_along(across), atol=1e-3 * scale
        )  # fmt: skip
        rows = np.stack([state.slopes.residual_along(unit) for unit in np.eye(len(step), dtype=np.float32)])
        assert np.allclose(state.hessian, rows @ rows.T, rtol=1e-3, atol=1e-4 * state.hessian.max())
        assert np.allclose(state.gradient, rows @ state.residual, rtol=1e-3, atol=1e-4 * np.abs(state.gradient).max())
    # A step too short to tell anything by float32 leaves the derivatives alone.
    first = exact(bound, parameters, problem, jnp.asarray(lane.theta), 2)
    tiny = secant(bound, parameters, problem, first, step * 1e-4)
    assert np.array_equal(tiny.slopes.whole_model(), first.slopes.model)
    assert np.array_equal(tiny.hessian, first.hessian)


def test_a_step_that_led_too_far_is_tried_again_to_where_the_residual_is_lowest() -> None:
    random = np.random.default_rng(2)
    n, p = 300, 4
    jacobian, residual = random.normal(size=(p, n)), random.normal(size=n)
    # One parameter that the data hardly constrain, along which the model bends.
    jacobian[0] *= 0.02
    residual -= 3 * jacobian[0]
    bend, start = random.normal(size=n), np.full(p, 0.5)

    def at(theta: jax.Array) -> tuple[jax.Array, jax.Array]:
        off = theta - start
        found = residual + off @ jacobian + 4 * off[0] ** 2 * bend
        return jnp.asarray(found, jnp.float32), jnp.zeros(n)

    slopes = Slopes(
        *(jnp.asarray(x, jnp.float32) for x in (jacobian, jacobian)), *map(jnp.zeros, ((0, p), (0, n), (0, n)))
    )
    number = jnp.float32
    gradient, hessian = jacobian @ residual, jacobian @ jacobian.T
    state = State(
        jnp.asarray(start, number), jnp.asarray(residual, number), jnp.zeros(n), jnp.asarray(gradient, number),
        jnp.asarray(hessian, number), slopes, number(1e-3), number(4.0), jnp.zeros(p), jnp.asarray(0),
        jnp.asarray(False),
    )  # fmt: skip
    tried, goal = advance(state, jnp.asarray(n), at, 1e-3), np.sum(residual**2)
    assert not np.any(tried.step)
    assert tried.ratio < 0
    assert tried.state.damping > state.damping
    step = tried.state.shorter
    # The step led to the bound.
    whole = 0.5 * step / jnp.max(jnp.abs(step))
    heights = [float(jnp.sum(at(start + t * whole)[0] ** 2)) for t in SHORTER]
    again = advance(tried.state, jnp.asarray(n), at, 1e-3)
    assert np.allclose(again.step, step)
    reached = float(jnp.sum(again.state.residual**2))
    assert reached < goal
    assert reached <= 1.0001 * min(heights)
    assert not np.any(again.state.shorter)
    # What taking the damping alone further would have found after as many steps is higher.
    damped = advance(tried.state._replace(shorter=jnp.zeros(p)), jnp.asarray(n), at, 1e-3)
    assert float(jnp.sum(damped.state.residual**2)) > reached


def test_on_a_gpu_a_descent_ends_where_it_does_on_a_cpu(
    setup: Setup, lane: Lane, observe: Observe, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound, parameters = bound_of(setup, observe), setup.parameters
    solve_together(bound, parameters, [lane])
    whole = [
        Lane(lane.problem, start, 0.01, 60) for start in np.clip(lane.theta + np.array([[0.0], [0.05], [-0.05]]), 0, 1)
    ]
    short = Lane(lane.problem, np.clip(lane.theta + 0.2, 0, 1), 0.01, 1)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    # Those that take longer than others go on in another call, as if nothing had been.
    monkeypatch.setattr(lockstep, "GPU_STEPS", 2)
    calls = []
    solve_together(bound, parameters, [*whole, short], EACH, lambda done, of: calls.append(done))
    assert len(calls) > 1
    assert all(other.done for other in whole)
    assert np.allclose([other.chi2 for other in whole], lane.chi2, atol=0.1)
    assert max(other.iterations for other in whole) < 30
    assert short.iterations == 1
    assert short.chi2 > lane.chi2


def test_a_step_not_taken_asks_for_no_new_derivative(setup: Setup, lane: Lane, observe: Observe) -> None:
    bound, parameters = bound_of(setup, observe), setup.parameters
    solve_together(bound, parameters, [lane])
    # Damped so much that no step can be told from none in float32.
    found = lane.solution
    again = Lane(lane.problem, found.theta, 0.0, 60, found.model, found.jacobian, damping=1e7, growth=1.0)
    proceed(bound, parameters, [again])
    assert again.iterations > 1
    assert np.array_equal(again.theta, found.theta)
    assert not again.done
    assert not again.stale
    assert again.since == 0
