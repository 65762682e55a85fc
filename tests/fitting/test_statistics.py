"""What is asked of a descent that has ended: whether there is more to gain, and what noise its residuals show."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import pytest
from known_star import RESOLUTION
from scipy.optimize import lsq_linear

from starpayne import load
from starpayne.bundle import Model
from starpayne.fitting import FitOptions, FitResult, ForwardModel, fit_many
from starpayne.fitting.bounded import best_step, gain_of
from starpayne.fitting.course import Course, Request, repair
from starpayne.fitting.course import follow as descents
from starpayne.fitting.following import follow
from starpayne.fitting.lockstep import proceed
from starpayne.fitting.noise import estimate
from starpayne.fitting.problem import Descent, whitener_of
from starpayne.fitting.projection import solved_for, whitened_in_float64
from starpayne.fitting.setup import Setup
from starpayne.fitting.statistics import ahead, converged, degrees_of_freedom, noise_for
from starpayne.spectra import ObservedSpectrum
from starpayne.wavelengths import log_grid


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
        normal = jacobian.T @ jacobian, jacobian.T @ residual
        step = best_step(*normal, theta)
        assert np.all(np.abs(theta + step - 0.5) < 0.5 + 1e-8)
        assert gain_of(step, *normal) == pytest.approx(gain, rel=1e-5, abs=1e-6)


def test_nothing_is_left_to_gain_without_parameters() -> None:
    normal = np.zeros((0, 0)), np.zeros(0)
    assert gain_of(best_step(*normal, np.zeros(0)), *normal) == 0.0


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


def ended(course: Course, setup: Setup) -> Descent:
    """Follow the course of one star alone."""
    while True:
        try:
            asked = course.send(None)
        except StopIteration as end:
            return end.value
        for request in asked:
            assert isinstance(request, Request)
            while not request.done:
                proceed(request.bound, setup.parameters, [request.lane])


def test_a_descent_that_ended_too_early_is_taken_up_again(
    with_residuals: Model, observe: Callable[..., ObservedSpectrum]
) -> None:
    setup = Setup(with_residuals, FitOptions())
    (best,) = follow([observe()], RESOLUTION, setup, lambda descent: descent)
    assert isinstance(best, Descent)
    assert converged(best, setup)
    scene, sight, noise = best.scene, best.sight, best.noise
    away = np.clip(best.theta + 0.02, 0, 1)
    early = ended(descents(scene, sight, noise, away, None, setup, 1e12, 0), setup)
    assert not converged(early, setup)
    left = ahead(early, setup)
    assert left is not None
    again = ended(repair(early, left.step, setup), setup)
    assert converged(again, setup)
    assert again.iterations > early.iterations
    # From the best place there is nowhere to go: it stays, and what was tried is counted.
    stays = ended(repair(again, np.zeros(len(again.theta)), setup), setup)
    assert stays.chi2 <= again.chi2
    assert stays.iterations > again.iterations


@pytest.mark.parametrize(("size", "within"), [(0.1, 1e-7), (10.0, 1e-5), (3e3, 2e-3)])
def test_whitening_is_the_root_of_the_inverse_covariance(
    size: float, within: float, random: np.random.Generator
) -> None:
    modes = (size * random.normal(size=(5, 40)) / np.sqrt(40)).astype(np.float32)
    whitener = whitener_of(modes).astype(np.float64)
    root = np.eye(40) - whitener.T @ whitener
    exact = modes.astype(np.float64)
    covariance = np.eye(40) + exact.T @ exact
    np.testing.assert_allclose(root @ covariance @ root, np.eye(40), atol=within)


def test_a_triangle_that_says_nothing_of_a_direction_is_solved_by_the_shortest() -> None:
    assert solved_for(np.zeros((1, 1)), np.zeros(1)) == 0
    assert solved_for(np.diag([2.0, 0.0]), np.array([4.0, 0.0])).tolist() == [2.0, 0.0]
    assert solved_for(np.array([[2.0, 1.0], [0.0, 1.0]]), np.array([3.0, 1.0])).tolist() == [1.0, 1.0]


def test_long_valleys_are_followed_to_their_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seventeen labels from fifty ångström: seeds of stars that float32 alone leaves in a valley, one in fifty."""
    model = load("mgb_fast")
    domain = model.emulator.domain
    wavelength = log_grid(domain.low, domain.high, domain.sampling)
    forward, usable = ForwardModel.on(model.emulator, wavelength, 40_000)

    def star(seed: int) -> ObservedSpectrum:
        random = np.random.default_rng(seed)
        labels = model.emulator.space.from_cube(random.uniform(0.1, 0.9, len(model.emulator.space)))
        flux = np.asarray(forward(jnp.asarray(labels, jnp.float32), 0.0, 10.0), np.float64)
        error = np.full(len(flux), 0.01)
        return ObservedSpectrum(wavelength, flux + random.normal(0, error), error, usable, domain.medium, f"{seed}")

    stars = [star(seed) for seed in (9, 43, 104, 178, 271, 299, 315, 379)]
    found = list(fit_many(stars, model, 40_000, FitOptions(continuum_degree=4)))
    monkeypatch.setattr("starpayne.fitting.course.REPAIRS", 0)
    left = list(fit_many(stars, model, 40_000, FitOptions(continuum_degree=4)))
    lost = [
        sum("not_converged" in outcome.flags for outcome in outcomes if isinstance(outcome, FitResult))
        for outcomes in (found, left)
    ]
    assert lost[0] <= 1
    assert lost[1] >= 4
    for repaired, unrepaired in zip(found, left, strict=True):
        assert isinstance(repaired, FitResult)
        assert isinstance(unrepaired, FitResult)
        assert repaired.chi2 < unrepaired.chi2 + 0.01
