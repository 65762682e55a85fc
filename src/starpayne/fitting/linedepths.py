"""Depths of lines as a known star shows them: the model's optical depths times a factor per wavelength.

A wrong oscillator strength or broadening changes a line by about the same factor of its optical depth in every star
that resembles the known one. Multiplied by the factors that make the model match that star, the model errs only by the
difference of the two: what a line-by-line differential analysis does by hand.
"""

from __future__ import annotations

from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from starpayne.emulators import BoundEmulator, Emulator
from starpayne.emulators.base import HostArray
from starpayne.errors import SpectrumError
from starpayne.fitting.instrument import LogGrid
from starpayne.fitting.result import FitResult
from starpayne.wavelengths import convert_medium, doppler_factor

SHALLOW = 0.02
"""Optical depth below which there is no line whose factor could be told."""

MOST = 4.0
"""Factors are kept between this and its inverse: beyond, it is another line that is missing."""

DARKEST = 0.01
"""Normalised flux below which an optical depth says nothing."""


@dataclass(frozen=True)
class LineDepths:
    """By what factor a model's optical depths are to be multiplied, along the rest wavelength.

    Args:
        wavelength: (n,) Å at rest, increasing, in ``medium``.
        factor: (n,) positive; it is 1 beyond both ends.
        medium: "air" or "vacuum".
    """

    wavelength: tuple[float, ...]
    factor: tuple[float, ...]
    medium: str

    def __post_init__(self) -> None:
        wavelength, factor = np.array(self.wavelength, float), np.array(self.factor, float)
        if wavelength.shape != factor.shape or wavelength.ndim != 1 or len(wavelength) < 2:
            raise SpectrumError(
                f"line depths need as many factors as wavelengths, at least 2; got {wavelength.size} wavelengths and "
                f"{factor.size} factors"
            )
        if not (np.all(np.isfinite(wavelength)) and np.all(np.diff(wavelength) > 0)):
            raise SpectrumError("the wavelengths of line depths must be finite and increase")
        if not np.all((factor > 0) & (factor < np.inf)):
            raise SpectrumError("the factors of line depths must be positive and finite")

    @classmethod
    def of(cls, known: FitResult, before: LineDepths | None = None) -> LineDepths:
        """Learn from a fit of a star at its known labels.

        Args:
            known: the fit.
            before: the factors that it was made with. They act on lines as narrow as the model has them, and are
                learned from broadened ones: a second and third time they become sharper.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            model = -np.log(np.clip(known.model / known.continuum, DARKEST, None))
            observed = -np.log(np.clip(known.flux / known.continuum, DARKEST, None))
            # Where the line is no stronger than the noise or than SHALLOW, the factor stays near 1.
            doubt = SHALLOW**2 + (known.error / known.flux) ** 2
            factor = 1 + model * (observed - model) / (model**2 + doubt)
        factor = np.where(known.used & np.isfinite(factor), factor, 1.0)
        rest = known.wavelength / doppler_factor(known.rv)
        if before is not None:
            factor = factor * np.interp(rest, before.wavelength, before.factor)
        factor = np.clip(factor, 1 / MOST, MOST)
        return cls(tuple(np.round(rest, 4).tolist()), tuple(np.round(factor, 4).tolist()), known.medium)

    def on(self, bound: BoundEmulator, grid: LogGrid, medium: str) -> CorrectedDepths:
        """Return the emulator on its grid (in ``medium``) with its lines corrected."""
        wavelength = convert_medium(grid.wavelength, medium, self.medium)
        factor = np.interp(wavelength, self.wavelength, self.factor, left=1.0, right=1.0)
        return CorrectedDepths(bound.emulator, bound.wavelength, bound, jnp.asarray(factor, jnp.float32))


class CorrectedDepths(BoundEmulator):
    """An emulator on fixed wavelengths whose optical depths are multiplied by factors."""

    emulator: Emulator
    wavelength: HostArray = eqx.field(static=True)
    inner: BoundEmulator
    factor: Float[Array, " wavelengths"]

    def outputs(self, labels: Float[Array, " labels"]) -> Float[Array, "channels wavelengths"]:
        return self._corrected(self.inner.outputs(labels))

    def batch(self, labels: Float[Array, "stars labels"]) -> Float[Array, "stars channels wavelengths"]:
        return self._corrected(self.inner.batch(labels))

    def _corrected(self, outputs: Float[Array, "*n channels wavelengths"]) -> Float[Array, "*n channels wavelengths"]:
        # A flux of zero has no logarithm; what an emulator gives below is error.
        flux = jnp.maximum(outputs[..., :1, :], 1e-3)
        return jnp.concatenate([flux**self.factor, outputs[..., 1:, :]], axis=-2)

    def at(self, emulator: Emulator, columns: Int[Array, " subset"] | None = None) -> CorrectedDepths:
        inner = self.inner.at(emulator, columns)
        factor = self.factor if columns is None else self.factor[columns]
        return CorrectedDepths(emulator, inner.wavelength, inner, factor)

    @property
    def floats_per_spectrum(self) -> int:
        return self.inner.floats_per_spectrum + 2 * len(self.wavelength)
