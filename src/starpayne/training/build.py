"""A fresh emulator for a recipe, with its output scaled to the training spectra."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from starpayne.emulators import AdditivePayne, Convolutional, Emulator, Payne, TransformerPayne
from starpayne.training.architectures import (
    AdditiveArchitecture,
    ConvolutionalArchitecture,
    PayneArchitecture,
    TransformerArchitecture,
)
from starpayne.training.data import TrainingData
from starpayne.training.optimizer import name_of
from starpayne.training.recipe import Recipe

SHORTEST_PERIOD = 3.0
LONGEST_PERIOD = 4.0
"""Automatic periods of the encoding: from this many pixels to this many times the grid's range."""


def build(data: TrainingData, recipe: Recipe) -> Emulator:
    """Return an emulator with fresh weights drawn from the recipe's seed."""
    settings, key = recipe.architecture, jax.random.key(recipe.seed)
    if isinstance(settings, PayneArchitecture):
        emulator = Payne.initialise(
            data.space, data.domain, data.channels, data.wavelength,
            hidden=settings.hidden, activation=settings.activation, residual=settings.residual, key=key,
        )  # fmt: skip
    elif isinstance(settings, ConvolutionalArchitecture):
        emulator = Convolutional.initialise(
            data.space, data.domain, data.channels, data.wavelength,
            hidden=settings.hidden, filters=settings.filters, activation=settings.activation, key=key,
        )  # fmt: skip
    elif isinstance(settings, AdditiveArchitecture):
        emulator = AdditivePayne.initialise(
            data.space, data.domain, data.channels, data.wavelength,
            hidden=settings.hidden, latents=settings.latents, activation=settings.activation, key=key,
        )  # fmt: skip
    elif isinstance(settings, TransformerArchitecture):
        emulator = TransformerPayne.initialise(
            data.space, data.domain, data.channels, width=settings.width, depth=settings.depth,
            tokens=settings.tokens, head_width=settings.head_width,
            periods=settings.periods or fitted_periods(data.wavelength), key=key,
        )  # fmt: skip
    else:
        raise TypeError(f"a {recipe.emulator} has no weights to train: it is solved in closed form")
    emulator = scale_readouts(emulator, recipe)
    scaling = output_scaling(emulator.network_targets(data.targets), recipe, per_pixel=emulator.center.shape[1] > 1)
    return eqx.tree_at(lambda e: (e.center, e.width), emulator, tuple(jnp.asarray(x, jnp.float32) for x in scaling))


def scale_readouts(emulator: Emulator, recipe: Recipe) -> Emulator:
    """Return the emulator with the readouts' first weights falling as 1/d, not 1/sqrt(d), from that width on."""
    if not recipe.reference_width or not emulator.readouts:
        return emulator
    factor = (recipe.reference_width / emulator.hidden_width) ** 0.5

    def scaled(keys: Any, leaf: Any) -> Any:
        return leaf * factor if name_of(keys) in emulator.readouts else leaf

    return jax.tree_util.tree_map_with_path(scaled, emulator)


def output_scaling(
    targets: Float[np.ndarray, "n channels m"], recipe: Recipe, per_pixel: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Return the float64 center and width, (channels, pixels) or (channels, 1), that the recipe's output asks for."""
    axes = 0 if per_pixel else (0, 2)
    shape = (targets.shape[1], -1)
    center = np.asarray(np.mean(targets, axis=axes, dtype=np.float64)).reshape(shape)
    width = np.asarray(np.std(targets, axis=axes, dtype=np.float64)).reshape(shape)
    if recipe.output == "raw":
        return np.zeros_like(center), np.ones_like(width)
    # A pixel that never changes in the training set must not lock the network there.
    least = 0.1 * np.mean(width, axis=1, keepdims=True) + 1e-6
    return center, np.maximum(width, least)


def fitted_periods(wavelength: np.ndarray) -> tuple[float, float]:
    """Return the shortest and longest period in log10(λ/Å) that a wavelength grid can make use of."""
    x = np.log10(wavelength)
    return float(SHORTEST_PERIOD * np.median(np.diff(x))), float(LONGEST_PERIOD * (x[-1] - x[0]))


def channel_scale(data: TrainingData) -> np.ndarray:
    """Return (channels, 1) factors that bring the spread of every channel to that of the flux, for the loss."""
    spread = np.std(data.targets, axis=(0, 2), dtype=np.float64)
    return (spread[0] / np.maximum(spread, 1e-12)).astype(np.float32)[:, None]
