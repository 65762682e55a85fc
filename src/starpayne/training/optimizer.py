"""The optimizer of a recipe, built from optax."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
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
    elif recipe.schedule == "stable_decay":
        last = max(1, min(rest, round(recipe.decay * recipe.steps)))
        fall = optax.linear_schedule(recipe.learning_rate, 0.0, last, transition_begin=rest - last)
    else:
        fall = optax.constant_schedule(recipe.learning_rate)
    return optax.join_schedules([rise, fall], [warmup])


def make_optimizer(recipe: Recipe, emulator: Emulator) -> optax.GradientTransformation:
    """Return the gradient transformation of a recipe for the trainable part of this emulator.

    The same object for the same recipe and names of weights: steps compiled for one training serve the next.
    """
    factors = rate_factors(recipe, emulator) if recipe.reference_width else {}
    return _made(recipe, tuple(emulator.matrix_axes().items()), tuple(factors.items()))


@lru_cache(maxsize=32)
def _made(
    recipe: Recipe, matrices: tuple[tuple[str, Any], ...], factors: tuple[tuple[str, float], ...]
) -> optax.GradientTransformation:
    rate = learning_rate(recipe)
    if recipe.optimizer == "muon":
        axes = dict(matrices)

        def dimension_numbers(tree: Any) -> Any:
            return jax.tree_util.tree_map_with_path(lambda keys, _: _as_muon(axes.get(name_of(keys))), tree)

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
    steps = [optax.clip_by_global_norm(recipe.clip)] if recipe.clip else []
    steps.append(update)
    if factors:
        steps.append(scale_updates(dict(factors)))
    return optax.chain(*steps)


def rate_factors(recipe: Recipe, emulator: Emulator) -> dict[str, float]:
    """Return weight name → factor on its learning rate at this emulator's width (μP, arXiv:2203.03466, table 8).

    An update of Adam has a fixed size per weight, so that over d inputs it adds up to d: its rate goes as 1/d. Muon's
    is a rotation times sqrt(d) (``consistent_rms``), which adds up to sqrt(d). Weights whose inputs are labels, and
    biases, need no factor.
    """
    ratio = recipe.reference_width / max(1, emulator.hidden_width)
    hidden = ratio**0.5 if recipe.optimizer == "muon" else ratio
    return dict.fromkeys(emulator.matrix_axes(), hidden) | dict.fromkeys(emulator.readouts, ratio)


def scale_updates(factors: Mapping[str, float]) -> optax.GradientTransformation:
    """Return a transformation that multiplies the updates of the weights of these names."""

    def init(params: Any) -> Any:
        del params
        return optax.EmptyState()

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        scaled = jax.tree_util.tree_map_with_path(lambda keys, u: u * factors.get(name_of(keys), 1.0), updates)
        return scaled, state

    return optax.GradientTransformation(init, update)


def name_of(keys: Any) -> str:
    """Return the name of a leaf as ``matrix_axes`` and the model file have it, such as ``block.query``."""
    return jax.tree_util.keystr(keys, simple=True, separator=".")


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
