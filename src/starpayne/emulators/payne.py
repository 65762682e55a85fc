"""The Payne: a fully connected network from labels to the pixels of a fixed wavelength grid.

Ting et al. 2019, ApJ 879, 69 (code: tingyuansen/The_Payne), and its modern form with other widths and activations
and, where asked for, with residual connections (pre-activation, He et al. 2016, arXiv:1603.05027).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from starpayne.emulators.base import HostArray, SpectralDomain
from starpayne.emulators.fixed_grid import FixedGridEmulator
from starpayne.emulators.layers import ACTIVATIONS, check_activation, rms_norm
from starpayne.errors import RecipeError
from starpayne.labels import LabelSpace
from starpayne.wavelengths import check_wavelength


class Payne(FixedGridEmulator):
    """A fully connected network on fixed wavelengths.

    Args:
        weights, biases: one per layer, (n_in, n_out) and (n_out,).
        center, width: (channels, pixels); the output is ``center + width * network``.
        wavelength: the pixels, Å, in ``domain.medium``.
        activation: a name of ``layers.ACTIVATIONS``, such as "leaky_relu", "gelu" or "silu".
        residual: whether every hidden layer after the first is added to what enters it.

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
    residual: bool = eqx.field(static=True)
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
        residual: bool = False,
        key: PRNGKeyArray,
    ) -> Payne:
        """Draw fresh weights (uniform in ±1/sqrt(fan-in), the default of the published code's framework)."""
        check_activation(activation)
        wavelength = check_wavelength(wavelength)
        pixels = len(wavelength)
        sizes = (len(space.inputs), *hidden, len(channels) * pixels)
        if min(sizes) < 1:
            raise RecipeError(f"every layer needs at least one unit, got hidden = {hidden}")
        if residual and len(set(hidden)) != 1:
            raise RecipeError(f"residual connections need hidden layers of one width, got hidden = {hidden}")
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
            activation=activation, residual=residual,
        )  # fmt: skip

    @classmethod
    def skeleton(
        cls, space: LabelSpace, domain: SpectralDomain, channels: tuple[str, ...], config: Mapping[str, Any]
    ) -> Payne:
        return cls.initialise(
            space, domain, channels, np.asarray(config["wavelength"], np.float64),
            hidden=tuple(config["hidden"]), activation=config["activation"],
            residual=bool(config.get("residual", False)), key=jax.random.key(0),
        )  # fmt: skip

    @property
    def config(self) -> dict[str, Any]:
        return {
            "hidden": [int(b.shape[0]) for b in self.biases[:-1]],
            "activation": self.activation,
            "residual": self.residual,
            "wavelength": self.wavelength.values.tolist(),
        }

    def matrix_axes(self) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
        return {f"weights.{i}": ((0,), (1,)) for i in range(1, len(self.weights) - 1)}

    @property
    def hidden_width(self) -> int:
        return self.biases[-2].shape[0] if len(self.biases) > 1 else 0

    @property
    def readouts(self) -> tuple[str, ...]:
        return (f"weights.{len(self.weights) - 1}",)

    @property
    def floats_within(self) -> int:
        return 3 * max(b.shape[0] for b in self.biases)

    def pixels(self, labels: Float[Array, " labels"]) -> Float[Array, "channels pixels"]:
        hidden = self.space.scale(jnp.asarray(labels, jnp.float32)) - 0.5
        hidden = self._residual_layers(hidden) if self.residual else self._plain_layers(hidden)
        output = hidden @ self.weights[-1] + self.biases[-1]
        return self.center + self.width * output.reshape(self.center.shape)

    def _plain_layers(self, hidden: Float[Array, " labels"]) -> Float[Array, " units"]:
        activation = ACTIVATIONS[self.activation]
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = activation(hidden @ weight + bias)
        return hidden

    def _residual_layers(self, hidden: Float[Array, " labels"]) -> Float[Array, " units"]:
        activation = ACTIVATIONS[self.activation]
        stream = hidden @ self.weights[0] + self.biases[0]
        for weight, bias in zip(self.weights[1:-1], self.biases[1:-1], strict=True):
            stream = stream + activation(rms_norm(stream)) @ weight + bias
        return activation(rms_norm(stream))
