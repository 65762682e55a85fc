"""Fits of stars made by the emulator itself: what comes back, with which errors, and what is said about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_star import RESOLUTION, SPACE, TRUTH

from starpayne.bundle import Model
from starpayne.errors import LabelError, SpectrumError
from starpayne.fitting import FitOptions, FitResult, fit, fit_many
from starpayne.spectra import ObservedSpectrum
from starpayne.wavelengths import air_to_vacuum

Observe = Callable[..., ObservedSpectrum]


def pulls(result: FitResult, rv: float, vsini: float, truth: np.ndarray = TRUTH) -> np.ndarray:
    labels = [(result.labels[n] - t) / result.errors[n] for n, t in zip(SPACE.names, truth, strict=True)]
    return np.array([*labels, (result.rv - rv) / result.rv_error, (result.vsini - vsini) / result.vsini_error])


@pytest.fixture(scope="module")
def result(star_model: Model, observe: Observe) -> FitResult:
    return fit(observe(rv=31.0), star_model, RESOLUTION)


def test_a_star_is_recovered_without_a_guess(result: FitResult) -> None:
    assert np.all(np.abs(pulls(result, 31.0, 8.0)) < 4)
    assert result.flags == ("emulator_error_unknown",)
    assert result.reduced_chi2 == pytest.approx(1.0, abs=0.1)
    assert result.jitter == 0
    assert result.snr == pytest.approx(99, abs=3)


@pytest.mark.parametrize(("rv", "vsini"), [(-420.0, 3.0), (333.0, 60.0)])
def test_any_velocity_is_found(star_model: Model, observe: Observe, rv: float, vsini: float) -> None:
    result = fit(observe(rv=rv, vsini=vsini, snr=60), star_model, RESOLUTION)
    assert np.all(np.abs(pulls(result, rv, vsini)[-2:]) < 4)
    assert abs(pulls(result, rv, vsini)[0]) < 4


@pytest.mark.slow
def test_errors_are_as_large_as_they_say(with_residuals: Model, observe: Observe) -> None:
    """Thirty draws of photon noise and of the emulator's error."""
    random = np.random.default_rng(1)
    residuals = with_residuals.residuals
    assert residuals is not None
    errors = random.normal(0, 1, (30, len(residuals.modes))) @ residuals.modes
    spectra = [observe(rv=12.0, vsini=15.0, snr=150, seed=seed, extra=extra) for seed, extra in enumerate(errors)]
    # What `fit` gives each: as of one run, they share the templates of the search.
    results = list(fit_many(spectra, with_residuals, RESOLUTION, at_once=1))
    drawn = np.array([pulls(result, 12.0, 15.0) for result in results if isinstance(result, FitResult)])
    assert len(drawn) == 30
    # The mean of 30 draws scatters by 0.18, their standard deviation by 0.13.
    assert np.all(np.abs(drawn.mean(axis=0)) < 0.75)
    assert np.all(drawn.std(axis=0) < 1.45)
    assert np.all(drawn.std(axis=0) > 0.55)


def test_a_star_after_another_compiles_nothing(
    result: FitResult, star_model: Model, observe: Observe, caplog: pytest.LogCaptureFixture
) -> None:
    spectrum = observe(rv=31.0)
    with jax.log_compiles():
        again = fit(spectrum, star_model, RESOLUTION)
    assert [record.getMessage() for record in caplog.records if "ompil" in record.getMessage()] == []
    assert again.labels == result.labels


def test_emulator_error_widens_the_errors(star_model: Model, with_residuals: Model, observe: Observe) -> None:
    spectrum = observe(snr=1000)
    one, other = (fit(spectrum, m, RESOLUTION) for m in (star_model, with_residuals))
    assert other.errors["teff"] > 1.1 * one.errors["teff"]
    ignored = fit(spectrum, with_residuals, RESOLUTION, FitOptions(emulator_error=False))
    assert ignored.errors["teff"] == pytest.approx(one.errors["teff"], rel=1e-3)


def test_the_result_is_plain_json_data(result: FitResult) -> None:
    data = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert {"file", "labels", "rv", "vsini", "chi2", "flags"} <= set(data)
    assert data["file"] == "star"
    assert set(data["labels"]) == set(SPACE.names)
    assert set(data["labels"]["teff"]) == {"value", "error", "raw_error"}


def test_curves_for_a_figure(result: FitResult) -> None:
    used = result.used
    scaled = result.residual[used] / result.error[used]
    assert np.std(scaled) == pytest.approx(1.0, abs=0.1)
    np.testing.assert_allclose(result.model[used] / result.continuum[used], 1, atol=0.95)
    assert result.covariance.shape == (len(result.names),) * 2
    assert np.all(np.abs(result.correlation) <= 1 + 1e-9)


