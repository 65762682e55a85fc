"""An observed spectrum beside the model: its continuum, and what remains."""

from __future__ import annotations

from dataclasses import dataclass, field

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from starpayne.errors import SpectrumError
from starpayne.explorer.dials import RV_MAX
from starpayne.explorer.predictor import SHIFT, Predictor
from starpayne.explorer.state import State
from starpayne.fitting.broadening import Broadening
from starpayne.fitting.continuum import Continuum
from starpayne.fitting.forward import log_velocity, no_overlap
from starpayne.fitting.instrument import pixel_bands, usable_pixels
from starpayne.fitting.pixels import AnyArray, PixelMatrix
from starpayne.spectra import ObservedSpectrum
from starpayne.wavelengths import convert_medium, doppler_factor

MOST_PIXELS = 200_000
"""Within the model's range: more would neither be drawn within a moment, nor be seen."""

FEWEST_PIXELS = 10


@dataclass(frozen=True, eq=False)
class Observed:
    """The part of a spectrum that the model may cover.

    Args:
        spectrum: as it was read.
        wavelength: (n,) Å as observed, in the model's medium.
        flux: (n,) of order one.
        weight: (n,) 1/σ in the same unit, 1 where no errors are known; 0 where masked.
        basis: (n, k) of the continuum.
    """

    spectrum: ObservedSpectrum
    wavelength: np.ndarray
    flux: np.ndarray
    weight: np.ndarray
    basis: np.ndarray
    _matrices: dict[float, PixelMatrix] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, spectrum: ObservedSpectrum, predictor: Predictor) -> Observed:
        """Cut and convert a spectrum.

        Raises:
            SpectrumError: it does not overlap the model, or has too many pixels there.
        """
        emulator = predictor.model.emulator
        domain = emulator.domain
        wavelength = convert_medium(spectrum.wavelength, spectrum.medium or domain.medium, domain.medium)
        near = (wavelength > domain.low * doppler_factor(-RV_MAX)) & (wavelength < domain.high * doppler_factor(RV_MAX))
        name = f"{spectrum.name}: " if spectrum.name else ""
        if np.sum(near & spectrum.used) < FEWEST_PIXELS:
            raise SpectrumError(name + no_overlap(wavelength, emulator))
        if near.sum() > MOST_PIXELS:
            raise SpectrumError(
                f"{name}{near.sum():,} pixels lie in the model's range, more than {MOST_PIXELS:,}: rebin the spectrum"
            )
        cut = spectrum.select(near)
        scale = float(np.median(np.abs(cut.flux[cut.used])))
        if not scale > 0:
            raise SpectrumError(f"{name}the median flux is {scale:g}: no starlight to compare")
        weight = cut.used.astype(np.float64)
        if cut.error is not None:
            weight = np.where(cut.used, scale / np.where(cut.used, cut.error, 1.0), 0.0)
        flux = np.where(cut.used, cut.flux, 0.0) / scale
        return cls(spectrum, wavelength[near], flux, weight, Continuum().basis(wavelength[near], cut.used))

    def matrix(self, predictor: Predictor, velocity: float) -> PixelMatrix:
        """Return the pixels at a coarse velocity in km/s, made once; rows that leave the model are zero."""
        if velocity not in self._matrices:
            if len(self._matrices) >= 16:
                self._matrices.clear()
            # The sharpest of all profiles: who asks for another one knows how much more room it takes.
            bands, _ = pixel_bands(
                predictor.grid, self.wavelength, predictor.panel["resolution"].high, velocity=velocity,
                model_resolution=predictor.model.emulator.domain.resolution, pixels_alone=True,
            )  # fmt: skip
            self._matrices[velocity] = bands.matrix(predictor.grid.size)
        return self._matrices[velocity]


@dataclass(frozen=True, eq=False)
class Comparison:
    """An observed spectrum as the model of a state sees it.

    Args:
        flux: (n,) float32 observed flux over the continuum that suits the model best; NaN where masked or out of
            reach.
        residual: (n,) float32 that minus the model.
        scatter: standard deviation of the residuals; NaN where too few pixels are left.
    """

    flux: np.ndarray
    residual: np.ndarray
    scatter: float


def compare(predictor: Predictor, state: State, observed: Observed, depth: np.ndarray | None = None) -> Comparison:
    """Put the model on the observed pixels and divide the continuum out.

    Args:
        depth: ``predictor.depth(state)``, where it is known.
    """
    depth = predictor.depth(state) if depth is None else depth
    coarse = SHIFT * round(state["rv"] / SHIFT)
    shift = np.float32(log_velocity(state["rv"]) - log_velocity(coarse))
    pixels = observed.matrix(predictor, coarse)
    model = 1 + np.asarray(_observe(predictor.broadening, pixels, depth, shift, *predictor.widths(state)), np.float64)
    usable = usable_pixels(
        predictor.grid, observed.wavelength, state["resolution"], velocity=state["rv"], margin=state["vsini"],
        model_resolution=predictor.model.emulator.domain.resolution,
    )  # fmt: skip
    usable &= (observed.weight > 0) & pixels.reached()
    nothing = np.full(len(model), np.nan, np.float32)
    if usable.sum() < FEWEST_PIXELS:
        return Comparison(nothing, nothing, float("nan"))
    weight = np.where(usable, observed.weight, 0.0)
    design = observed.basis * (model * weight)[:, None]
    normal = design.T @ design
    normal += 1e-10 * np.trace(normal) * np.eye(len(normal))
    continuum = observed.basis @ np.linalg.solve(normal, design.T @ (observed.flux * weight))
    usable &= continuum > 0
    flux = np.where(usable, observed.flux / np.where(usable, continuum, 1.0), np.nan)
    residual = flux - model
    scatter = float(np.std(residual[usable])) if usable.any() else float("nan")
    return Comparison(flux.astype(np.float32), residual.astype(np.float32), scatter)


@eqx.filter_jit
def _observe(
    broadening: Broadening,
    pixels: PixelMatrix,
    depth: Float[AnyArray, " grid"],
    shift: np.float32 | Float[Array, ""],
    vsini2: np.float32 | Float[Array, ""],
    sigma2: np.float32 | Float[Array, ""],
) -> Float[Array, " pixels"]:
    widths = jnp.asarray(vsini2), jnp.asarray(sigma2)
    return pixels(broadening(jnp.asarray(depth), jnp.asarray(shift), *widths))
