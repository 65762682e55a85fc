"""A convolutional emulator: dense layers to a short sequence, transposed convolutions from it up to the pixels.

After the ancestor in The_Payne's code (tingyuansen/The_Payne, training.py; dense 300 → 300 → 320, reshaped to 64
channels × 5, transposed convolutions with a kernel of 11 and a stride of 3). It needs as many of them as reach the
pixels: seven for 8,749, six for 2,917; what is left over is cropped. Batch normalisation is left out, since it would
make a spectrum depend on its batch; each layer normalises its channels instead.
"""

from __future__ import annotations

import itertools
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

START, KERNEL, STRIDE, PADDING = 5, 11, 3, 5
"""Length of the first sequence; kernel, stride and padding of every transposed convolution."""

TAPS = -(-KERNEL // STRIDE)
"""Places of the input that reach one place of the output."""


class Convolutional(FixedGridEmulator):
    """Dense layers, then transposed convolutions up to fixed pixels.

    Args:
        weights, biases: of the dense layers, (n_in, n_out) and (n_out,).
        filters, filter_biases: one per transposed convolution, (11, n_in, n_out) and (n_out,).
        center, width: (channels, pixels); the output is ``center + width * network``.
        wavelength: the pixels, Å, in ``domain.medium``.
        activation: "leaky_relu" (as published), "gelu" or "silu".
    """

    weights: tuple[Float[Array, "_in _out"], ...]
    biases: tuple[Float[Array, " _out"], ...]
    filters: tuple[Float[Array, "taps _in _out"], ...]
    filter_biases: tuple[Float[Array, " _out"], ...]
    center: Float[Array, "channels pixels"]
    width: Float[Array, "channels pixels"]
    space: LabelSpace = eqx.field(static=True)
    domain: SpectralDomain = eqx.field(static=True)
    channels: tuple[str, ...] = eqx.field(static=True)
    wavelength: HostArray = eqx.field(static=True)
    activation: str = eqx.field(static=True)
    architecture: ClassVar[str] = "convolutional"

    @classmethod
    def initialise(
        cls,
        space: LabelSpace,
        domain: SpectralDomain,
        channels: tuple[str, ...],
        wavelength: np.ndarray,
        *,
        hidden: tuple[int, ...],
        filters: int,
        activation: str,
        key: PRNGKeyArray,
    ) -> Convolutional:
        """Draw fresh weights, uniform with variance 1/fan-in."""
        check_activation(activation)
        wavelength = check_wavelength(wavelength)
        sizes = (len(space.inputs), *hidden, filters * START)
        if min(sizes) < 1:
            raise RecipeError(f"every layer needs at least one unit, got hidden = {hidden} and filters = {filters}")
        n_layers = count_layers(len(wavelength))
        keys = iter(jax.random.split(key, len(sizes) - 1 + n_layers))

        def uniform(shape: tuple[int, ...], fan_in: float) -> Array:
            limit = np.sqrt(3 / fan_in)
            return jax.random.uniform(next(keys), shape, minval=-limit, maxval=limit)

        outputs = (filters,) * (n_layers - 1) + (len(channels),)
        # A place of the output is reached by a third of the kernel.
        fan_in = filters * KERNEL / STRIDE
        shape = (len(channels), len(wavelength))
        return cls(
            weights=tuple(uniform((a, b), a) for a, b in itertools.pairwise(sizes)),
            biases=tuple(jnp.zeros(b) for b in sizes[1:]),
            filters=tuple(uniform((KERNEL, filters, n), fan_in) for n in outputs),
            filter_biases=tuple(jnp.zeros(n) for n in outputs),
            center=jnp.zeros(shape), width=jnp.ones(shape), space=space, domain=domain, channels=tuple(channels),
            wavelength=HostArray(wavelength), activation=activation,
        )  # fmt: skip

    @classmethod
    def skeleton(
        cls, space: LabelSpace, domain: SpectralDomain, channels: tuple[str, ...], config: Mapping[str, Any]
    ) -> Convolutional:
        return cls.initialise(
            space, domain, channels, np.asarray(config["wavelength"], np.float64), hidden=tuple(config["hidden"]),
            filters=config["filters"], activation=config["activation"], key=jax.random.key(0),
        )  # fmt: skip

    @property
    def config(self) -> dict[str, Any]:
        return {
            "hidden": [int(b.shape[0]) for b in self.biases[:-1]],
            "filters": int(self.filters[0].shape[1]),
            "activation": self.activation,
            "wavelength": self.wavelength.values.tolist(),
        }

    def matrix_axes(self) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
        dense = {f"weights.{i}": ((0,), (1,)) for i in range(1, len(self.weights))}
        # Every tap of a filter is a matrix between channels.
        return dense | {f"filters.{i}": ((1,), (2,)) for i in range(len(self.filters) - 1)}

    @property
    def hidden_width(self) -> int:
        return int(self.filters[0].shape[1])

    @property
    def readouts(self) -> tuple[str, ...]:
        return (f"filters.{len(self.filters) - 1}",)

    @property
    def floats_within(self) -> int:
        return 2 * (TAPS + STRIDE) * self.filters[0].shape[1] * (len(self.wavelength) // STRIDE + TAPS)

    def pixels(self, labels: Float[Array, " labels"]) -> Float[Array, "channels pixels"]:
        return self.pixels_of(labels[None])[0]

    def pixels_of(self, labels: Float[Array, "stars labels"]) -> Float[Array, "stars channels pixels"]:
        activation = ACTIVATIONS[self.activation]
        hidden = self.space.scale(jnp.asarray(labels, jnp.float32)) - 0.5
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = activation(hidden @ weight + bias)
        hidden = hidden @ self.weights[-1] + self.biases[-1]
        sequence = hidden.reshape(hidden.shape[0], START, -1)
        lengths = layer_lengths(len(self.wavelength), len(self.filters))
        for filters, bias, length in zip(self.filters, self.filter_biases, lengths, strict=True):
            sequence = transposed_convolution(activation(rms_norm(sequence)), filters, length) + bias
        return self.center + self.width * sequence.transpose(0, 2, 1)


def count_layers(pixels: int) -> int:
    """Return how many transposed convolutions lead from the first sequence to at least so many pixels."""
    n, length = 1, _longest(START)
    while length < pixels:
        n, length = n + 1, _longest(length)
    return n


def layer_lengths(pixels: int, layers: int) -> list[int]:
    """Return the length of the sequence after each layer: no more of it than the pixels will need."""
    needed = [pixels]
    for _ in range(layers - 1):
        needed.append((needed[-1] - 1 + PADDING) // STRIDE + 1)
    lengths, length = [], START
    for most in reversed(needed):
        length = min(_longest(length), most)
        lengths.append(length)
    return lengths


def _longest(length: int) -> int:
    """Return the full length after a transposed convolution."""
    return (length - 1) * STRIDE - 2 * PADDING + KERNEL


def transposed_convolution(
    x: Float[Array, "stars places inputs"], filters: Float[Array, "taps inputs outputs"], length: int
) -> Float[Array, "stars {length} outputs"]:
    """Return the first ``length`` places of PyTorch's ConvTranspose1d(kernel 11, stride 3, padding 5), no bias.

    Place 3m + r of the output is reached by the inputs m, m − 1, m − 2 and m − 3 through the taps r, r + 3, … of the
    kernel: one matrix product whose rows are places of the input, much faster on a CPU than XLA's own convolution.
    """
    stars, places, n_in = x.shape
    n_out = filters.shape[2]
    matrix = jnp.pad(filters, ((0, TAPS * STRIDE - KERNEL), (0, 0), (0, 0)))
    matrix = matrix.reshape(TAPS, STRIDE, n_in, n_out).transpose(0, 2, 1, 3).reshape(TAPS * n_in, STRIDE * n_out)
    edge = jnp.zeros((stars, TAPS - 1, n_in))
    padded = jnp.concatenate([edge, x, edge], axis=1)
    rows = places + TAPS - 1
    taps = [padded[:, TAPS - 1 - k : TAPS - 1 - k + rows] for k in range(TAPS)]
    y = jnp.concatenate(taps, axis=-1) @ matrix
    return y.reshape(stars, rows * STRIDE, n_out)[:, PADDING : PADDING + length]
