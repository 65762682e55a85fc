"""Optical depths that add up: one small network per chemical element, summed into one spectrum.

Lines of different elements hardly know of each other: what an abundance [X/Fe] does depends on the atmosphere (Teff,
log g, [Fe/H], [α/Fe], microturbulence) and on [X/Fe] itself, not on all the other abundances; and where lines overlap
it is their optical depths that add. A network that sees all labels at once has to learn this from the grid, at the cost
of many spectra. Here it is built in: each element has a network of its own that sees the atmosphere and its own
abundance, one more network sees the atmosphere alone, and their outputs are summed to the optical depth τ of
flux = exp(−τ). What elements do to each other (free electrons, opacity) passes through a few *latents*, numbers made of
all labels that every network sees.

This is a form of our own. Its ancestors are The Payne (Ting et al. 2019, ApJ 879, 69), whose readout it keeps, and
neural additive models (Agarwal et al. 2021, arXiv:2004.13912).
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
from starpayne.emulators.layers import ACTIVATIONS, check_activation
from starpayne.errors import RecipeError
from starpayne.labels import LabelSpace, is_abundance
from starpayne.wavelengths import check_wavelength

LATENT_UNITS = 64
"""Hidden units of the network that makes the latents."""

LEAST_FLUX = 1e-4
"""Normalised flux below which a training spectrum counts as this dark when its optical depths are averaged."""


class AdditivePayne(FixedGridEmulator):
    """Networks of single elements whose optical depths add up, on fixed wavelengths.

    Args:
        latent: (n_labels, 64) and (64, latents), the weights that make the latents.
        latent_bias: (64,).
        weights, biases: of each layer, (groups, n_in, n_out) and (groups, n_out); a group sees the labels that are no
            abundances, its own abundance (0 for the first group, which has none) and the latents.
        readout, readout_bias: (groups · units, channels · pixels) and (channels · pixels,).
        center, width: (channels, pixels); ``center + width * network`` is the optical depth of the flux, and the log10
            of the continuum.
        wavelength: the pixels, Å, in ``domain.medium``.
        activation: "leaky_relu", "gelu" or "silu".

    Example:
        ``AdditivePayne.initialise(space, domain, ("flux",), wavelength, hidden=(64, 64), latents=4, key=key)``
    """

    latent: tuple[Float[Array, "labels units"], Float[Array, "units latents"]]
    latent_bias: Float[Array, " units"]
    weights: tuple[Float[Array, "groups _in _out"], ...]
    biases: tuple[Float[Array, "groups _out"], ...]
    readout: Float[Array, "features outputs"]
    readout_bias: Float[Array, " outputs"]
    center: Float[Array, "channels pixels"]
    width: Float[Array, "channels pixels"]
    space: LabelSpace = eqx.field(static=True)
    domain: SpectralDomain = eqx.field(static=True)
    channels: tuple[str, ...] = eqx.field(static=True)
    wavelength: HostArray = eqx.field(static=True)
    activation: str = eqx.field(static=True)
    architecture: ClassVar[str] = "additive"

    @classmethod
    def initialise(
        cls,
        space: LabelSpace,
        domain: SpectralDomain,
        channels: tuple[str, ...],
        wavelength: np.ndarray,
        *,
        hidden: tuple[int, ...],
        latents: int,
        activation: str = "gelu",
        key: PRNGKeyArray,
    ) -> AdditivePayne:
        """Draw fresh weights, uniform in ±1/sqrt(fan-in).

        Args:
            hidden: units of each layer of every group.
            latents: numbers made of all labels that every group sees; 0 for strictly additive elements.
            activation: "leaky_relu", "gelu" or "silu".

        Raises:
            RecipeError: for a layer without units.
        """
        check_activation(activation)
        wavelength = check_wavelength(wavelength)
        if not hidden or min(hidden) < 1 or latents < 0:
            raise RecipeError(f"every layer needs at least one unit, got hidden = {hidden} and latents = {latents}")
        own = abundances(space)
        groups, inputs = 1 + len(own), len(space.inputs)
        sizes = (inputs - len(own) + (1 if own else 0) + latents, *hidden)
        keys = iter(jax.random.split(key, 2 * len(hidden) + 4))

        def uniform(shape: tuple[int, ...], fan_in: int) -> Array:
            limit = 1 / np.sqrt(fan_in)
            return jax.random.uniform(next(keys), shape, minval=-limit, maxval=limit)

        shape = (len(channels), len(wavelength))
        features, outputs = groups * hidden[-1], shape[0] * shape[1]
        layers = list(itertools.pairwise(sizes))
        return cls(
            latent=(uniform((inputs, LATENT_UNITS), inputs), uniform((LATENT_UNITS, latents), LATENT_UNITS)),
            latent_bias=jnp.zeros(LATENT_UNITS),
            weights=tuple(uniform((groups, a, b), a) for a, b in layers),
            biases=tuple(jnp.zeros((groups, b)) for _, b in layers),
            readout=uniform((features, outputs), features), readout_bias=jnp.zeros(outputs),
            center=jnp.zeros(shape), width=jnp.ones(shape), space=space, domain=domain, channels=tuple(channels),
            wavelength=HostArray(wavelength), activation=activation,
        )  # fmt: skip

    @classmethod
    def skeleton(
        cls, space: LabelSpace, domain: SpectralDomain, channels: tuple[str, ...], config: Mapping[str, Any]
    ) -> AdditivePayne:
        return cls.initialise(
            space, domain, channels, np.asarray(config["wavelength"], np.float64), hidden=tuple(config["hidden"]),
            latents=config["latents"], activation=config["activation"], key=jax.random.key(0),
        )  # fmt: skip

    @property
    def config(self) -> dict[str, Any]:
        return {
            "hidden": [int(b.shape[1]) for b in self.biases],
            "latents": int(self.latent[1].shape[1]),
            "activation": self.activation,
            "wavelength": self.wavelength.values.tolist(),
        }

    def matrix_axes(self) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
        return {f"weights.{i}": ((1,), (2,)) for i in range(1, len(self.weights))}

    @property
    def hidden_width(self) -> int:
        return int(self.biases[-1].shape[1])

    @property
    def readouts(self) -> tuple[str, ...]:
        return ("readout",)

    @property
    def floats_within(self) -> int:
        groups, units = self.biases[0].shape[0], max(b.shape[1] for b in self.biases)
        return 4 * groups * units

    def network_targets(
        self, targets: Float[np.ndarray, "n channels pixels"]
    ) -> Float[np.ndarray, "n channels pixels"]:
        found = np.array(targets, np.float32)
        found[:, 0] = -np.log(np.maximum(found[:, 0], LEAST_FLUX))
        return found

    def pixels(self, labels: Float[Array, " labels"]) -> Float[Array, "channels pixels"]:
        return self.pixels_of(labels[None])[0]

    def pixels_of(self, labels: Float[Array, "stars labels"]) -> Float[Array, "stars channels pixels"]:
        scaled = self.space.scale(jnp.asarray(labels, jnp.float32)) - 0.5
        activation = ACTIVATIONS[self.activation]
        hidden = self._inputs(scaled)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            hidden = activation(hidden @ weight + bias[:, None])
        features = hidden.transpose(1, 0, 2).reshape(labels.shape[0], -1)
        network = (features @ self.readout + self.readout_bias).reshape(-1, *self.center.shape)
        outputs = self.center + self.width * network
        return jnp.concatenate([jnp.exp(-outputs[:, :1]), outputs[:, 1:]], axis=1)

    def _inputs(self, scaled: Float[Array, "stars labels"]) -> Float[Array, "groups stars inputs"]:
        own = abundances(self.space)
        shared = [i for i in range(len(self.space.inputs)) if i not in own]
        latents = ACTIVATIONS[self.activation](scaled @ self.latent[0] + self.latent_bias) @ self.latent[1]
        common = jnp.concatenate([scaled[:, np.array(shared, int)], latents], axis=1)
        if not own:
            return common[None]
        single = jnp.concatenate([jnp.zeros((1, len(scaled))), scaled[:, np.array(own)].T])
        return jnp.concatenate([jnp.broadcast_to(common, (len(single), *common.shape)), single[..., None]], axis=2)


def abundances(space: LabelSpace) -> list[int]:
    """Return the places of the inputs that are abundances of a single element."""
    return [i for i, name in enumerate(space.inputs) if is_abundance(name)]
