"""The search for starting values: where it puts a star, for one star and for many in a call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from known_star import RESOLUTION, TRUTH

from starpayne.bundle import Model
from starpayne.fitting import FitOptions, search
from starpayne.fitting.observation import observation
from starpayne.fitting.search import Inquiry, Query, Start
from starpayne.fitting.setup import Setup
from starpayne.spectra import ObservedSpectrum

Observe = Callable[..., ObservedSpectrum]


@pytest.fixture(scope="module")
def setup(star_model: Model) -> Setup:
    return Setup(star_model, FitOptions())


def inquiry(spectrum: ObservedSpectrum, setup: Setup, **changes: object) -> Inquiry:
    star, options = observation(spectrum, RESOLUTION, setup), setup.options
    used = star.used
    query = Query(
        star.wavelength[used], star.flux[used], star.error[used] ** -2.0, star.resolution, star.model_resolution,
        options.rv_limits, options.vsini_limits, options.continuum_degree, options.limb_darkening, options.n_starts,
    )  # fmt: skip
    return setup.searcher(star.grid).about(replace(query, **changes))


def starts(spectrum: ObservedSpectrum, setup: Setup, **changes: object) -> list[Start]:
    asked = inquiry(spectrum, setup, **changes)
    search.search([asked])
    assert asked.starts is not None
    return asked.starts


@pytest.mark.parametrize(("rv", "vsini"), [(0.0, 4.0), (-437.0, 12.0), (283.0, 60.0)])
def test_velocity_and_rotation_are_found(rv: float, vsini: float, setup: Setup, observe: Observe) -> None:
    first = starts(observe(rv=rv, vsini=vsini), setup)[0]
    # A bin is a third of the instrument's width: from there the solver finds its way.
    assert abs(first.rv - rv) < 299_792 / RESOLUTION / 3
    assert 0.5 * vsini <= first.vsini <= 2 * vsini


def test_starts_come_best_first_and_near_the_labels(setup: Setup, observe: Observe) -> None:
    found = starts(observe(rv=20.0), setup)
    assert len(found) == setup.options.n_starts
    assert [start.misfit for start in found] == sorted(start.misfit for start in found)
    labels = setup.parameters.labels.from_cube(np.stack([start.cube for start in found]))
    names = setup.parameters.labels.names
    # The templates stand some hundred kelvins apart.
    assert np.all(np.abs(labels[:, names.index("teff")] - TRUTH[names.index("teff")]) < 600)


def test_the_misfit_is_that_of_least_squares(setup: Setup, observe: Observe) -> None:
    asked = inquiry(observe(rv=0.0), setup, degree=3)
    search.search([asked])
    assert asked.starts is not None
    weight, flux, square, place = asked.star.astype(np.float64)
    best = asked.starts[0]
    step, frame = 299_792.458 * asked.frame.step, asked.frame
    lag = round(best.rv / step) - frame.first
    models = np.asarray(asked.views.flux, np.float64)
    over = slice(lag + 1, lag + models.shape[1] - 1)
    basis = np.polynomial.chebyshev.chebvander(place[over], 3) * np.sqrt(weight[over])[:, None]
    left = []
    for model in models:
        design, data = basis * model[1:-1, None], np.sqrt(weight[over]) * flux[over]
        solved = np.linalg.lstsq(design, data, rcond=None)[0]
        within = square[over].sum() - np.sum(data**2)
        left.append((np.sum((data - design @ solved) ** 2) + within) / weight[over].sum())
    # At the best velocity of three, for the best of all models.
    assert best.misfit == pytest.approx(min(left), rel=0.01)


def test_many_stars_of_a_call_find_what_each_finds_alone(setup: Setup, observe: Observe) -> None:
    stars = [observe(rv=40.0 * i - 300, vsini=5.0 + i, seed=i) for i in range(17)]
    together = [inquiry(star, setup) for star in stars]
    waiting = together
    while waiting:
        search.search(waiting)
        waiting = [asked for asked in waiting if not asked.done]
    for star, asked in zip(stars, together, strict=True):
        alone = starts(star, setup)
        assert asked.starts is not None
        assert [start.vsini for start in asked.starts] == [start.vsini for start in alone]
        assert np.allclose([start.cube for start in asked.starts], [start.cube for start in alone])
        assert np.allclose([start.rv for start in asked.starts], [start.rv for start in alone], atol=0.05)


@pytest.mark.parametrize("limits", [(95.0, 105.0), (100.0, 100.0), (80.0, 99.0)])
def test_velocities_stay_within_their_limits(limits: tuple[float, float], setup: Setup, observe: Observe) -> None:
    spectrum = observe(rv=100.0)
    for start in starts(spectrum, setup, rv_range=limits):
        assert limits[0] <= start.rv <= limits[1]
        # To a bin, where the best lies within.
        if limits[1] > 100:
            assert start.rv == pytest.approx(100.0, abs=3.0)


@pytest.mark.parametrize("degree", [0, 1, 30])
def test_any_degree_of_the_continuum_can_be_searched_with(degree: int, setup: Setup, observe: Observe) -> None:
    found = starts(observe(rv=-60.0), setup, degree=degree)
    assert found[0].rv == pytest.approx(-60.0, abs=3.0)


def test_fewer_templates_than_starts_give_fewer_starts(star_model: Model, observe: Observe) -> None:
    found = starts(observe(rv=10.0), Setup(star_model, FitOptions(n_search=2, n_starts=9)))
    assert 1 <= len(found) <= 2


def test_an_emulator_without_numbers_still_gives_starts(setup: Setup, observe: Observe) -> None:
    asked = inquiry(observe(rv=10.0), setup)
    flux = jnp.full_like(asked.views.flux, jnp.nan)
    few = jnp.full_like(asked.views.few, jnp.nan)
    views = type(asked.views)(flux, flux, few, few, rotations=asked.views.rotations, total=asked.views.total)
    broken = replace(asked, views=views)
    search.search([broken])
    assert broken.starts is not None
    assert np.all(np.isfinite([start.rv for start in broken.starts]))
