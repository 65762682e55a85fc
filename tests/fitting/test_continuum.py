"""The continuum's design matrix."""

from __future__ import annotations

import numpy as np
import pytest

from starpayne.errors import SpectrumError
from starpayne.fitting.continuum import Continuum, chebyshev

WAVELENGTH = np.linspace(5000, 5100, 200)
ALL = np.ones(200, bool)


def fitted(basis: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    return basis @ np.linalg.lstsq(basis, wanted, rcond=None)[0]


def test_it_holds_every_polynomial_of_its_degree() -> None:
    wanted = 2 + 0.01 * WAVELENGTH - 3e-7 * (WAVELENGTH - 5000) ** 3
    np.testing.assert_allclose(fitted(Continuum(3).basis(WAVELENGTH, ALL), wanted), wanted, rtol=1e-9)


def test_segments_are_independent_and_pixels_in_none_are_not_fitted() -> None:
    continuum = Continuum(1, segments=((5060, 5100), (5000, 5040)))
    basis = continuum.basis(WAVELENGTH, ALL)
    assert basis.shape == (200, 4)
    assert np.all(basis[WAVELENGTH > 5040][:, :2] == 0)
    between = (WAVELENGTH > 5040) & (WAVELENGTH < 5060)
    assert np.all(basis[between] == 0)
    np.testing.assert_array_equal(continuum.covered(WAVELENGTH), ~between)


def test_a_spline_bends_where_a_polynomial_of_few_terms_cannot() -> None:
    wanted = 1 + 0.1 * np.sin(WAVELENGTH / 5)
    assert np.abs(fitted(Continuum(3).basis(WAVELENGTH, ALL), wanted) - wanted).max() > 0.05
    basis = Continuum(knots=5.0).basis(WAVELENGTH, ALL)
    assert basis.shape == (200, 23)
    assert np.abs(fitted(basis, wanted) - wanted).max() < 2e-3


def test_gaps_part_segments() -> None:
    kept = (WAVELENGTH < 5030) | (WAVELENGTH > 5060)
    assert len(Continuum(segments="gaps").parts(WAVELENGTH[kept])) == 2
    assert len(Continuum(segments="gaps").parts(WAVELENGTH)) == 1


def test_what_no_used_pixel_determines_is_left_out() -> None:
    used = WAVELENGTH < 5050
    assert Continuum(2, segments=((5000, 5049), (5055, 5100))).basis(WAVELENGTH, used).shape[1] == 3
    assert Continuum(knots=5.0).basis(WAVELENGTH, used).shape[1] == 13
    few = np.arange(200) < 2
    assert Continuum(5).basis(WAVELENGTH, few).shape[1] == 2


@pytest.mark.parametrize(
    ("choices", "text"),
    [
        ({"degree": 31}, "continuum degree = 31 is outside the range 0 to 30"),
        ({"knots": 0.0}, "continuum knots every 0 Å: the distance must be positive"),
        ({"segments": "orders"}, "continuum segments 'orders'"),
        ({"segments": ((5000, 5060), (5050, 5100))}, "overlap between 5050 and 5060 Å: a pixel has one"),
        ({"segments": ((5060, 5000),)}, "must have its lower end first"),
    ],
)
def test_impossible_continua(choices: dict, text: str) -> None:
    with pytest.raises(SpectrumError, match=text):
        Continuum(**choices)
    with pytest.raises(SpectrumError, match="continuum degree -1 must be 0 or more"):
        chebyshev(WAVELENGTH, -1)
