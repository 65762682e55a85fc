"""From states to spectra, residuals, lines and files."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import pytest
from astropy.table import Table

from starpayne.errors import SpectrumError
from starpayne.explorer import downloads
from starpayne.explorer.lines import strongest
from starpayne.explorer.observed import Observed, compare
from starpayne.explorer.predictor import Predictor
from starpayne.explorer.state import State
from starpayne.fitting import ForwardModel
from starpayne.spectra import ObservedSpectrum

STAR = {"teff": 5600.0, "logg": 3.1, "alpha_fe": 0.1, "vmic": 1.4, "mg_fe": 0.2, "resolution": 9000.0}


@pytest.fixture
def state(predictor: Predictor) -> State:
    return State.start(predictor.panel).turned(STAR)


def test_the_spectrum_is_that_of_the_fits_forward_model(predictor: Predictor, state: State) -> None:
    state = state.turned({"rv": 40.0, "vsini": 15.0})
    reached = predictor.reached(state)
    wavelength = predictor.wavelength(state)
    forward, usable = ForwardModel.on(
        predictor.model.emulator, wavelength, 9000.0, velocity=40.0, velocity_range=0.0, vsini_max=15.0
    )
    expected = np.asarray(forward(jnp.asarray(state.labels, jnp.float32), 40.0, 15.0))
    both = reached & usable
    assert both.sum() > 15
    # The forward model averages over pixels, which here are as wide as the model's steps.
    assert np.max(np.abs(predictor.flux(state) - expected)[both]) < 0.01
    assert np.all(np.isnan(predictor.flux(state)[~reached]))


def test_the_derivative_is_that_of_the_spectrum(predictor: Predictor, state: State) -> None:
    step = 10.0
    up, down = (predictor.flux(state.turned({"teff": 5600.0 + s})).astype(np.float64) for s in (step, -step))
    slope = predictor.derivative(state, "teff")
    good = np.isfinite(slope)
    assert np.allclose(slope[good], (up - down)[good] / (2 * step) * 100, atol=2e-4)
    assert np.nanmax(np.abs(slope)) > 1e-3


@pytest.mark.parametrize("rv", [0.0, -13.0, 77.0])
def test_residuals_of_the_right_labels_are_noise(
    predictor: Predictor, state: State, observe: Callable, rv: float
) -> None:
    observed = Observed.of(observe(rv=rv, vsini=8.0), predictor)
    right = compare(predictor, state.turned({"rv": rv, "vsini": 8.0}), observed)
    assert right.scatter < 0.004  # 500 to 1
    wrong = compare(predictor, state.turned({"rv": rv, "vsini": 8.0, "mg_fe": -0.2}), observed)
    assert wrong.scatter > 2 * right.scatter
    assert np.isfinite(right.residual).sum() > 40


def test_a_star_that_the_model_does_not_cover_is_refused(predictor: Predictor) -> None:
    far = ObservedSpectrum(np.arange(6000.0, 6010.0, 0.1), np.ones(100), None, None, "air", "far")
    with pytest.raises(SpectrumError, match=r"far: the spectrum, 6000\.00 to 6009\.90 Å in air, does not overlap"):
        Observed.of(far, predictor)


def test_a_velocity_that_moves_the_star_off_the_model_leaves_no_residuals(
    predictor: Predictor, state: State, observe: Callable
) -> None:
    seen = compare(predictor, state.turned({"rv": 500.0}), Observed.of(observe(), predictor))
    assert np.isnan(seen.scatter)
    assert np.all(np.isnan(seen.flux))


def test_lines_are_where_the_derivative_is_largest_and_weak_ones_are_not_marked() -> None:
    x = np.linspace(5000, 5010, 2001)
    slope = -0.4 * np.exp(-(((x - 5003) / 0.1) ** 2)) - 0.2 * np.exp(-(((x - 5007) / 0.1) ** 2))
    slope += 0.02 * np.exp(-(((x - 5009) / 0.1) ** 2))
    slope[:10] = np.nan
    found = strongest(x, slope)
    assert [round(line.wavelength, 2) for line in found] == [5003.0, 5007.0]
    assert found[0].slope == pytest.approx(-0.4, abs=0.01)
    assert strongest(x, 0.001 * slope) == ()


def test_the_spectrum_can_be_taken_home_as_csv_and_fits(predictor: Predictor, state: State, tmp_path) -> None:
    state = state.turned({"rv": 10.0})
    text = downloads.spectrum_file(predictor, state, ".csv").getvalue().decode()
    assert "# wavelength in Angstrom (air); flux normalised to the continuum" in text
    assert "rv = 10, vsini = 0, resolution = 9000" in text
    (tmp_path / "s.fits").write_bytes(downloads.spectrum_file(predictor, state, ".fits").getvalue())
    table = Table.read(tmp_path / "s.fits")
    assert table.meta["teff"] == 5600
    shown = predictor.flux(state)
    assert np.array_equal(np.asarray(table["flux"], np.float32), shown[np.isfinite(shown)])
    (tmp_path / "s.csv").write_text(text)
    assert np.allclose(ObservedSpectrum.read(tmp_path / "s.csv").wavelength, table["wavelength"], atol=1e-6)


def test_the_figure_is_a_png(predictor: Predictor, state: State, observe: Callable) -> None:
    figure = downloads.figure_file(predictor, state, Observed.of(observe(), predictor)).getvalue()
    assert figure.startswith(b"\x89PNG")
