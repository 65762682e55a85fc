"""Spectra of a grid as a spectrograph records them: the truth that an emulator is to recover, in float64.

Nothing of the emulators or of :mod:`starpayne.fitting` enters, so that every emulator meets the very same spectra.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from starpayne.errors import SpectrumError
from starpayne.grid import Grid
from starpayne.simulate import Observation, record
from starpayne.wavelengths import SPEED_OF_LIGHT, sampling_of

SIGMAS = 5.0
"""Standard deviations of the profile that are left free at either end of the grid."""

SPARE_POINTS = 5
"""Points of the grid that are left free there besides, for interpolation."""

LEAST_PIXELS = 16
"""A detector of fewer pixels measures no labels."""


@dataclass(frozen=True)
class ObservedStars:
    """Observed spectra of many stars on one detector.

    Args:
        wavelength: (n_pixels,) Å, in the grid's medium.
        flux: (n, n_pixels) normalised, without noise.
        noisy: (n, n_pixels) the same with noise.
        error: standard deviation of the noise, the same for all pixels.
    """

    wavelength: np.ndarray
    flux: np.ndarray
    noisy: np.ndarray
    error: float


def observe_rows(
    grid: Grid, rows: np.ndarray, *, resolution: float, snr: float, pixels_per_fwhm: float, seed: int
) -> ObservedStars:
    """Observe spectra of a grid at rest, without rotation.

    Args:
        grid: the grid.
        rows: (n,) of it.
        resolution: λ/FWHM of the Gaussian profile.
        snr: signal-to-noise ratio per pixel at the continuum.
        pixels_per_fwhm: sampling of the detector.
        seed: of the noise. Each row has noise of its own, whatever rows are observed with it.

    Raises:
        SpectrumError: a value out of its range, or a grid too short for the profile.
    """
    check_observation(grid, resolution, snr, pixels_per_fwhm)
    setup = Observation(resolution=resolution, snr=snr, pixels_per_fwhm=pixels_per_fwhm, own_resolution=grid.resolution)
    wavelength = grid.wavelength
    margin = 1 + SIGMAS * setup.added_sigma / SPEED_OF_LIGHT + SPARE_POINTS / sampling_of(wavelength)
    low, high = float(wavelength[0]) * margin, float(wavelength[-1]) / margin
    n_pixels = np.log(high / low) * resolution * pixels_per_fwhm
    if n_pixels < LEAST_PIXELS:
        raise SpectrumError(
            f"{wavelength[0]:g} to {wavelength[-1]:g} Å of {grid.path} leave a detector of resolution = {resolution:g} "
            f"{max(0, int(n_pixels))} pixels; at least {LEAST_PIXELS} are needed: raise the resolution"
        )
    spectra = [record(wavelength, flux, low, high, setup) for flux in grid.flux(rows).astype(np.float64)]
    centre, flux = spectra[0][0], np.stack([recorded for _, recorded in spectra])
    noise = np.stack([np.random.default_rng([seed, int(row)]).normal(size=len(centre)) for row in rows])
    return ObservedStars(centre, flux, flux + noise / snr, 1.0 / snr)


def check_observation(grid: Grid, resolution: float, snr: float, pixels_per_fwhm: float) -> None:
    """Refuse what cannot be observed from this grid.

    Raises:
        SpectrumError: naming the value and the allowed range.
    """
    for name, value in (("resolution", resolution), ("snr", snr), ("pixels_per_fwhm", pixels_per_fwhm)):
        if not (np.isfinite(value) and value > 0):
            raise SpectrumError(f"{name} = {value:g} must be a positive number")
    highest, why = 0.5 * sampling_of(grid.wavelength), "half the sampling of the grid"
    if grid.resolution is not None and grid.resolution < highest:
        highest, why = grid.resolution, "the resolution of the grid's spectra"
    if resolution > highest * (1 + 1e-9):
        raise SpectrumError(f"resolution = {resolution:g} is above {why}, {highest:g}: give a lower one")
