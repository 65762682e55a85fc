"""The matrix in blocks gives what the bands give, whatever the pixels look like."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from starpayne.fitting.pixels import PAD_WINDOW, ROWS, Bands, PixelMatrix

GRID = 400
DEPTH = np.random.default_rng(0).normal(0, 1, (3, GRID)).astype(np.float32)


@eqx.filter_jit
def applied(matrix: PixelMatrix, depth: np.ndarray) -> jnp.ndarray:
    return matrix(jnp.asarray(depth))


def bands(first: list[int], width: int, without: list[int] | None = None) -> Bands:
    weights = np.random.default_rng(1).normal(0, 1, (len(first), width)).astype(np.float32)
    starts = np.array(first, np.int32)
    for row in without or []:
        starts[row], weights[row] = 0, 0
    return Bands(starts, weights)


def directly(matrix: Bands, depth: np.ndarray) -> np.ndarray:
    columns = matrix.first[:, None] + np.arange(matrix.weights.shape[1])
    return np.sum(depth[:, columns].astype(np.float64) * matrix.weights, axis=-1)


@pytest.mark.parametrize(
    ("first", "width", "without"),
    [
        (list(range(0, 384, 2)), 12, []),
        (list(range(0, 384, 2)), 12, [0, 1, 50, 190, 191]),
        (list(range(0, 384, 2)), 12, list(range(192))),
        ([*range(40), *range(300, 340)], 8, []),
        ([0, 390, 0, 390], 10, []),
        ([5], 400 - 5, []),
        (list(range(0, 330, 3)), 70, [3]),
    ],
    ids=["even", "rows without weights", "nothing reached", "a gap", "to and fro", "one pixel", "wide"],
)
def test_blocks_equal_bands(first: list[int], width: int, without: list[int]) -> None:
    matrix = bands(first, width, without)
    blocks = matrix.matrix(GRID)
    np.testing.assert_allclose(applied(blocks, DEPTH), directly(matrix, DEPTH), rtol=1e-5, atol=2e-5)
    np.testing.assert_array_equal(blocks.reached(), matrix.weights.any(axis=1))


def test_a_gap_does_not_widen_every_window() -> None:
    even = bands(list(range(64)), 8).matrix(GRID)
    gap = bands([*range(40), *range(300, 340)], 8).matrix(GRID)
    assert even.place is None
    assert gap.place is not None
    assert gap.weights.shape[-1] <= 2 * (8 + ROWS) + PAD_WINDOW


@given(
    steps=st.lists(st.integers(-2, 9), min_size=1, max_size=60), width=st.integers(1, 30),
    jump=st.integers(0, 150),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_any_pixels_find_their_place(steps: list[int], width: int, jump: int) -> None:
    first = np.cumsum(steps)
    first[len(first) // 2 :] += jump
    first = np.clip(first - first.min(), 0, GRID - width).tolist()
    matrix = bands(first, width)
    # Not compiled: every example has shapes of its own.
    blocks = matrix.matrix(GRID)
    dense = np.zeros((len(first), GRID))
    rows = np.arange(len(first)) if blocks.place is None else np.asarray(blocks.place)
    for i, row in enumerate(rows):
        block = row // ROWS
        begin = int(blocks.start[block])
        dense[i, begin : begin + blocks.weights.shape[-1]] += np.asarray(blocks.weights)[block, row % ROWS]
    np.testing.assert_allclose(DEPTH @ dense.T, directly(matrix, DEPTH), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("first", [list(range(100)), [*range(40), *range(300, 340)], [388] * 20], ids=len)
def test_pixels_may_be_added_that_see_nothing(first: list[int]) -> None:
    matrix = bands(first, 10)
    seen = np.asarray(applied(matrix.matrix(GRID, 128), DEPTH))
    assert seen.shape == (3, 128)
    np.testing.assert_allclose(seen[:, : len(first)], directly(matrix, DEPTH), rtol=1e-5, atol=2e-5)
    assert not seen[:, len(first) :].any()


def test_bands_wider_than_the_grid_are_refused() -> None:
    with pytest.raises(AssertionError, match="wider than the grid"):
        bands([0] * 20, 12).matrix(10)
