"""The bounded step: as good as an active-set method of SciPy, on problems that are hard for one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import lsq_linear

from starpayne.fitting.bounded import best_step, bounded_step, gain_of

step_of = jax.jit(bounded_step)


@pytest.mark.parametrize(("spread", "alike"), [(1.0, 0), (100.0, 0), (1.0, 5)])
def test_step_gains_what_the_best_bounded_step_gains(spread: float, alike: int, random: np.random.Generator) -> None:
    for _ in range(20):
        p = 17
        # Correlated columns of very different sizes, and several parameters on a bound at the start.
        matrix = random.normal(size=(60, p)) @ (np.eye(p) + 0.4 * random.normal(size=(p, p)))
        matrix = matrix * np.geomspace(1, spread, p)
        # Parameters that the data cannot tell apart at all.
        matrix[:, :alike] = matrix[:, -alike:][:, :alike]
        theta = np.clip(random.uniform(-0.3, 1.3, p), 0, 1)
        residual = random.normal(size=60) * spread
        best = lsq_linear(matrix, -residual, (-theta - 1e-12, 1 - theta + 1e-12), method="bvls").x
        gain = residual @ residual - np.sum((matrix @ best + residual) ** 2)
        step, expected = step_of(
            jnp.asarray(matrix.T @ matrix, jnp.float32), jnp.asarray(matrix.T @ residual, jnp.float32),
            jnp.asarray(theta, jnp.float32), 1e-6,
        )  # fmt: skip
        inside = theta + np.asarray(step)
        assert inside.min() > -1e-6
        assert inside.max() < 1 + 1e-6
        assert float(expected) == pytest.approx(gain, rel=0.02)


def test_no_step_leads_uphill_where_every_parameter_is_held() -> None:
    step, expected = step_of(jnp.eye(3), jnp.ones(3), jnp.zeros(3), 1e-3)
    assert np.all(np.asarray(step) == 0)
    assert float(expected) == 0


def test_step_gains_most_of_it_where_pivoting_goes_round_in_circles(random: np.random.Generator) -> None:
    """Data that hardly tell parameters apart: the curvature along some is ten million times that along others."""
    p = 17
    for _ in range(20):
        along = np.linalg.qr(random.normal(size=(p, p)))[0]
        matrix = np.linalg.qr(random.normal(size=(60, p)))[0] * np.geomspace(30, 0.01, p) @ along
        theta, residual = np.clip(random.uniform(-0.3, 1.3, p), 0, 1), 10 * random.normal(size=60)
        ends = -theta - 1e-12, 1 - theta + 1e-12
        best = lsq_linear(matrix, -residual, ends, method="bvls", tol=1e-14, max_iter=1000).x
        gain = residual @ residual - np.sum((matrix @ best + residual) ** 2)
        step, _ = step_of(
            jnp.asarray(matrix.T @ matrix, jnp.float32), jnp.asarray(matrix.T @ residual, jnp.float32),
            jnp.asarray(theta, jnp.float32), 1e-6,
        )  # fmt: skip
        found = residual @ residual - np.sum((matrix @ np.asarray(step, np.float64) + residual) ** 2)
        assert found > 0.7 * gain


def test_a_step_is_found_where_the_second_derivative_is_not_definite() -> None:
    """As an update by the secant, rounded, may leave it."""
    hessian = jnp.array([[1, 1.01, 0], [1.01, 1, 0], [0, 0, 1]])
    step, expected = step_of(hessian, jnp.full(3, 0.1), jnp.full(3, 0.5), 1e-6)
    assert float(expected) > 0.01
    assert np.all(np.asarray(step) < 0)


def test_parameters_that_the_data_cannot_tell_apart_break_no_judgement(random: np.random.Generator) -> None:
    for _ in range(300):
        matrix = random.normal(size=(200, 17)) * 10 ** random.uniform(-2, 1, 17)
        matrix[:, 3] = matrix[:, 8]
        theta, residual = random.uniform(0, 1, 17), random.normal(size=200)
        normal = matrix.T @ matrix, matrix.T @ residual
        step = best_step(*normal, theta)
        assert np.all(np.abs(theta + step - 0.5) < 0.5 + 1e-8)
        assert gain_of(step, *normal) > 0
