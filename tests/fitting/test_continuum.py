"""The continuum's design matrix."""

from __future__ import annotations

import numpy as np
import pytest

from starpayne.errors import SpectrumError
from starpayne.fitting.continuum import design_matrix

WAVELENGTH = np.linspace(5000, 5100, 200)


def test_it_holds_every_polynomial_of_its_degree() -> None:
    basis = design_matrix(WAVELENGTH, 3)
    wanted = 2 + 0.01 * WAVELENGTH - 3e-7 * (WAVELENGTH - 5000) ** 3
    fitted = basis @ np.linalg.lstsq(basis, wanted, rcond=None)[0]
    np.testing.assert_allclose(fitted, wanted, rtol=1e-9)


def test_segments_are_independent() -> None:
    basis = design_matrix(WAVELENGTH, 1, [(5000, 5040), (5060, 5100)])
    assert basis.shape == (200, 4)
    assert np.all(basis[WAVELENGTH > 5040][:, :2] == 0)
    assert np.all(basis[(WAVELENGTH > 5040) & (WAVELENGTH < 5060)] == 0)


def test_impossible_continua() -> None:
    with pytest.raises(SpectrumError, match="continuum degree -1 must be 0 or more"):
        design_matrix(WAVELENGTH, -1)
    with pytest.raises(SpectrumError, match="continuum segment 6000 to 6100 Å holds no pixel"):
        design_matrix(WAVELENGTH, 1, [(6000, 6100)])
