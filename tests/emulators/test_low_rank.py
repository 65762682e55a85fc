"""Low-rank updates: nothing changes at first, anything can at full rank, and W + A B is the sum it says it is."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

from starpayne.emulators import Emulator, LowRank, fresh_low_rank, merged
from starpayne.emulators.low_rank import flat_shape, matrices, named, unflatten
from starpayne.errors import RecipeError
from starpayne.training import AdditiveArchitecture, PayneArchitecture, TransformerArchitecture
from starpayne.training.optimizer import trainable

RECIPES = {
    "payne": toy.recipe("payne", architecture=PayneArchitecture((16, 12))),
    "additive": toy.recipe("additive", architecture=AdditiveArchitecture((16, 12), latents=2)),
    "transformer": toy.recipe("transformer", architecture=TransformerArchitecture(8, 3, 4, 4)),
    "convolutional": toy.recipe("convolutional"),
}
ALL = pytest.mark.parametrize("name", RECIPES)
KEY = jax.random.key(3)


# Compiled whole: operation by operation, each shape of weights would be several functions to compile.
fresh, merge, unflat = eqx.filter_jit(fresh_low_rank), eqx.filter_jit(merged), jax.jit(unflatten, static_argnums=(1, 2))


def network(name: str) -> Emulator:
    return toy.network(RECIPES[name])


def stirred(update: LowRank) -> LowRank:
    """An update in which everything has moved."""
    random = np.random.default_rng(0)
    return jax.tree_util.tree_map(lambda x: x + jnp.asarray(random.normal(0, 0.1, x.shape), jnp.float32), update)


@ALL
def test_a_fresh_update_changes_nothing(name: str) -> None:
    emulator = network(name)
    same = merge(emulator, fresh(emulator, trainable(emulator), 2, KEY))
    assert named(same).keys() == named(emulator).keys()
    for one, other in zip(*map(jax.tree_util.tree_leaves, (emulator, same)), strict=True):
        np.testing.assert_array_equal(one, other)


@ALL
def test_an_update_reaches_every_weight_that_may_move_and_no_other(name: str) -> None:
    emulator = network(name)
    other = merge(emulator, stirred(fresh(emulator, trainable(emulator), 2, KEY)))
    moves = named(trainable(emulator))
    for key, leaf in named(emulator).items():
        assert np.array_equal(leaf, named(other)[key]) is not moves[key], key


@ALL
def test_factors_stand_where_they_are_smaller_and_whole_arrays_elsewhere(name: str) -> None:
    emulator = network(name)
    update = fresh(emulator, trainable(emulator), 2, KEY)
    leaves, axes = named(emulator), matrices(emulator)
    assert update.factors
    for key, (first, second) in update.factors.items():
        stack, n_in, n_out = flat_shape(leaves[key].shape, axes[key])
        assert first.shape == (stack, n_in, 2)
        assert second.shape == (stack, 2, n_out)
        assert first.size + second.size < leaves[key].size
    for key, value in update.full.items():
        assert value.shape == leaves[key].shape
    assert not set(update.full) & set(update.factors)
    assert {"center", "width"}.isdisjoint({*update.full, *update.factors})
    counted = sum(a.size + b.size for a, b in update.factors.values()) + sum(x.size for x in update.full.values())
    assert update.size == counted < sum(leaf.size for leaf in leaves.values())


def test_the_factors_of_stacked_weights_are_stacked() -> None:
    emulator = network("transformer")
    update = fresh(emulator, trainable(emulator), 2, KEY)
    shapes = {key: (a.shape, b.shape) for key, (a, b) in update.factors.items()}
    assert shapes["block.query"] == ((3, 8, 2), (3, 2, 8))  # (L, d, h k) of (3, 8, 2, 4)
    assert shapes["block.out"] == ((3, 8, 2), (3, 2, 8))  # (L, h k, d)
    assert shapes["block.up"] == ((3, 8, 2), (3, 2, 32))
    assert shapes["embed.1"] == ((4, 8, 2), (4, 2, 8))  # one for each of four tokens
    emulator = network("additive")
    update = fresh(emulator, trainable(emulator), 2, KEY)
    first, second = update.factors["weights.1"]
    assert (first.shape, second.shape) == ((2, 16, 2), (2, 2, 12))  # one for each of two groups


@pytest.mark.parametrize(
    ("name", "weight", "sum_over_rank"),
    [
        ("payne", "weights.1", "zir,zro->io"),
        ("payne", "weights.2", "zir,zro->io"),
        ("transformer", "block.query", "lir,lrhk->lihk"),
        ("transformer", "block.out", "lhkr,lro->lhko"),
        ("transformer", "block.down", "lir,lro->lio"),
        ("transformer", "embed.1", "tir,tro->ito"),
        ("additive", "weights.1", "gir,gro->gio"),
        ("convolutional", "filters.0", "tir,tro->tio"),
    ],
)
def test_a_weight_changes_by_the_product_of_its_factors(name: str, weight: str, sum_over_rank: str) -> None:
    emulator = network(name)
    update = stirred(fresh(emulator, trainable(emulator), 2, KEY))
    first, second = (np.asarray(x) for x in update.factors[weight])
    if weight == "block.query":
        second = second.reshape(3, 2, 2, 4)
    if weight == "block.out":
        first = first.reshape(3, 2, 4, 2)
    change = named(merge(emulator, update))[weight] - named(emulator)[weight]
    np.testing.assert_allclose(change, np.einsum(sum_over_rank, first, second), atol=1e-6)


@ALL
def test_an_update_of_full_rank_can_be_any_change(name: str) -> None:
    emulator = network(name)
    random = np.random.default_rng(1)
    axes, leaves = matrices(emulator), named(emulator)
    wanted = {key: random.normal(size=leaves[key].shape).astype(np.float32) for key in axes}
    factors = {}
    for key, change in wanted.items():
        stack, n_in, n_out = flat_shape(change.shape, axes[key])
        order = [*(i for i in range(change.ndim) if i not in sum(axes[key], ())), *sum(axes[key], ())]
        flat = jnp.asarray(change.transpose(order).reshape(stack, n_in, n_out))
        factors[key] = (jnp.tile(jnp.eye(n_in), (stack, 1, 1)), flat)
    found = named(merge(emulator, LowRank(factors, {})))
    for key, leaf in leaves.items():
        np.testing.assert_allclose(found[key], leaf + wanted.get(key, 0), atol=1e-5)


@st.composite
def weights(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[tuple[int, ...], tuple[int, ...]]]:
    """The shape of a weight, and which of its axes are inputs and outputs; the others are a stack."""
    n = draw(st.integers(2, 4))
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=n, max_size=n)))
    order = draw(st.permutations(range(n)))
    a = draw(st.integers(1, n - 1))
    b = draw(st.integers(a + 1, n))
    return shape, (tuple(sorted(order[:a])), tuple(sorted(order[a:b])))


@settings(max_examples=30, deadline=None)
@given(weights())
def test_unflattening_puts_every_number_in_its_place(weight) -> None:
    shape, axes = weight
    stack, n_in, n_out = flat_shape(shape, axes)
    assert stack * n_in * n_out == np.prod(shape)
    found = np.asarray(unflat(np.arange(np.prod(shape), dtype=np.float32).reshape(stack, n_in, n_out), shape, axes))
    assert found.shape == shape
    others = [i for i in range(len(shape)) if i not in (*axes[0], *axes[1])]
    for place in np.ndindex(*shape):
        flat = 0
        for i in (*others, *axes[0], *axes[1]):
            flat = flat * shape[i] + place[i]
        assert found[place] == flat


def test_another_key_draws_other_factors() -> None:
    emulator = network("payne")
    one, same, other = (
        fresh(emulator, trainable(emulator), 2, jax.random.key(seed)).factors["weights.1"][0] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("rank", [0, -1])
def test_a_rank_under_one_is_refused(rank: int) -> None:
    emulator = network("payne")
    with pytest.raises(RecipeError, match=rf"^rank = {rank}: a low-rank update needs a rank of at least 1$"):
        fresh_low_rank(emulator, trainable(emulator), rank, KEY)
