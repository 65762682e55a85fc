"""The part of a spectrum that a model may cover, made ready for fitting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from starpayne.emulators import BoundEmulator
from starpayne.errors import SpectrumError
from starpayne.fitting.forward import no_overlap
from starpayne.fitting.instrument import LogGrid, pixel_bands, usable_pixels
from starpayne.fitting.pixels import Bands
from starpayne.fitting.resolution import Profile, Resolution, ResolutionCurve, check_resolution, uniform_width
from starpayne.fitting.setup import Setup
from starpayne.spectra import ObservedSpectrum
from starpayne.wavelengths import convert_medium, doppler_factor

Source = ObservedSpectrum | Callable[[], ObservedSpectrum]
"""A spectrum, or a function that returns it when its turn comes (such as the reader of a file)."""


def taken(source: Source) -> ObservedSpectrum:
    """Return the spectrum of a source.

    Raises:
        SpectrumError: for something else.
    """
    spectrum = source() if callable(source) else source
    if not isinstance(spectrum, ObservedSpectrum):
        raise SpectrumError(
            f"{spectrum!r} is no spectrum: give an ObservedSpectrum, such as ObservedSpectrum.read(path) returns"
        )
    return spectrum


@dataclass(frozen=True, eq=False)
class Observation:
    """The part of a spectrum that the model may cover, in the model's medium, with flux of order one.

    Args:
        own_wavelength: (n,) Å as observed, in ``medium``; ``wavelength`` (n,) in the model's medium.
        flux, error: (n,) divided by ``scale``; error is a guess from the scatter where the spectrum has none.
        used: (n,) bool.
        resolution: a number, (n,) numbers or a table.
        bound, grid: the emulator on its grid of equal steps in ln λ around these pixels.
        flags: what was assumed so far.
    """

    name: str
    medium: str
    own_wavelength: np.ndarray
    wavelength: np.ndarray
    flux: np.ndarray
    error: np.ndarray
    used: np.ndarray
    scale: float
    resolution: Profile
    bound: BoundEmulator
    grid: LogGrid
    flags: tuple[str, ...]
    model_resolution: float | None
    _bands: dict[float, Bands] = field(default_factory=dict, repr=False)

    def resolution_of(self, pixels: np.ndarray) -> Profile:
        """Return the resolution of some of the pixels."""
        return self.resolution[pixels] if isinstance(self.resolution, np.ndarray) else self.resolution

    @property
    def uniform(self) -> float | None:
        """σ in km/s of a line-spread function that is the same on all pixels; None for any other."""
        return uniform_width(self.resolution, self.model_resolution)

    def bands(self, velocity: float) -> Bands:
        """Return the instrument at a coarse velocity (km/s), made once; rows that leave the model are zero."""
        if velocity not in self._bands:
            self._bands[velocity] = pixel_bands(
                self.grid, self.wavelength, self.resolution, velocity=velocity, model_resolution=self.model_resolution,
                pixels_alone=self.uniform is not None,
            )[0]  # fmt: skip
        return self._bands[velocity]

    def reached(self, velocity: float, margin: float) -> np.ndarray:
        """Return (n,) bool: which pixels the model reaches with so many km/s to spare on either side."""
        return usable_pixels(
            self.grid, self.wavelength, self.resolution, velocity=velocity, model_resolution=self.model_resolution,
            margin=margin,
        )  # fmt: skip


def observation(spectrum: ObservedSpectrum, resolution: Resolution, setup: Setup) -> Observation:
    """Cut, convert and scale a spectrum.

    Raises:
        SpectrumError: no overlap with the model, a resolution it cannot give, or everything masked.
    """
    options, emulator, domain = setup.options, setup.model.emulator, setup.model.emulator.domain
    check_resolution(resolution, domain.sampling, domain.resolution)
    if isinstance(resolution, ResolutionCurve):
        resolution = resolution(spectrum.wavelength)
    if isinstance(resolution, np.ndarray) and resolution.shape != spectrum.wavelength.shape:
        raise SpectrumError(
            f"resolution has shape {resolution.shape}, the spectrum {len(spectrum)} pixels: give one number, or one "
            "per pixel"
        )
    medium = options.medium or spectrum.medium
    flags = list(spectrum.notes)
    if medium is None:
        medium = domain.medium
        flags.append("medium_assumed")
    elif spectrum.medium not in (None, medium):
        flags.append("medium_overridden")
    if spectrum.n_nan:
        flags.append("masked_nan")
    if spectrum.error is None:
        flags.append("no_errors")
    wavelength, near = _near(spectrum, medium, setup)
    slow, fast = options.rv_limits
    if options.window:
        near &= (spectrum.wavelength >= options.window[0]) & (spectrum.wavelength <= options.window[1])
        if near.sum() < 2:
            low, high = options.window
            raise SpectrumError(
                about(
                    spectrum.name,
                    f"the window {low:g} to {high:g} Å holds no pixel that the model, {domain.low:.2f} to "
                    f"{domain.high:.2f} Å, may cover (windows are in Å, as observed)",
                )
            )
    if near.sum() < 2:
        raise SpectrumError(about(spectrum.name, no_overlap(wavelength, emulator)))
    cut = spectrum.select(near) if spectrum.used[near].any() else None
    used = np.zeros(0, bool) if cut is None else cut.used.copy()
    if cut is not None:
        used &= options.continuum.covered(cut.wavelength)
        for low, high in options.mask:
            used &= ~((cut.wavelength >= low) & (cut.wavelength <= high))
    if cut is None or not used.any():
        raise SpectrumError(
            about(
                spectrum.name,
                f"every pixel between {spectrum.wavelength[near][0]:.2f} and {spectrum.wavelength[near][-1]:.2f} Å is "
                "masked: nothing to fit",
            )
        )
    scale = float(np.median(np.abs(cut.flux[used])))
    if not scale > 0:
        raise SpectrumError(about(spectrum.name, f"the median flux is {scale:g}: no starlight to fit"))
    flux = np.where(used, cut.flux, scale) / scale
    # A third of the scatter: lines scatter too, and what is missing comes back as jitter.
    error = np.full(len(flux), scatter(flux[used]) / 3) if cut.error is None else cut.error / scale
    error = np.where(used, error, np.median(error[used]))
    fastest = max(abs(slow), abs(fast)) + 50
    bound, grid = setup.bound(float(wavelength[near][0]), float(wavelength[near][-1]), fastest)
    return Observation(
        spectrum.name, medium, cut.wavelength, wavelength[near], flux, error, used, scale,
        resolution[near] if isinstance(resolution, np.ndarray) else resolution, bound, grid, tuple(flags),
        domain.resolution,
    )  # fmt: skip


def trimmed(spectrum: ObservedSpectrum, setup: Setup) -> ObservedSpectrum:
    """Return the part of a spectrum that its fit may look at: what is worth sending to another process.

    A spectrum that the model covers nowhere is returned whole, as the text of the error speaks of it.
    """
    medium = setup.options.medium or spectrum.medium or setup.model.emulator.domain.medium
    _, near = _near(spectrum, medium, setup)
    if near.all() or near.sum() < 2 or not spectrum.used[near].any():
        return spectrum
    cut = spectrum.select(near)
    # The pixels that are not finite are masked by now, and would not be found again.
    return replace(cut, notes=(*cut.notes, "masked_nan")) if spectrum.n_nan else cut


def _near(spectrum: ObservedSpectrum, medium: str, setup: Setup) -> tuple[np.ndarray, np.ndarray]:
    """Return the wavelengths (n,) in the model's medium, and (n,) bool: which a star at some velocity may reach."""
    domain, (slow, fast) = setup.model.emulator.domain, setup.options.rv_limits
    wavelength = convert_medium(spectrum.wavelength, medium, domain.medium)
    near = (wavelength >= domain.low * doppler_factor(slow)) & (wavelength <= domain.high * doppler_factor(fast))
    return wavelength, near


def about(name: str, text: str) -> str:
    """Return a message that names the spectrum, where it has a name."""
    return f"{name}: {text}" if name else text


def scatter(flux: np.ndarray) -> float:
    """Return a noise estimate from third-order differences (DER_SNR, Stoehr et al. 2008, ASP Conf. 394, 505)."""
    if len(flux) < 5:
        return 0.01
    noise = 0.6052697 * float(np.median(np.abs(2 * flux[2:-2] - flux[:-4] - flux[4:])))
    return max(noise, 3e-4)
