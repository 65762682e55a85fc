"""Many stars at once: the same results as one by one, in order, whatever happens to some of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from known_star import RESOLUTION, SPACE, TRUTH

from starpayne.bundle import Model
from starpayne.errors import LabelError, SpectrumError
from starpayne.fitting import FitOptions, FitResult, ResolutionCurve, TabulatedProfile, fit, fit_many
from starpayne.fitting.following import follow
from starpayne.fitting.observation import Observation
from starpayne.fitting.plan import Plan
from starpayne.fitting.problem import Descent, Scene
from starpayne.fitting.resolution import FWHM
from starpayne.fitting.setup import Setup
from starpayne.spectra import ObservedSpectrum
from starpayne.wavelengths import SPEED_OF_LIGHT

Observe = Callable[..., ObservedSpectrum]


def test_each_star_gets_what_it_would_get_alone(with_residuals: Model, observe: Observe) -> None:
    spectra = [observe(rv=25.0 * i, vsini=5.0 + 3 * i, seed=i, name=f"star {i}") for i in range(6)]
    together = list(fit_many(spectra, with_residuals, RESOLUTION, at_once=4))
    for i, result in enumerate(together):
        assert isinstance(result, FitResult)
        assert result.name == f"star {i}"
        if i in (0, 5):
            alone = fit(spectra[i], with_residuals, RESOLUTION)
            for name in SPACE.names:
                # Both end within a tenth of a standard deviation of the minimum.
                assert abs(result.labels[name] - alone.labels[name]) < 0.2 * alone.errors[name]
                assert result.errors[name] == pytest.approx(alone.errors[name], rel=0.1)
            assert result.chi2 == pytest.approx(alone.chi2, abs=0.2)


def test_a_star_that_cannot_be_fitted_does_not_stop_the_others(star_model: Model, observe: Observe) -> None:
    def missing() -> ObservedSpectrum:
        raise SpectrumError("no such file")

    far = ObservedSpectrum(np.linspace(8000, 8100, 500), np.ones(500), np.full(500, 0.01), medium="air", name="far")
    good = observe(name="good")
    outcomes = list(fit_many([missing, good, far, good], star_model, RESOLUTION, at_once=2))
    assert [isinstance(outcome, FitResult) for outcome in outcomes] == [False, True, False, True]
    assert str(outcomes[0]) == "no such file"
    assert "does not overlap the model, 5000.00 to 50" in str(outcomes[2])


def test_a_star_that_breaks_the_algebra_does_not_stop_the_others(
    star_model: Model, observe: Observe, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Scene.of

    def broken(star: Observation, plan: Plan, setup: Setup) -> Scene:
        if star.name == "odd":
            raise np.linalg.LinAlgError("Singular matrix")
        return real(star, plan, setup)

    monkeypatch.setattr(Scene, "of", broken)
    outcomes = list(fit_many([observe(name="odd"), observe(name="good")], star_model, RESOLUTION))
    assert str(outcomes[0]) == "odd: the fit broke down numerically (Singular matrix)"
    assert isinstance(outcomes[1], FitResult)


def test_a_result_that_breaks_the_algebra_does_not_stop_the_others(star_model: Model, observe: Observe) -> None:
    def finish(descent: Descent) -> str:
        if descent.scene.star.name == "bad":
            raise np.linalg.LinAlgError("Singular matrix")
        return descent.scene.star.name

    spectra = [observe(name=name) for name in ("first", "bad", "last")]
    outcomes = list(follow(spectra, RESOLUTION, Setup(star_model, FitOptions()), finish, at_once=3))
    assert outcomes[::2] == ["first", "last"]
    assert isinstance(outcomes[1], SpectrumError)
    assert str(outcomes[1]) == "bad: the fit broke down numerically (Singular matrix)"


def test_spectra_are_taken_as_others_are_finished(star_model: Model, observe: Observe) -> None:
    taken = []

    def readers() -> Iterator[Callable[[], ObservedSpectrum]]:
        for i in range(20):
            taken.append(i)
            yield lambda i=i: observe(seed=i)

    fixed = FitOptions(fix=dict(zip(SPACE.names, TRUTH, strict=True)), rv=0.0, vsini=8.0)
    results = fit_many(readers(), star_model, RESOLUTION, fixed, at_once=3)
    assert taken == []
    next(results)
    assert len(taken) <= 3 * 5
    assert len(list(results)) == 19


@pytest.mark.parametrize("at_once", [0, 1])
def test_one_star_at_a_time_is_the_least(star_model: Model, observe: Observe, at_once: int) -> None:
    outcomes = list(fit_many([observe(name="a"), observe(name="b")], star_model, RESOLUTION, at_once=at_once))
    assert [outcome.name for outcome in outcomes if isinstance(outcome, FitResult)] == ["a", "b"]


def test_a_bending_continuum_of_which_half_is_masked_is_fitted(star_model: Model, observe: Observe) -> None:
    options = FitOptions(continuum_degree=12, mask=((5032.0, 5070.0),))
    (result,) = fit_many([observe()], star_model, RESOLUTION, options)
    assert isinstance(result, FitResult)
    assert "failed" not in result.flags
    assert abs(result.labels["teff"] - TRUTH[0]) < 4 * result.errors["teff"]


def test_options_that_suit_no_star_are_refused_at_once(star_model: Model) -> None:
    with pytest.raises(
        LabelError, match="bounds 4000 to 6000 of teff must lie within those of the model, 4500 to 7000"
    ):
        fit_many([], star_model, RESOLUTION, FitOptions(bounds={"teff": (4000, 6000)}))
    with pytest.raises(LabelError, match="labels with a prior: unknown label 'tef'"):
        fit_many([], star_model, RESOLUTION, FitOptions(prior={"tef": (5000, 100)}))
    with pytest.raises(LabelError, match=r"mg_fe is fixed at 0\.1: it has no bounds"):
        fit_many([], star_model, RESOLUTION, FitOptions(fix={"mg_fe": 0.1}, bounds={"mg_fe": (0, 0.2)}))


@pytest.mark.parametrize(
    ("choices", "text"),
    [
        ({"bounds": {"teff": (6000, 5000)}}, "bounds of teff: 6000 to 5000 must have the lower end first"),
        ({"bounds": {"vsini": (-1, 5)}}, "bounds of vsini: -1 km/s must not be negative"),
        ({"bounds": {"rv": (-1, 5)}, "rv": 0.0}, "rv is fixed at 0 km/s: it has no bounds"),
        ({"prior": {"teff": (5000, 0)}}, "prior of teff: 5000 ± 0 must be finite, and the standard deviation positive"),
        ({"prior": {"teff": (5000, 10)}, "fix": {"teff": 5000}}, "teff is fixed: it cannot have a prior"),
    ],
)
def test_impossible_bounds_and_priors(choices: dict, text: str) -> None:
    with pytest.raises(SpectrumError, match=text):
        FitOptions(**choices)


def test_bounds_hold(star_model: Model, observe: Observe) -> None:
    bounds = {"teff": (5700.0, 6500.0), "vsini": (10.0, 20.0), "rv": (-50.0, 50.0)}
    result = fit(observe(), star_model, RESOLUTION, FitOptions(bounds=bounds))
    assert result.labels["teff"] == pytest.approx(5700.0)
    assert result.vsini == pytest.approx(10.0, abs=1e-3)
    assert {"at_bound:teff", "at_bound:vsini"} <= set(result.flags)


def test_bounds_may_be_wider_than_the_default_ranges(star_model: Model, observe: Observe) -> None:
    bounds = {"rv": (550.0, 700.0), "vsini": (0.0, 300.0)}
    result = fit(observe(rv=620.0, vsini=240.0, snr=400), star_model, RESOLUTION, FitOptions(bounds=bounds))
    assert result.rv == pytest.approx(620.0, abs=4 * result.rv_error)
    assert result.vsini == pytest.approx(240.0, abs=4 * result.vsini_error)


def test_a_prior_and_the_data_meet_in_the_middle(star_model: Model, observe: Observe) -> None:
    spectrum = observe(snr=40)
    free = fit(spectrum, star_model, RESOLUTION)
    sigma, value = free.errors["logg"], free.labels["logg"]
    result = fit(spectrum, star_model, RESOLUTION, FitOptions(prior={"logg": (value - 2 * sigma, sigma)}))
    # Two Gaussians of one width: their product lies between them and is narrower by √2.
    assert result.labels["logg"] == pytest.approx(value - sigma, abs=0.25 * sigma)
    assert result.errors["logg"] == pytest.approx(sigma / np.sqrt(2), rel=0.15)
    rv = fit(spectrum, star_model, RESOLUTION, FitOptions(prior={"rv": (free.rv - 2 * free.rv_error, free.rv_error)}))
    assert rv.rv == pytest.approx(free.rv - free.rv_error, abs=0.25 * free.rv_error)
    held = fit(spectrum, star_model, RESOLUTION, FitOptions(prior={"vsini": (12.0, 0.01)}))
    assert held.vsini == pytest.approx(12.0, abs=0.05)


def test_a_prior_does_not_make_a_label_constrained(star_model: Model, observe: Observe) -> None:
    options = FitOptions(rv=0.0, prior={"alpha_fe": (0.2, 0.01)})
    result = fit(observe(snr=2), star_model, RESOLUTION, options)
    assert "unconstrained:alpha_fe" in result.flags
    assert result.labels["alpha_fe"] == pytest.approx(0.2, abs=0.02)
    assert result.errors["alpha_fe"] == pytest.approx(0.01, rel=0.1)


def test_resolutions_given_in_three_ways_agree(star_model: Model, observe: Observe) -> None:
    spectrum = observe()
    plain = fit(spectrum, star_model, RESOLUTION)
    curve = fit(spectrum, star_model, ResolutionCurve(np.array([4900, 5100]), np.array([RESOLUTION, RESOLUTION + 0.1])))
    sigma = SPEED_OF_LIGHT / RESOLUTION / FWHM
    velocity = np.linspace(-6 * sigma, 6 * sigma, 241)
    table = fit(spectrum, star_model, TabulatedProfile(velocity, np.exp(-0.5 * (velocity / sigma) ** 2)))
    for name in SPACE.names:
        assert abs(curve.labels[name] - plain.labels[name]) < 0.2 * plain.errors[name]
        # The table reaches further than five standard deviations: some pixels less at either end.
        assert abs(table.labels[name] - plain.labels[name]) < 0.5 * plain.errors[name]
    wrong = fit(spectrum, star_model, ResolutionCurve(np.array([4900.0, 5100.0]), np.array([10_000.0, 12_000.0])))
    assert wrong.reduced_chi2 > 1.3 * plain.reduced_chi2


def test_each_segment_has_a_continuum_of_its_own(star_model: Model, observe: Observe) -> None:
    spectrum = observe(snr=200)
    step = np.where(spectrum.wavelength < 5030, 1.0, 1.4)
    broken = replace(spectrum, flux=spectrum.flux * step, error=spectrum.error * step)
    one = fit(broken, star_model, RESOLUTION)
    two = fit(broken, star_model, RESOLUTION, FitOptions(segments=((4990.0, 5030.0), (5030.0, 5070.0))))
    assert two.reduced_chi2 < 1.2 < one.reduced_chi2
    assert abs(two.labels["teff"] - TRUTH[0]) < 4 * two.errors["teff"]
    wavy = replace(spectrum, flux=spectrum.flux * (1 + 0.05 * np.sin(spectrum.wavelength / 3)))
    assert fit(wavy, star_model, RESOLUTION, FitOptions(continuum_knots=4.0)).reduced_chi2 < 1.2
    assert fit(wavy, star_model, RESOLUTION).reduced_chi2 > 2