def test_fixed_values_stay_and_have_no_error(star_model: Model, observe: Observe) -> None:
    fixed = {"alpha_fe": 0.15, "mg_fe": 0.3}
    options = FitOptions(fix=fixed, vsini=8.0, rv=0.0)
    result = fit(observe(), star_model, RESOLUTION, options)
    assert {n: result.labels[n] for n in fixed} == fixed
    assert result.errors["mg_fe"] == 0
    assert (result.rv, result.rv_error, result.vsini, result.vsini_error) == (0.0, 0.0, 8.0, 0.0)
    assert result.names == ("teff", "logg", "feh")
    assert abs(result.labels["teff"] - TRUTH[0]) < 4 * result.errors["teff"]


def test_velocity_alone_can_be_fitted(star_model: Model, observe: Observe) -> None:
    known = dict(zip(SPACE.names, TRUTH, strict=True))
    result = fit(observe(rv=-77.0), star_model, RESOLUTION, FitOptions(fix=known))
    assert result.names == ("rv", "vsini")
    assert abs(result.rv + 77.0) < 4 * result.rv_error


def test_gaussian_broadening_can_be_fitted(star_model: Model, observe: Observe) -> None:
    result = fit(observe(vsini=0.0), star_model, RESOLUTION, FitOptions(vsini=0.0, broadening=None))
    assert result.broadening < 3 * result.broadening_error + 1.0
    assert result.names[-1] == "broadening"


def test_a_star_that_does_not_rotate_has_an_upper_limit(star_model: Model, observe: Observe) -> None:
    results = [fit(observe(vsini=0.0, seed=seed), star_model, RESOLUTION) for seed in range(4)]
    at_bound = [r for r in results if r.vsini == 0]
    assert at_bound
    assert all("at_bound:vsini" in r.flags and 0 < r.vsini_error < 10 for r in at_bound)


def test_a_star_outside_the_table_ends_at_its_bound(star_model: Model, observe: Observe) -> None:
    hot = TRUTH.copy()
    hot[0] = 7150.0
    result = fit(observe(hot), star_model, RESOLUTION)
    assert "at_bound:teff" in result.flags
    assert result.labels["teff"] == pytest.approx(7000.0)


def test_what_the_spectrum_does_not_say_is_flagged(star_model: Model, observe: Observe) -> None:
    result = fit(observe(snr=2), star_model, RESOLUTION, FitOptions(rv=0.0))
    flagged = [n for n in SPACE.names if f"unconstrained:{n}" in result.flags]
    assert flagged
    for name in SPACE.names:
        if name not in flagged:
            assert result.errors[name] < 0.5 * (SPACE[name].high - SPACE[name].low)


def test_a_misfit_is_flagged_and_widens_the_errors(star_model: Model, observe: Observe) -> None:
    x = np.linspace(0, 200, len(star_model.emulator.native_wavelength))
    spectrum = observe(snr=300, extra=0.02 * np.sin(x) * (np.sin(0.31 * x) > 0))
    result = fit(spectrum, star_model, RESOLUTION)
    assert "poor_fit" in result.flags
    assert 0.002 < result.jitter < 0.03
    raw = np.sqrt(np.diag(result.raw_covariance))
    assert np.all(np.sqrt(np.diag(result.covariance)) > 1.5 * raw)
    scaled = fit(spectrum, star_model, RESOLUTION, FitOptions(jitter=False))
    assert scaled.jitter == 0
    assert scaled.errors["teff"] == pytest.approx(np.sqrt(scaled.raw_covariance[0, 0] * scaled.reduced_chi2), rel=0.01)


def test_cosmic_rays_do_little(star_model: Model, observe: Observe) -> None:
    clean = observe()
    hit = clean.flux.copy()
    hit[np.random.default_rng(2).integers(50, len(hit) - 50, 12)] *= 3
    result = fit(replace(clean, flux=hit), star_model, RESOLUTION)
    assert np.all(np.abs(pulls(result, 0.0, 8.0)) < 4)


def test_without_errors_the_scatter_is_the_error(star_model: Model, observe: Observe) -> None:
    known = fit(observe(snr=80), star_model, RESOLUTION)
    result = fit(replace(observe(snr=80), error=None), star_model, RESOLUTION)
    assert "no_errors" in result.flags
    assert result.errors["teff"] == pytest.approx(known.errors["teff"], rel=0.4)
    assert result.snr == pytest.approx(known.snr, rel=0.3)


