"""A fresh emulator for a recipe, with its output scaled to the training spectra."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from starpayne.emulators import Emulator, Payne, TransformerPayne
from starpayne.training.data import TrainingData
from starpayne.training.recipe import PayneArchitecture, Recipe

SHORTEST_PERIOD = 3.0
LONGEST_PERIOD = 4.0
"""Automatic periods of the encoding: from this many pixels to this many times the grid's range."""


def build(data: TrainingData, recipe: Recipe) -> Emulator:
    """Return an emulator with fresh weights drawn from the recipe's seed."""
    settings, key = recipe.architecture, jax.random.key(recipe.seed)
    if isinstance(settings, PayneArchitecture):
        emulator = Payne.initialise(
            data.space, data.domain, data.channels, data.wavelength,
            hidden=settings.hidden, activation=settings.activation, key=key,
        )  # fmt: skip
    else:
        emulator = TransformerPayne.initialise(
            data.space, data.domain, data.channels, width=settings.width, depth=settings.depth,
            tokens=settings.tokens, head_width=settings.head_width,
            periods=settings.periods or fitted_periods(data.wavelength), key=key,
        )  # fmt: skip
    if recipe.output == "raw":
        return emulator
    # Per pixel where the network has pixels; else one number per channel.
    axes = 0 if emulator.center.shape[1] > 1 else (0, 2)
    center = np.mean(data.targets, axis=axes, dtype=np.float64).reshape(emulator.center.shape)
    width = np.std(data.targets, axis=axes, dtype=np.float64).reshape(emulator.width.shape)
    # A pixel that never changes in the training set must not lock the network there.
    width = np.maximum(width, 0.1 * np.mean(width, axis=1, keepdims=True) + 1e-6)
    scaling = jnp.asarray(center, jnp.float32), jnp.asarray(width, jnp.float32)
    return eqx.tree_at(lambda e: (e.center, e.width), emulator, scaling)


def fitted_periods(wavelength: np.ndarray) -> tuple[float, float]:
    """Return the shortest and longest period in log10(λ/Å) that a wavelength grid can make use of."""
    x = np.log10(wavelength)
    return float(SHORTEST_PERIOD * np.median(np.diff(x))), float(LONGEST_PERIOD * (x[-1] - x[0]))


def channel_scale(data: TrainingData) -> np.ndarray:
    """Return (channels, 1) factors that bring the spread of every channel to that of the flux, for the loss."""
    spread = np.std(data.targets, axis=(0, 2), dtype=np.float64)
    return (spread[0] / np.maximum(spread, 1e-12)).astype(np.float32)[:, None]
