"""The simulated observation: independent of the fit, so its own physics is held here."""

from __future__ import annotations

import numpy as np
import pytest

from starpayne.errors import SpectrumError
from starpayne.simulate import Observation, observe
from starpayne.wavelengths import SPEED_OF_LIGHT, log_grid

WAVELENGTH = log_grid(5000.0, 5100.0, 200_000)
LINE = 1 - 0.8 * np.exp(-0.5 * ((WAVELENGTH - 5050) / 0.05) ** 2)


def seen(**setup) -> tuple[np.ndarray, np.ndarray]:
    spectrum = observe(WAVELENGTH, LINE, 5040.0, 5060.0, Observation(**{"snr": 1e9, **setup}), "air")
    return spectrum.wavelength, spectrum.flux


def moments(wavelength: np.ndarray, flux: np.ndarray) -> tuple[float, float, float]:
    depth = (1 - flux) * np.gradient(wavelength)
    centre = np.sum(depth * wavelength) / np.sum(depth)
    return np.sum(depth), centre, np.sqrt(np.sum(depth * (wavelength - centre) ** 2) / np.sum(depth))


def test_broadening_keeps_the_equivalent_width() -> None:
    width = moments(WAVELENGTH, LINE)[0]
    assert moments(*seen(vsini=20.0))[0] == pytest.approx(width, rel=2e-4)


def test_a_receding_star_is_red_shifted() -> None:
    still, moving = moments(*seen())[1], moments(*seen(rv=30.0))[1]
    assert (moving / still - 1) * SPEED_OF_LIGHT == pytest.approx(30.0, abs=0.01)


def test_the_instrument_adds_its_variance() -> None:
    sigma = 5050 / 40_000 / (2 * np.sqrt(2 * np.log(2)))
    pixel = 5050 / 40_000 / 3 / np.sqrt(12)
    assert moments(*seen())[2] == pytest.approx(np.sqrt(0.05**2 + sigma**2 + pixel**2), rel=2e-3)


def test_rotation_adds_the_variance_of_grays_profile() -> None:
    # Second moment of Gray's profile with limb darkening 0.6, in units of v sin i squared.
    epsilon = 0.6
    variance = ((1 - epsilon) / 4 + epsilon * 2 / 15) / (1 - epsilon / 3)
    plain, rotating = moments(*seen())[2], moments(*seen(vsini=25.0))[2]
    added = np.sqrt(rotating**2 - plain**2) / 5050 * SPEED_OF_LIGHT / 25.0
    assert added == pytest.approx(np.sqrt(variance), rel=5e-3)


def test_noise_and_continuum_are_as_asked() -> None:
    wavelength, flux = seen(tilt=0.2, level=3.0)
    assert flux[0] == pytest.approx(3.0, rel=1e-4)
    assert flux[-1] == pytest.approx(3.6, rel=1e-4)
    noisy = observe(WAVELENGTH, LINE, 5040.0, 5060.0, Observation(snr=50, tilt=0.2, level=3.0, seed=4), "air")
    assert np.std((noisy.flux - flux) / noisy.error) == pytest.approx(1.0, abs=0.1)
    assert np.median(flux / noisy.error) == pytest.approx(50, rel=0.02)
    assert len(wavelength) == len(noisy.wavelength)


def test_too_narrow_a_synthesis_is_refused() -> None:
    with pytest.raises(SpectrumError, match=r"synthesize at least 4997\.\d\d to .* this spectrum covers 5000\.00 to"):
        observe(WAVELENGTH, LINE, 5001.0, 5060.0, Observation(rv=200.0), "air")
