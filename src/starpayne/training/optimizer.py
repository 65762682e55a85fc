"""The optimizer of a recipe, built from optax."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, muon

from starpayne.emulators import Emulator
from starpayne.training.recipe import Recipe

HUBER_DELTA = 1e-3


def learning_rate(recipe: Recipe) -> optax.Schedule:
    """Return the rate at each step: a linear warm-up, then the recipe's schedule."""
    warmup = max(1, round(recipe.warmup * recipe.steps))
    rest = max(1, recipe.steps - warmup)
    rise = optax.linear_schedule(recipe.learning_rate / warmup, recipe.learning_rate, warmup)
    if recipe.schedule == "cosine":
        fall = optax.cosine_decay_schedule(recipe.learning_rate, rest)
    elif recipe.schedule == "linear":
        fall = optax.linear_schedule(recipe.learning_rate, 0.0, rest)
    else:
        fall = optax.constant_schedule(recipe.learning_rate)
    return optax.join_schedules([rise, fall], [warmup])


def make_optimizer(recipe: Recipe, emulator: Emulator) -> optax.GradientTransformation:
    """Return the gradient transformation of a recipe for the trainable part of this emulator."""
    rate = learning_rate(recipe)
    if recipe.optimizer == "muon":
        axes = emulator.matrix_axes()

        def dimension_numbers(tree: Any) -> Any:
            return jax.tree_util.tree_map_with_path(
                lambda keys, _: _as_muon(axes.get(jax.tree_util.keystr(keys, simple=True, separator="."))), tree
            )

        # consistent_rms: updates as large as AdamW's, so that one learning rate serves both (arXiv:2502.16982).
        update = muon(
            rate,
            weight_decay=recipe.weight_decay,
            adam_weight_decay=recipe.weight_decay,
            muon_weight_dimension_numbers=dimension_numbers,
            consistent_rms=0.2,
        )
    elif recipe.optimizer == "radam":
        update = optax.radam(rate)
    else:
        update = optax.adamw(rate, weight_decay=recipe.weight_decay)
    return optax.chain(optax.clip_by_global_norm(recipe.clip), update) if recipe.clip else update


def _as_muon(axes: tuple[tuple[int, ...], tuple[int, ...]] | None) -> MuonDimensionNumbers | None:
    return MuonDimensionNumbers(*axes) if axes else None


def loss_of(name: str, difference: jax.Array) -> jax.Array:
    """Return the mean loss of predicted minus true."""
    if name == "l1":
        return jnp.mean(jnp.abs(difference))
    if name == "l2":
        return jnp.mean(difference**2)
    return jnp.mean(optax.huber_loss(difference, delta=HUBER_DELTA)) / HUBER_DELTA


def trainable(emulator: Emulator) -> Any:
    """Return the filter of leaves that training changes: all arrays but the fixed scaling of the output."""
    spec = jax.tree_util.tree_map(eqx.is_inexact_array, emulator)
    return eqx.tree_at(lambda e: (e.center, e.width), spec, (False, False))
