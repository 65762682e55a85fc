"""Observe a synthetic star: rotation, velocity, spectrograph, pixels, continuum and noise, in plain float64.

Written without a line of :mod:`starpayne.fitting`, by direct numerical convolution, so that a fit of such a spectrum
tests the fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline

from starpayne.errors import SpectrumError
from starpayne.spectra import ObservedSpectrum
from starpayne.wavelengths import SPEED_OF_LIGHT, check_wavelength, doppler_factor, log_grid

OVERSAMPLING = 4


@dataclass(frozen=True)
class Observation:
    """How a star is observed.

    Args:
        rv: radial velocity, km/s, positive receding.
        vsini: projected rotation, km/s.
        resolution: λ/FWHM of the Gaussian instrumental profile.
        snr: signal-to-noise ratio per pixel at the continuum.
        tilt: (flux at the red end)/(flux at the blue end) − 1 of the linear continuum.
        level: continuum flux at the blue end.
        pixels_per_fwhm: sampling of the detector.
        limb_darkening: linear coefficient ε of the rotation profile.
        seed: of the noise.
        own_resolution: λ/FWHM of broadening that the spectra given already have; None for none beyond the star's own.
    """

    rv: float = 0.0
    vsini: float = 0.0
    resolution: float = 40_000.0
    snr: float = 100.0
    tilt: float = 0.0
    level: float = 1.0
    pixels_per_fwhm: float = 3.0
    limb_darkening: float = 0.6
    seed: int = 0
    own_resolution: float | None = None

    @property
    def added_sigma(self) -> float:
        """Standard deviation in km/s of the Gaussian that makes the given spectra as broad as observed ones."""
        own = 0.0 if self.own_resolution is None else self.own_resolution**-2
        return SPEED_OF_LIGHT * float(np.sqrt(max(self.resolution**-2 - own, 0.0) / (8 * np.log(2))))


def observe(
    wavelength: np.ndarray, flux: np.ndarray, low: float, high: float, setup: Observation, medium: str, name: str = ""
) -> ObservedSpectrum:
    """Return the spectrum that a spectrograph records of a star with this rest-frame flux.

    Args:
        wavelength, flux, low, high, setup: as for :func:`record`.
        medium: "air" or "vacuum".
        name: of the spectrum.

    Raises:
        SpectrumError: as for :func:`record`.
    """
    centre, recorded = record(wavelength, flux, low, high, setup)
    continuum = setup.level * (1 + setup.tilt * (centre - centre[0]) / (centre[-1] - centre[0]))
    error = continuum / setup.snr
    noise = np.random.default_rng(setup.seed).normal(size=len(centre)) * error
    return ObservedSpectrum(wavelength=centre, flux=recorded * continuum + noise, error=error, medium=medium, name=name)


def record(
    wavelength: np.ndarray, flux: np.ndarray, low: float, high: float, setup: Observation
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels of a detector, and the normalised flux that falls on them: no continuum, no noise.

    Args:
        wavelength, flux: (n,) the star's normalised flux at rest, Å, with room for velocity and profiles.
        low, high: range of the detector in Å.
        setup: velocity, rotation and spectrograph.

    Returns:
        (n_pixels,) centres in Å and (n_pixels,) flux, both float64.

    Raises:
        SpectrumError: if the synthetic spectrum does not reach as far as the observed range, shifted and broadened.
    """
    wavelength = check_wavelength(wavelength)
    shift = float(doppler_factor(setup.rv))
    sigma = setup.added_sigma
    margin = 1 + (setup.vsini + 5 * sigma) / SPEED_OF_LIGHT
    if low / shift / margin < wavelength[0] or high / shift * margin > wavelength[-1]:
        raise SpectrumError(
            f"to observe {low:g} to {high:g} Å at {setup.rv:g} km/s, synthesize at least "
            f"{low / shift / margin:.2f} to {high / shift * margin:.2f} Å; this spectrum covers "
            f"{wavelength[0]:.2f} to {wavelength[-1]:.2f} Å"
        )
    step = 1 / (OVERSAMPLING * 200_000)
    fine = log_grid(float(wavelength[0]), float(wavelength[-1]), 1 / step)
    # A cubic spline: straight lines between samples would broaden every line by a sixth of the squared step.
    star = CubicSpline(wavelength, flux)(np.clip(fine, wavelength[0], wavelength[-1]))
    velocity_step = step * SPEED_OF_LIGHT
    kernel = np.convolve(_rotation(setup.vsini, velocity_step, setup.limb_darkening), _gaussian(sigma, velocity_step))
    # Deviations from the continuum are convolved, so that the zero padding beyond the ends is continuum.
    broadened = 1 + np.convolve(star - 1, kernel, mode="same")
    edges = _pixel_edges(low, high, setup)
    cumulative = np.concatenate([[0], np.cumsum(0.5 * (broadened[1:] + broadened[:-1]) * np.diff(fine))])
    integral = np.interp(edges / shift, fine, cumulative)
    recorded = np.diff(integral) / np.diff(edges / shift)
    return 0.5 * (edges[1:] + edges[:-1]), recorded


def _pixel_edges(low: float, high: float, setup: Observation) -> np.ndarray:
    return log_grid(low, high, setup.resolution * setup.pixels_per_fwhm)


def _rotation(vsini: float, step: float, epsilon: float) -> np.ndarray:
    """Sampled rotation profile (Gray 2005, eq. 18.14), normalised."""
    half = int(np.ceil(vsini / step))
    if vsini <= step / 2:  # within one cell
        return np.ones(1)
    # Each sample is the mean over its cell, as the profile ends with an infinite slope.
    cells = (np.arange(-half, half + 1)[:, None] + (np.arange(64) - 31.5) / 64) * step / vsini
    inside = np.clip(1 - cells**2, 0, None)
    profile = np.mean(2 * (1 - epsilon) * np.sqrt(inside) + 0.5 * np.pi * epsilon * inside, axis=1)
    return profile / profile.sum()


def _gaussian(sigma: float, step: float) -> np.ndarray:
    half = int(np.ceil(6 * sigma / step))
    if half == 0:
        return np.ones(1)
    profile = np.exp(-0.5 * (np.arange(-half, half + 1) * step / sigma) ** 2)
    return profile / profile.sum()
