"""The Payne: a fully connected network from labels to the pixels of a fixed wavelength grid.

Ting et al. 2019, ApJ 879, 69 (code: tingyuansen/The_Payne), and its modern form with other widths and activations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from starpayne.emulators.base import BoundEmulator, Emulator, HostArray, SpectralDomain
from starpayne.errors import RecipeError
from starpayne.labels import LabelSpace
from starpayne.wavelengths import check_wavelength, lagrange_weights

ACTIVATIONS = {
    # The slope that the published code uses.
    "leaky_relu": lambda x: jax.nn.leaky_relu(x, 0.01),
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
}


class Payne(Emulator):
    """A fully connected network on fixed wavelengths.

    Args:
        weights, biases: one per layer, (n_in, n_out) and (n_out,).
        center, width: (channels, pixels); the output is ``center + width * network``.
        wavelength: the pixels, Å, in ``domain.medium``.
        activation: "leaky_relu", "gelu" or "silu".

    Example:
        ``Payne.initialise(space, domain, ("flux",), wavelength, hidden=(300, 300), activation="leaky_relu", key=key)``
    """

    weights: tuple[Float[Array, "_in _out"], ...]
    biases: tuple[Float[Array, " _out"], ...]
    center: Float[Array, "channels pixels"]
    width: Float[Array, "channels pixels"]
    space: LabelSpace = eqx.field(static=True)
    domain: SpectralDomain = eqx.field(static=True)
    channels: tuple[str, ...] = eqx.field(static=True)
    wavelength: HostArray = eqx.field(static=True)
    activation: str = eqx.field(static=True)
    architecture: ClassVar[str] = "payne"

    @classmethod
    def initialise(
        cls,
        space: LabelSpace,
        domain: SpectralDomain,
        channels: tuple[str, ...],
        wavelength: np.ndarray,
        *,
        hidden: tuple[int, ...],
        activation: str,
        key: PRNGKeyArray,
    ) -> Payne:
        """Draw fresh weights (uniform in ±1/sqrt(fan-in), the default of the published code's framework)."""
        if activation not in ACTIVATIONS:
            raise RecipeError(f"activation {activation!r} is not known; choose one of {', '.join(ACTIVATIONS)}")
        wavelength = check_wavelength(wavelength)
        pixels = len(wavelength)
        sizes = (len(space), *hidden, len(channels) * pixels)
        if min(sizes) < 1:
            raise RecipeError(f"every layer needs at least one unit, got hidden = {hidden}")
        weights, biases = [], []
        for n_in, n_out, layer_key in zip(sizes[:-1], sizes[1:], jax.random.split(key, len(sizes) - 1), strict=True):
            limit = 1 / np.sqrt(n_in)
            w_key, b_key = jax.random.split(layer_key)
            weights.append(jax.random.uniform(w_key, (n_in, n_out), minval=-limit, maxval=limit))
            biases.append(jax.random.uniform(b_key, (n_out,), minval=-limit, maxval=limit))
        shape = (len(channels), pixels)
        return cls(
            weights=tuple(weights), biases=tuple(biases), center=jnp.zeros(shape), width=jnp.ones(shape),
            space=space, domain=domain, channels=tuple(channels), wavelength=HostArray(wavelength),
            activation=activation,
        )  # fmt: skip

    @classmethod
    def skeleton(
        cls, space: LabelSpace, domain: SpectralDomain, channels: tuple[str, ...], config: Mapping[str, Any]
    ) -> Payne:
        return cls.initialise(
            space, domain, channels, np.asarray(config["wavelength"], np.float64),
            hidden=tuple(config["hidden"]), activation=config["activation"], key=jax.random.key(0),
        )  # fmt: skip

    @property
    def config(self) -> dict[str, Any]:
        return {
            "hidden": [int(b.shape[0]) for b in self.biases[:-1]],
            "activation": self.activation,
            "wavelength": self.wavelength.values.tolist(),
        }

    @property
    def native_wavelength(self) -> np.ndarray:
        return self.wavelength.values

    def matrix_axes(self) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
        return {f"weights.{i}": ((0,), (1,)) for i in range(1, len(self.weights) - 1)}

    def bind(self, wavelength: np.ndarray) -> BoundPayne:
        pixels = self.wavelength.values
        if np.array_equal(wavelength, pixels):
            return BoundPayne(emulator=self, wavelength=HostArray(wavelength), indices=None, weights=None)
        indices, weights = lagrange_weights(pixels, wavelength)
        return BoundPayne(
            emulator=self,
            wavelength=HostArray(wavelength),
            indices=jnp.asarray(indices),
            weights=jnp.asarray(weights, jnp.float32),
        )

    def pixels(self, labels: Float[Array, " labels"]) -> Float[Array, "channels pixels"]:
        """Return all channels on the network's own pixels."""
        hidden = self.space.scale(jnp.asarray(labels, jnp.float32)) - 0.5
        activation = ACTIVATIONS[self.activation]
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = activation(hidden @ weight + bias)
        output = hidden @ self.weights[-1] + self.biases[-1]
        return self.center + self.width * output.reshape(self.center.shape)


class BoundPayne(BoundEmulator):
    """A Payne on given wavelengths: its own pixels, or cubic interpolation between them."""

    emulator: Payne
    wavelength: HostArray = eqx.field(static=True)
    indices: Int[Array, "wavelengths 4"] | None
    weights: Float[Array, "wavelengths 4"] | None

    def outputs(self, labels: Float[Array, " labels"]) -> Float[Array, "channels wavelengths"]:
        values = self.emulator.pixels(labels)
        if self.indices is None or self.weights is None:
            return values
        return jnp.sum(values[:, self.indices] * self.weights, axis=-1)

    def at(self, emulator: Emulator, columns: Int[Array, " subset"] | None = None) -> BoundPayne:
        if columns is not None:
            raise RecipeError("a Payne computes all its pixels at once; batch_wavelengths does not apply to it")
        return eqx.tree_at(lambda b: b.emulator, self, emulator)

    @property
    def floats_per_spectrum(self) -> int:
        widest = max(b.shape[0] for b in self.emulator.biases)
        return 3 * widest + 6 * len(self.wavelength)
