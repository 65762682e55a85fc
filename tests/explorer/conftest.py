"""A star made with the toy model, and the page's parts for it."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import pytest

from starpayne.bundle import Model
from starpayne.explorer.fits import FitQueue
from starpayne.explorer.predictor import Predictor
from starpayne.fitting import ForwardModel
from starpayne.spectra import ObservedSpectrum

RESOLUTION = 9000.0
LABELS = {"teff": 5600.0, "logg": 3.1, "alpha_fe": 0.1, "vmic": 1.4, "mg_fe": 0.2}


@pytest.fixture(scope="session")
def predictor(payne_model: Model) -> Predictor:
    return Predictor.of(payne_model)


@pytest.fixture
def fits(payne_model: Model):
    queue = FitQueue(payne_model)
    yield queue
    queue.close()


@pytest.fixture(scope="session")
def observe(payne_model: Model) -> Callable[..., ObservedSpectrum]:
    """A star of these labels, with a tilted continuum and a little noise."""

    def make(rv: float = 0.0, vsini: float = 0.0, name: str = "star", snr: float = 500.0) -> ObservedSpectrum:
        wavelength = np.arange(5001.5, 5008.5, 0.1)
        emulator = payne_model.emulator
        forward, usable = ForwardModel.on(
            emulator, wavelength, RESOLUTION, velocity=rv, velocity_range=0.0, vsini_max=20.0
        )
        flux = np.asarray(forward(jnp.asarray(emulator.space.vector(LABELS), jnp.float32), rv, vsini), np.float64)
        continuum = 40 * (1 + 0.05 * (wavelength - 5005))
        noise = np.random.default_rng(1).normal(0, 1 / snr, len(flux))
        return ObservedSpectrum(wavelength, continuum * (flux + noise), continuum / snr, usable, "air", name)

    return make


@pytest.fixture
def as_text() -> Callable[[ObservedSpectrum], bytes]:
    """The file of the pixels of a spectrum that may be used."""

    def write(spectrum: ObservedSpectrum) -> bytes:
        spectrum = spectrum.select(spectrum.used)
        assert spectrum.error is not None
        rows = zip(spectrum.wavelength, spectrum.flux, spectrum.error, strict=True)
        return ("wavelength_air flux error\n" + "\n".join(f"{w:.4f} {f:.6f} {e:.6f}" for w, f, e in rows)).encode()

    return write
