"""A forecast says, before there is a spectrum, what a fit of it will state; and it says where that comes from."""

from __future__ import annotations

import numpy as np
import pytest
from known_star import RESOLUTION, SPACE, TRUTH

from starpayne.errors import LabelError, SpectrumError
from starpayne.fitting import FitOptions, fit
from starpayne.fitting.forecast import Forecast, expected_spectrum, forecast
from starpayne.fitting.setup import Setup
from starpayne.inside.windows import Linear, best_windows, edges, per_window, places
from starpayne.wavelengths import log_grid

STAR = dict(zip(SPACE.names, TRUTH.tolist(), strict=True))
PIXELS = log_grid(4998.0, 5062.0, 3 * RESOLUTION)
"""Those of the other tests' star: what is compiled for it serves here too."""


def seen(model, options: FitOptions | None = None, **motions: float) -> Forecast:
    spectrum = expected_spectrum(model, PIXELS, RESOLUTION, STAR, 100.0, **motions)
    return forecast(spectrum, Setup(model, options or FitOptions()), RESOLUTION, STAR, **motions)


@pytest.fixture(scope="module")
def star(with_residuals) -> Forecast:
    return seen(with_residuals, vsini=8.0)


def test_the_errors_of_a_fit_are_those_of_the_forecast(with_residuals, star) -> None:
    spectrum = expected_spectrum(with_residuals, PIXELS, RESOLUTION, STAR, 100.0, vsini=8.0)
    result = fit(spectrum, with_residuals, RESOLUTION)
    stated = result.errors | {"rv": result.rv_error, "vsini": result.vsini_error}
    assert stated == pytest.approx(star.errors(), rel=0.02)


def test_the_errors_of_a_fit_of_a_noisy_star_are_those_of_its_forecast(with_residuals, observe) -> None:
    spectrum = observe(seed=4)
    before = forecast(spectrum, Setup(with_residuals, FitOptions()), RESOLUTION, STAR, vsini=8.0)
    result = fit(spectrum, with_residuals, RESOLUTION)
    stated = {name: result.errors[name] for name in result.names if name in STAR}
    # The fit takes its derivatives where it ends, off by the noise, and a reduced χ² above 1 widens its errors.
    assert stated == pytest.approx({name: before.errors()[name] for name in stated}, rel=0.1)
    off = np.array([(result.labels[name] - STAR[name]) / before.errors()[name] for name in stated])
    assert np.sum(off**2) < 20


def test_what_is_known_makes_errors_smaller(with_residuals, star) -> None:
    full, photons = star.errors(), star.errors(emulator_error=False)
    known = star.errors(known_continuum=True)
    both = star.errors(emulator_error=False, known_continuum=True)
    prior = seen(with_residuals, FitOptions(prior={"teff": (5600.0, 5.0)}), vsini=8.0).errors()
    for name in star.names:
        assert both[name] <= min(photons[name], known[name]) * 1.0001
        assert max(photons[name], known[name]) < full[name]
        assert prior[name] <= full[name] * 1.0001
    assert prior["teff"] == pytest.approx((full["teff"] ** -2 + 5.0**-2) ** -0.5, rel=0.02)


def test_errors_fall_as_one_over_the_signal_to_noise_ratio(star_model) -> None:
    setup = Setup(star_model, FitOptions())
    few, many = (
        forecast(expected_spectrum(star_model, PIXELS, RESOLUTION, STAR, snr), setup, RESOLUTION, STAR, vsini=8.0)
        for snr in (100.0, 400.0)
    )
    assert {k: v / 4 for k, v in few.bounds().items()} == pytest.approx(many.bounds(), rel=1e-3)


def test_the_bound_is_that_of_plain_least_squares(star_model) -> None:
    """Photon noise, continuum known: the textbook formula, with derivatives by finite differences."""
    options = FitOptions(rv=0.0, vsini=8.0)
    found = seen(star_model, options, vsini=8.0)
    steps = dict(zip(SPACE.names, (20.0, 0.05, 0.03, 0.02, 0.02), strict=True))
    used = np.isin(PIXELS, found.descent.scene.star.own_wavelength[found.descent.plan.used])
    columns = []
    for name, step in steps.items():
        above, below = (
            expected_spectrum(star_model, PIXELS, RESOLUTION, STAR | {name: STAR[name] + s}, 100.0, vsini=8.0).flux
            for s in (step, -step)
        )
        columns.append((above - below)[used] / (2 * step) * 100)
    design = np.array(columns).T
    textbook = np.sqrt(np.diag(np.linalg.inv(design.T @ design)))
    assert list(found.bounds(known_continuum=True).values()) == pytest.approx(textbook, rel=0.02)


def test_sums_over_windows_are_the_forecast(star) -> None:
    linear = Linear.of(star)
    assert linear.covariance == pytest.approx(star.covariance(), rel=1e-4)
    own = star.descent.scene.star.own_wavelength
    bounds = edges(own[0], own[-1], 2.0)
    normal = per_window(linear, places(own, bounds), len(bounds) - 1)
    assert normal.sum(axis=0) == pytest.approx(linear.design.T @ linear.design)
    chosen = best_windows(linear, normal, 0, 100)
    assert np.all(np.diff(chosen.errors) < 1e-9)
    assert chosen.errors[-1] == pytest.approx(star.errors()["teff"], rel=1e-3)
    assert len(set(chosen.order)) == len(chosen.order)


def test_values_held_elsewhere_than_the_star_has_them_are_refused(star_model) -> None:
    with pytest.raises(LabelError, match=r"alpha_fe is fixed at 0 but the star has 0.15: fix it there"):
        seen(star_model, FitOptions(fix={"alpha_fe": 0.0}))
    with pytest.raises(SpectrumError, match=r"vsini is fixed at 3 km/s but the star has 8"):
        seen(star_model, FitOptions(vsini=3.0), vsini=8.0)
