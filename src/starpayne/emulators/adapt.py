"""A trained network on other labels, wavelengths or channels: what it knows is kept, what is new starts from no effect.

Where the new labels and wavelengths are the old ones, the adapted network predicts what the old one predicts.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from starpayne.emulators.additive import AdditivePayne, abundances
from starpayne.emulators.base import Emulator, HostArray
from starpayne.emulators.convolutional import Convolutional
from starpayne.emulators.domain import SpectralDomain
from starpayne.emulators.payne import Payne
from starpayne.emulators.transformer import TransformerPayne
from starpayne.errors import RecipeError
from starpayne.labels import LabelSpace
from starpayne.wavelengths import lagrange_weights

SAME = 1e-9
"""Relative difference of wavelengths that are the same but for rounding."""


@dataclass(frozen=True)
class Target:
    """What a network is adapted to.

    Args:
        space: label table, from :func:`~starpayne.labels.mapped_space`.
        domain: spectral domain, in the medium of the network.
        wavelength: (m,) Å of the new grid, in that medium: the pixels of a network that has pixels.
        channels: of the new network.
        center, width: (channels, m) scaling of the new grid's outputs, for pixels and channels that the network lacks.
    """

    space: LabelSpace
    domain: SpectralDomain
    wavelength: np.ndarray
    channels: tuple[str, ...]
    center: np.ndarray
    width: np.ndarray


def adapted(emulator: Emulator, target: Target) -> Emulator:
    """Return the network on other labels, wavelengths and channels.

    - A label it lacks enters with weights of zero. A label that the grid lacks is held (``LabelSpace.held``).
    - A network with pixels keeps those of the old range, interpolated to the new sampling; pixels beyond start from the
      mean spectrum of the new grid. TransformerPayne answers anywhere.
    - A channel it lacks starts from the mean of the new grid.

    Raises:
        RecipeError: for an emulator in closed form, and for a convolutional one on other pixels or channels.
    """
    if isinstance(emulator, TransformerPayne):
        return _transformer(emulator, target)
    if isinstance(emulator, Payne):
        return _payne(emulator, target)
    if isinstance(emulator, AdditivePayne):
        return _additive(emulator, target)
    if isinstance(emulator, Convolutional):
        return _convolutional(emulator, target)
    raise RecipeError(
        f"a {emulator.architecture} is solved in closed form and cannot be fine-tuned; train it on the new grid"
    )


def input_rows(old: LabelSpace, new: LabelSpace, weight: Float[Array, "inputs n"]) -> Float[Array, "newinputs n"]:
    """Return the rows of a first layer in the order of the new inputs; zeros for labels that it lacks."""
    zero = jnp.zeros_like(weight[:1])
    return jnp.concatenate([weight[old.inputs.index(n)][None] if n in old.inputs else zero for n in new.inputs])


def _transformer(emulator: TransformerPayne, target: Target) -> TransformerPayne:
    first, second = emulator.embed
    hidden, last = emulator.head
    columns, centers, widths = [], [], []
    for i, channel in enumerate(target.channels):
        known = channel in emulator.channels
        j = emulator.channels.index(channel) if known else 0
        columns.append(last[:, j] if known else jnp.zeros_like(last[:, 0]))
        # One number for all wavelengths: the mean, and the spread of everything about it.
        mean = np.mean(target.center[i])
        spread = np.sqrt(np.mean(target.width[i] ** 2) + np.var(target.center[i]))
        centers.append(emulator.center[j] if known else jnp.full((1,), mean, jnp.float32))
        widths.append(emulator.width[j] if known else jnp.full((1,), spread, jnp.float32))
    return dataclasses.replace(
        emulator,
        embed=(input_rows(emulator.space, target.space, first), second),
        head=(hidden, jnp.stack(columns, axis=1)),
        center=jnp.stack(centers), width=jnp.stack(widths),
        space=target.space, domain=target.domain, channels=target.channels,
    )  # fmt: skip


def _payne(emulator: Payne, target: Target) -> Payne:
    first = input_rows(emulator.space, target.space, emulator.weights[0])
    pixels = _Pixels.of(emulator, emulator.weights[-1], emulator.biases[-1]).at(emulator, target)
    return dataclasses.replace(
        emulator, weights=(first, *emulator.weights[1:-1], pixels.flat_readout),
        biases=(*emulator.biases[:-1], pixels.flat_bias), center=pixels.center, width=pixels.width, space=target.space,
        domain=target.domain, channels=target.channels, wavelength=HostArray(target.wavelength),
    )  # fmt: skip


def _convolutional(emulator: Convolutional, target: Target) -> Convolutional:
    own, asked = emulator.wavelength.values, target.wavelength
    same = len(asked) == len(own) and np.allclose(asked, own, rtol=SAME, atol=0)
    if not same or target.channels != emulator.channels:
        raise RecipeError(
            "a convolutional emulator computes its pixels from each other: it can be fine-tuned on its own pixels and "
            "channels only; fine-tune a transformer, or train afresh"
        )
    first = input_rows(emulator.space, target.space, emulator.weights[0])
    return dataclasses.replace(
        emulator, weights=(first, *emulator.weights[1:]), space=target.space, domain=target.domain
    )


def _additive(emulator: AdditivePayne, target: Target) -> AdditivePayne:
    old, new = emulator.space, target.space
    own_old, own_new = ([space.inputs[i] for i in abundances(space)] for space in (old, new))
    # Group 0 sees no abundance; a group of a new element starts as a copy of the last one, with a readout of zero.
    source = [0, *(1 + own_old.index(n) if n in own_old else len(own_old) for n in own_new)]
    fresh = np.array([False, *(n not in own_old for n in own_new)])
    weights = tuple(w[np.array(source)] for w in emulator.weights)
    biases = tuple(b[np.array(source)] for b in emulator.biases)
    weights = (_group_inputs(weights[0], old, new), *weights[1:])
    units = biases[-1].shape[1]
    readout = emulator.readout.reshape(len(own_old) + 1, units, -1)[np.array(source)]
    readout = jnp.where(jnp.asarray(fresh)[:, None, None], 0.0, readout).reshape(len(source) * units, -1)
    pixels = _Pixels.of(emulator, readout, emulator.readout_bias).at(emulator, target)
    return dataclasses.replace(
        emulator, latent=(input_rows(old, new, emulator.latent[0]), emulator.latent[1]), weights=weights,
        biases=biases, readout=pixels.flat_readout, readout_bias=pixels.flat_bias, center=pixels.center,
        width=pixels.width, space=new, domain=target.domain, channels=target.channels,
        wavelength=HostArray(target.wavelength),
    )  # fmt: skip


def _group_inputs(weight: Float[Array, "groups n k"], old: LabelSpace, new: LabelSpace) -> Float[Array, "groups m k"]:
    """Return the first layer of all groups in the order of the new inputs: shared labels, latents, own abundance."""
    shared_old, shared_new = (
        [n for i, n in enumerate(space.inputs) if i not in abundances(space)] for space in (old, new)
    )
    zero = jnp.zeros_like(weight[:, 0])
    rows = [weight[:, shared_old.index(n)] if n in shared_old else zero for n in shared_new]
    has_own = bool(abundances(old))
    latents = weight.shape[1] - len(shared_old) - int(has_own)
    rows += [weight[:, len(shared_old) + i] for i in range(latents)]
    if abundances(new):
        rows.append(weight[:, -1] if has_own else zero)
    return jnp.stack(rows, axis=1)


class _Pixels(eqx.Module):
    """The last layer of a network with pixels: ``center + width * (hidden @ readout + bias)``."""

    readout: Float[Array, "units channels pixels"]
    bias: Float[Array, "channels pixels"]
    center: Float[Array, "channels pixels"]
    width: Float[Array, "channels pixels"]

    @classmethod
    def of(cls, emulator: Payne | AdditivePayne, readout: Array, bias: Array) -> _Pixels:
        shape = emulator.center.shape
        return cls(readout.reshape(-1, *shape), bias.reshape(shape), emulator.center, emulator.width)

    @property
    def flat_readout(self) -> Array:
        return self.readout.reshape(self.readout.shape[0], -1)

    @property
    def flat_bias(self) -> Array:
        return self.bias.reshape(-1)

    def at(self, emulator: Payne | AdditivePayne, target: Target) -> _Pixels:
        """Return the layer on the pixels and channels of the target."""
        own, asked = emulator.wavelength.values, target.wavelength
        if np.array_equal(own, asked) and target.channels == emulator.channels:
            return self
        # The rounding of a conversion between air and vacuum must not put the first or last pixel outside.
        slack = SAME * own[-1]
        inside = (asked >= own[0] - slack) & (asked <= own[-1] + slack)
        n, m = len(target.channels), len(asked)
        readout = np.zeros((self.readout.shape[0], n, m), np.float32)
        bias, center, width = np.zeros((n, m), np.float32), target.center.copy(), target.width.copy()
        if np.any(inside):
            indices, weights = lagrange_weights(own, asked[inside])
            for i, channel in enumerate(target.channels):
                if channel not in emulator.channels:
                    continue
                j = emulator.channels.index(channel)
                scaled = np.asarray(self.width[j]) * np.asarray(self.bias[j])
                own_center, own_width = np.asarray(self.center[j]), np.asarray(self.width[j])
                center[i, inside] = np.sum(own_center[indices] * weights, axis=1)
                # A cubic's weights have both signs: the width must not vanish.
                width[i, inside] = np.sum(own_width[indices] * np.abs(weights), axis=1)
                bias[i, inside] = np.sum(scaled[indices] * weights, axis=1) / width[i, inside]
                rows = np.asarray(self.readout[:, j]) * own_width
                readout[:, i, inside] = np.sum(rows[:, indices] * weights, axis=2) / width[i, inside]
        arrays = (readout, bias, center, width)
        return _Pixels(*(jnp.asarray(x, jnp.float32) for x in arrays))


def learned_arrays(emulator: Emulator, part: str) -> tuple[str, ...]:
    """Return the names of the weights of a part: ``"head"`` (the last layers) or ``"labels"`` (the label embedding).

    Raises:
        RecipeError: for a part that this architecture does not have.
    """
    parts: dict[str, tuple[str, ...]] = {}
    if isinstance(emulator, TransformerPayne):
        parts = {"head": ("head.0", "head.1"), "labels": ("embed.0", "embed.1")}
    elif isinstance(emulator, Payne):
        last = len(emulator.weights) - 1
        parts = {"head": (f"weights.{last}", f"biases.{last}"), "labels": ("weights.0", "biases.0")}
    elif isinstance(emulator, AdditivePayne):
        embedding = ("latent.0", "latent.1", "latent_bias", "weights.0", "biases.0")
        parts = {"head": ("readout", "readout_bias"), "labels": embedding}
    elif isinstance(emulator, Convolutional):
        last = len(emulator.filters) - 1
        parts = {"head": (f"filters.{last}", f"filter_biases.{last}"), "labels": ("weights.0", "biases.0")}
    if part not in parts:
        raise RecipeError(f"a {emulator.architecture} has no part {part!r}; it has {', '.join(parts) or 'none'}")
    return parts[part]
