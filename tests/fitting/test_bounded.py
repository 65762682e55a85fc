"""The bounded step: as good as an active-set method of SciPy, on problems that are hard for one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import lsq_linear

from starpayne.fitting.bounded import bounded_step

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
