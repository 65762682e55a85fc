"""What is asked of a descent that has ended: whether there is more to gain, and what noise its residuals show."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from known_star import RESOLUTION
from scipy.optimize import lsq_linear

from starpayne.bundle import Model
from starpayne.fitting import FitOptions
from starpayne.fitting.many import follow
from starpayne.fitting.noise import estimate
from starpayne.fitting.problem import Descent
from starpayne.fitting.projection import whitened_in_float64
from starpayne.fitting.setup import Setup
from starpayne.fitting.statistics import degrees_of_freedom, noise_for, to_gain
from starpayne.spectra import ObservedSpectrum


@pytest.mark.parametrize("mixed", [False, True], ids=["as they come", "mixed"])
@pytest.mark.parametrize("alike", [0, 5])
def test_what_is_left_to_gain_is_what_the_best_step_in_the_cube_gains(
    mixed: bool, alike: int, random: np.random.Generator
) -> None:
    for _ in range(50):
        p = 17
        jacobian = random.normal(size=(60, p)) * 10 ** random.uniform(-2, 1, p)
        if mixed:
            jacobian = jacobian @ (np.eye(p) + random.normal(size=(p, p)))
        # Parameters that the data cannot tell apart at all.
        jacobian[:, :alike] = jacobian[:, -alike:][:, :alike]
        residual, theta = 3 * random.normal(size=60), np.clip(random.uniform(-0.2, 1.2, p), 0, 1)
        ends = -theta - 1e-12, 1 - theta + 1e-12
        best = lsq_linear(jacobian, -residual, ends, method="bvls", tol=1e-14, max_iter=1000).x
        gain = residual @ residual - np.sum((jacobian @ best + residual) ** 2)
        found = to_gain(jacobian.T @ residual, jacobian.T @ jacobian, theta)
        assert found == pytest.approx(gain, rel=1e-5, abs=1e-6)


def test_nothing_is_left_to_gain_without_parameters() -> None:
    assert to_gain(np.zeros(0), np.zeros((0, 0)), np.zeros(0)) == 0.0


@pytest.mark.parametrize("misfit", [0.0, 0.03])
def test_noise_is_what_the_whitened_residuals_show(
    with_residuals: Model, observe: Callable[..., ObservedSpectrum], misfit: float, random: np.random.Generator
) -> None:
    """Where χ² says that there is none, nothing is estimated: it must be as if it were."""
    setup = Setup(with_residuals, FitOptions(jitter=False))
    extra = misfit * random.normal(size=len(with_residuals.emulator.native_wavelength))
    descents = list(
        follow([observe(seed=seed, extra=extra) for seed in range(4)], RESOLUTION, setup, lambda descent: descent)
    )
    for descent in descents:
        assert isinstance(descent, Descent)
        freedom, used = degrees_of_freedom(descent, len(setup.parameters)), descent.scene.used
        w = np.asarray(descent.problem.inverse_error, np.float64)[used]
        residual = whitened_in_float64(descent.problem, descent.solved.residual)[used] / w
        wanted = estimate(residual, w**-2.0, freedom, True)
        assert noise_for(descent, len(setup.parameters), True).jitter == wanted.jitter
        assert (wanted.jitter > 0) == (misfit > 0)
