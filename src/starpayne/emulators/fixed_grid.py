"""What emulators on fixed pixels share: they give all pixels at once, and cubic interpolation between them."""

from __future__ import annotations

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from starpayne.emulators.base import BoundEmulator, Emulator, HostArray
from starpayne.errors import RecipeError
from starpayne.wavelengths import lagrange_weights


class FixedGridEmulator(Emulator):
    """An emulator whose outputs are the pixels of its training grid."""

    wavelength: eqx.AbstractVar[HostArray]

    @abc.abstractmethod
    def pixels(self, labels: Float[Array, " labels"]) -> Float[Array, "channels pixels"]:
        """Return all channels on the emulator's own pixels for one vector of physical labels."""

    def pixels_of(self, labels: Float[Array, "stars labels"]) -> Float[Array, "stars channels pixels"]:
        """Return :meth:`pixels` for many label vectors; an emulator that can share work between stars replaces it."""
        return jax.vmap(self.pixels)(labels)

    @property
    @abc.abstractmethod
    def floats_within(self) -> int:
        """How many intermediate float32 numbers one spectrum takes before it is complete."""

    @property
    def native_wavelength(self) -> np.ndarray:
        return self.wavelength.values

    def bind(self, wavelength: np.ndarray) -> BoundFixedGrid:
        pixels = self.wavelength.values
        if np.array_equal(wavelength, pixels):
            return BoundFixedGrid(emulator=self, wavelength=HostArray(wavelength), indices=None, weights=None)
        indices, weights = lagrange_weights(pixels, wavelength)
        return BoundFixedGrid(
            emulator=self,
            wavelength=HostArray(wavelength),
            indices=jnp.asarray(indices),
            weights=jnp.asarray(weights, jnp.float32),
        )


class BoundFixedGrid(BoundEmulator):
    """An emulator of fixed pixels on given wavelengths: its own pixels, or cubic interpolation between them."""

    emulator: FixedGridEmulator
    wavelength: HostArray = eqx.field(static=True)
    indices: Int[Array, "wavelengths 4"] | None
    weights: Float[Array, "wavelengths 4"] | None

    def outputs(self, labels: Float[Array, " labels"]) -> Float[Array, "channels wavelengths"]:
        return self._interpolated(self.emulator.pixels(labels))

    def batch(self, labels: Float[Array, "stars labels"]) -> Float[Array, "stars channels wavelengths"]:
        return self._interpolated(self.emulator.pixels_of(labels))

    def _interpolated(self, values: Float[Array, "*n pixels"]) -> Float[Array, "*n wavelengths"]:
        if self.indices is None or self.weights is None:
            return values
        return jnp.sum(values[..., self.indices] * self.weights, axis=-1)

    def at(self, emulator: Emulator, columns: Int[Array, " subset"] | None = None) -> BoundFixedGrid:
        if columns is not None:
            name = type(self.emulator).__name__
            raise RecipeError(f"a {name} computes all its pixels at once; batch_wavelengths does not apply to it")
        return eqx.tree_at(lambda b: b.emulator, self, emulator)

    @property
    def floats_per_spectrum(self) -> int:
        return self.emulator.floats_within + 6 * len(self.wavelength)
