"""The resolution of a spectrograph: a number, a curve, or a line-spread function; and how wide that makes a line."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from starpayne.errors import SpectrumError
from starpayne.wavelengths import SPEED_OF_LIGHT

FWHM = float(np.sqrt(8 * np.log(2)))
"""Full width at half maximum of a Gaussian of unit standard deviation."""

REACH = 5.0
"""Standard deviations at which a Gaussian profile is cut."""


@dataclass(frozen=True)
class TabulatedProfile:
    """A line-spread function given as a table.

    Args:
        velocity: (n,) km/s from the line centre, increasing.
        response: (n,) values, any normalisation, not negative.
    """

    velocity: np.ndarray
    response: np.ndarray

    def __post_init__(self) -> None:
        velocity = np.asarray(self.velocity, np.float64)
        response = np.asarray(self.response, np.float64)
        if velocity.ndim != 1 or velocity.shape != response.shape or len(velocity) < 3:
            raise SpectrumError(
                "a tabulated line-spread function needs two columns of the same length (at least 3): velocity in km/s "
                f"and response; got shapes {velocity.shape} and {response.shape}"
            )
        good = np.all(np.isfinite(velocity)) and np.all(np.isfinite(response))
        if not good or np.any(np.diff(velocity) <= 0) or np.any(response < 0) or response.sum() <= 0:
            raise SpectrumError(
                "a tabulated line-spread function needs increasing velocities (km/s) and responses that are finite "
                "and not negative"
            )
        object.__setattr__(self, "velocity", velocity)
        object.__setattr__(self, "response", response)


@dataclass(frozen=True)
class ResolutionCurve:
    """A resolution that changes with wavelength, linear between the points given and constant beyond them.

    Args:
        wavelength: (n,) observed, Å, increasing.
        resolution: (n,) λ/FWHM there.
    """

    wavelength: np.ndarray
    resolution: np.ndarray

    def __post_init__(self) -> None:
        wavelength, resolution = (np.asarray(x, np.float64) for x in (self.wavelength, self.resolution))
        if wavelength.ndim != 1 or wavelength.shape != resolution.shape or not len(wavelength):
            raise SpectrumError(
                "a resolution by wavelength needs two columns of the same length: wavelength in Å and λ/FWHM; got "
                f"shapes {wavelength.shape} and {resolution.shape}"
            )
        if not np.all(np.isfinite(wavelength)) or np.any(np.diff(wavelength) <= 0):
            raise SpectrumError("the wavelengths of a resolution curve must increase")
        object.__setattr__(self, "wavelength", wavelength)
        object.__setattr__(self, "resolution", resolution)

    def __call__(self, wavelength: np.ndarray) -> np.ndarray:
        """Return the resolution (m,) at wavelengths (m,)."""
        return np.interp(wavelength, self.wavelength, self.resolution)


Profile = float | np.ndarray | TabulatedProfile
"""λ/FWHM of a Gaussian profile, one number or one per observed pixel; or a tabulated profile."""

Resolution = Profile | ResolutionCurve
"""The same, or a curve that gives the resolution of every pixel of any spectrum."""


def check_resolution(resolution: Resolution, sampling: float, model_resolution: float | None) -> None:
    """Refuse a resolution that the model cannot give.

    Raises:
        SpectrumError: if it is not a positive number, is above half the model's sampling (its lines would fall between
            the model's points), or above the model's own resolution.
    """
    if isinstance(resolution, TabulatedProfile):
        return
    if isinstance(resolution, ResolutionCurve):
        resolution = resolution.resolution
    values = np.atleast_1d(np.asarray(resolution, np.float64))
    if not np.all(np.isfinite(values)) or np.any(values <= 0):
        bad = values[~(np.isfinite(values) & (values > 0))][0]
        raise SpectrumError(f"resolution = {bad:g} must be a positive number (λ/FWHM)")
    top = float(values.max())
    if top > 0.5 * sampling * (1 + 1e-9):
        raise SpectrumError(
            f"resolution = {top:g} is above half the sampling of the model, {0.5 * sampling:g}: use a model on finer "
            "wavelengths, or degrade the spectrum"
        )
    if model_resolution is not None and top > model_resolution * (1 + 1e-9):
        raise SpectrumError(
            f"resolution = {top:g} is above the resolution of the model's own spectra, {model_resolution:g}: "
            "use a sharper model, or degrade the spectrum"
        )


def extra_width(resolution: float | np.ndarray, model_resolution: float | None) -> np.ndarray:
    """Return the standard deviation in ln λ that is missing from the model: widths subtract in quadrature."""
    variance = 1.0 / np.asarray(resolution, np.float64) ** 2
    if model_resolution is not None:
        variance = np.maximum(variance - 1.0 / model_resolution**2, 0.0)
    return np.asarray(np.sqrt(variance) / FWHM)


def typical_fwhm(resolution: Resolution) -> float:
    """Return the full width at half maximum of the line-spread function in km/s, the median if there are many."""
    if isinstance(resolution, ResolutionCurve):
        return SPEED_OF_LIGHT / float(np.median(resolution.resolution))
    if isinstance(resolution, TabulatedProfile):
        v, r = resolution.velocity, resolution.response / resolution.response.sum()
        return FWHM * float(np.sqrt(np.sum(r * v**2) - np.sum(r * v) ** 2))
    return SPEED_OF_LIGHT / float(np.median(resolution))


def uniform_width(resolution: Profile, model_resolution: float | None) -> float | None:
    """Return the standard deviation in km/s that is missing from the model where it is the same on all pixels: such a
    profile is applied in Fourier space, and the matrix is left with the pixels. None for any other profile."""
    if isinstance(resolution, TabulatedProfile):
        return None
    values = np.atleast_1d(np.asarray(resolution, np.float64))
    if np.any(values != values[0]):
        return None
    return SPEED_OF_LIGHT * float(extra_width(values[0], model_resolution))


def half_width(resolution: Profile, model_resolution: float | None) -> float:
    """Return how far, in ln λ, the line-spread function reaches."""
    if isinstance(resolution, TabulatedProfile):
        return float(np.abs(resolution.velocity).max()) / SPEED_OF_LIGHT
    return REACH * float(np.max(extra_width(resolution, model_resolution)))
