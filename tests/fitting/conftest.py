"""A small emulator for the tests of the fit: thirty lines that follow five labels. It stands for no physics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax.numpy as jnp
import known_star
import numpy as np
import pytest
from known_star import RESOLUTION, TRUTH

from starpayne.bundle import Model, Residuals
from starpayne.fitting import ForwardModel
from starpayne.spectra import ObservedSpectrum
from starpayne.wavelengths import log_grid


@pytest.fixture(scope="session")
def star_model() -> Model:
    """See ``known_star.model``."""
    return known_star.model()


@pytest.fixture(scope="session")
def with_residuals(star_model: Model) -> Model:
    """The same, with error modes of a few parts in a thousand."""
    wavelength = star_model.emulator.native_wavelength
    x = np.linspace(0, 40, len(wavelength))
    modes = 0.003 * np.stack([np.sin(x), np.cos(1.7 * x)])
    noise = np.full(len(wavelength), 0.001)
    return replace(star_model, residuals=Residuals(wavelength, modes.astype(np.float32), noise.astype(np.float32)))


@pytest.fixture(scope="session")
def observe(star_model: Model) -> Callable[..., ObservedSpectrum]:
    """Make a spectrum with the emulator itself: velocity, rotation, a curved continuum, noise."""

    def make(
        labels: np.ndarray = TRUTH, rv: float = 0.0, vsini: float = 8.0, snr: float = 100.0, seed: int = 0,
        extra: np.ndarray | None = None, name: str = "star", medium: str | None = "air",
    ) -> ObservedSpectrum:  # fmt: skip
        wavelength = log_grid(4998.0, 5062.0, 3 * RESOLUTION)
        forward, usable = ForwardModel.on(star_model.emulator, wavelength, RESOLUTION, velocity=rv)
        flux = np.asarray(forward(jnp.asarray(labels, jnp.float32), rv, vsini), np.float64)
        x = np.linspace(-1, 1, len(wavelength))
        continuum = 700 * (1 + 0.2 * x - 0.1 * x**2)
        if extra is not None:
            flux = flux + np.interp(wavelength, star_model.emulator.native_wavelength, extra)
        error = continuum / snr
        noise = np.random.default_rng(seed).normal(0, 1, len(wavelength)) * error
        return ObservedSpectrum(wavelength, flux * continuum + noise, error, usable, medium, name)

    return make
