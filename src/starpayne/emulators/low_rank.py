"""Low-rank updates of a network's weights (LoRA, arXiv:2106.09685): W + A B, of a few numbers where W has many.

A and B are the updates of a whole matrix, or of every matrix of a stack (the layers of a transformer, the groups of an
additive emulator). Predictions are always made with the sum, so that merging an update into the network changes none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from starpayne.emulators.base import Emulator
from starpayne.errors import RecipeError

Axes = tuple[tuple[int, ...], tuple[int, ...]]


class LowRank(eqx.Module):
    """Changes of an emulator's weights, by name.

    Args:
        factors: name → (stack, n_in, rank) and (stack, rank, n_out).
        full: name → the new array itself, where factors would not be smaller.
    """

    factors: dict[str, tuple[Float[Array, "stack _in rank"], Float[Array, "stack rank _out"]]]
    full: dict[str, Array]

    @property
    def size(self) -> int:
        """How many numbers are stored."""
        return sum(x.size for x in jax.tree_util.tree_leaves(self))


def fresh_low_rank(emulator: Emulator, learned: Any, rank: int, key: PRNGKeyArray) -> LowRank:
    """Return updates of rank ``rank`` that change nothing yet: A is random, B is zero.

    Args:
        learned: filter of the leaves that may change, as of :func:`~starpayne.training.optimizer.trainable`.

    Raises:
        RecipeError: for a rank under 1.
    """
    if rank < 1:
        raise RecipeError(f"rank = {rank}: a low-rank update needs a rank of at least 1")
    axes = matrices(emulator)
    factors, full = {}, {}
    for name, leaf in named(eqx.filter(emulator, learned)).items():
        if name in axes:
            stack, n_in, n_out = flat_shape(leaf.shape, axes[name])
            if rank * (n_in + n_out) < n_in * n_out:
                key, own = jax.random.split(key)
                first = jax.random.normal(own, (stack, n_in, rank)) / np.sqrt(n_in)
                factors[name] = first, jnp.zeros((stack, rank, n_out))
                continue
        full[name] = leaf
    return LowRank(factors, full)


def merged(emulator: Emulator, update: LowRank) -> Emulator:
    """Return the emulator with the updates added to its weights: an ordinary emulator."""
    axes = matrices(emulator)

    def changed(keys: Any, leaf: Any) -> Any:
        name = jax.tree_util.keystr(keys, simple=True, separator=".")
        if name in update.full:
            return update.full[name]
        if name not in update.factors:
            return leaf
        first, second = update.factors[name]
        return leaf + unflatten(first @ second, leaf.shape, axes[name])

    return jax.tree_util.tree_map_with_path(changed, emulator)


def matrices(emulator: Emulator) -> dict[str, Axes]:
    """Return name → (input axes, output axes) of all matrices that updates may be factored for."""
    readouts = dict.fromkeys(emulator.readouts, ((0,), (1,)))
    return {**readouts, **emulator.matrix_axes()}


def flat_shape(shape: tuple[int, ...], axes: Axes) -> tuple[int, int, int]:
    """Return (stack, n_in, n_out) of a weight whose other axes are a stack."""
    n_in, n_out = (int(np.prod([shape[i] for i in group])) for group in axes)
    return int(np.prod(shape)) // (n_in * n_out), n_in, n_out


def unflatten(matrix: Float[Array, "stack _in _out"], shape: tuple[int, ...], axes: Axes) -> Array:
    """Return a stack of matrices in the axes of the weight."""
    stack = [i for i in range(len(shape)) if i not in (*axes[0], *axes[1])]
    order = [*stack, *axes[0], *axes[1]]
    return matrix.reshape([shape[i] for i in order]).transpose(np.argsort(order).tolist())


def named(tree: Any) -> Mapping[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(keys, simple=True, separator="."): leaf for keys, leaf in leaves}