def test_medium_is_converted_or_said_to_be_assumed(star_model: Model, observe: Observe) -> None:
    air = observe(rv=20.0)
    vacuum = replace(air, wavelength=air_to_vacuum(air.wavelength), medium="vacuum")
    one, other = (fit(s, star_model, RESOLUTION) for s in (air, vacuum))
    assert other.rv == pytest.approx(one.rv, abs=0.05)
    assert other.labels["teff"] == pytest.approx(one.labels["teff"], abs=0.2 * one.errors["teff"])
    unsaid = fit(replace(air, medium=None), star_model, RESOLUTION)
    assert unsaid.flags == ("medium_assumed", "emulator_error_unknown")
    stated = fit(replace(air, medium=None), star_model, RESOLUTION, FitOptions(medium="air", emulator_error=False))
    assert stated.flags == ()


def test_masked_and_nan_pixels_do_not_count(star_model: Model, observe: Observe) -> None:
    clean = observe()
    bad = clean.flux.copy()
    ruined = (clean.wavelength > 5020) & (clean.wavelength < 5024)
    bad[ruined] = 5000.0
    bad[400:410] = np.nan
    spectrum = replace(clean, flux=bad)
    result = fit(spectrum, star_model, RESOLUTION, FitOptions(mask=((5020.0, 5024.0),)))
    assert "masked_nan" in result.flags
    assert not result.used[(result.wavelength > 5020) & (result.wavelength < 5024)].any()
    assert np.all(np.abs(pulls(result, 0.0, 8.0)) < 4)
    assert result.reduced_chi2 == pytest.approx(1.0, abs=0.1)


def test_the_window_limits_the_pixels(star_model: Model, observe: Observe) -> None:
    result = fit(observe(), star_model, RESOLUTION, FitOptions(window=(5010.0, 5045.0)))
    assert result.wavelength[0] >= 5010
    assert result.wavelength[-1] <= 5045


def test_the_emulators_flags_are_passed_on(star_model: Model, observe: Observe) -> None:
    cool = np.array([4700.0, 3.6, -0.2, 0.15, 0.3])
    assert "no_molecules_below_5000_K" in fit(observe(cool), star_model, RESOLUTION).flags


@pytest.mark.parametrize("with_errors", [False, True])
def test_an_emulator_that_breaks_is_a_flag(
    with_errors: bool, star_model: Model, with_residuals: Model, observe: Observe
) -> None:
    broken = eqx.tree_at(
        lambda e: e.biases[-1], star_model.emulator, jnp.full_like(star_model.emulator.biases[-1], jnp.nan)
    )
    model = replace(with_residuals if with_errors else star_model, emulator=broken)
    result = fit(observe(), model, RESOLUTION)
    assert "failed" in result.flags
    assert result.to_dict()["labels"]["teff"] == {"value": None, "error": None, "raw_error": None}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (FitOptions(mask=((4000.0, 6000.0),)), "star: every pixel between .* Å is masked: nothing to fit"),
        (FitOptions(window=(5030.0, 5030.3)), "star: 4 pixels are left for 12 parameters; fix labels, give"),
        (
            FitOptions(window=(6030.0, 6040.0)),
            "star: the window 6030 to 6040 Å holds no pixel that the model, 5000.00 to",
        ),
    ],
)
def test_spectra_that_cannot_be_fitted(star_model: Model, observe: Observe, options: FitOptions, text: str) -> None:
    with pytest.raises(SpectrumError, match=text):
        fit(observe(), star_model, RESOLUTION, options)


def test_too_little_overlap_prints_both_ranges(star_model: Model, observe: Observe) -> None:
    spectrum = observe()
    aside = replace(spectrum, wavelength=spectrum.wavelength - 45.0)
    with pytest.raises(SpectrumError, match=r"% of the range can be used .* 5000.00 to 5059.94 Å"):
        fit(aside, star_model, RESOLUTION)


def test_resolutions_that_cannot_be(star_model: Model, observe: Observe) -> None:
    with pytest.raises(SpectrumError, match="resolution = 47000 is above half the sampling of the model, 30000"):
        fit(observe(), star_model, 47_000)
    with pytest.raises(SpectrumError, match=r"resolution has shape \(3,\), the spectrum"):
        fit(observe(), star_model, np.full(3, 2e4))


def test_options_are_checked(star_model: Model, observe: Observe) -> None:
    with pytest.raises(LabelError, match="unknown label 'tef'; did you mean 'teff'"):
        fit(observe(), star_model, RESOLUTION, FitOptions(fix={"tef": 5000.0}))
    with pytest.raises(SpectrumError, match="vsini = -1 is outside the range 0 to 200"):
        FitOptions(vsini=-1.0)
    with pytest.raises(SpectrumError, match="the range 5 to 4 must have its lower end first"):
        FitOptions(window=(5.0, 4.0))
