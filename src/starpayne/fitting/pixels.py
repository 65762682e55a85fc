"""The banded matrix from the model grid to observed pixels, and how it is applied: in dense blocks.

A band is read from another place of the grid for every pixel, which compiled code does one number at a time. Sixteen
neighbouring pixels see nearly the same window of the grid: as one dense block on that window they are a small matrix
product, twenty times faster for all the zeros in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

if TYPE_CHECKING:
    AnyArray = Any
else:
    AnyArray = Array | np.ndarray
    """Of JAX or of NumPy: what is made on the host for a compiled function stays there until it is called."""

ROWS = 16
"""Pixels of a block."""

PAD_BAND, PAD_WINDOW, PAD_BLOCKS = 8, 8, 8
"""Sizes are rounded up to multiples of these, so that stars of one set-up share one compiled function."""

WASTE = 2
"""Windows wider than this many times what neighbouring pixels need mean gaps: then blocks end at those."""


class PixelMatrix(NamedTuple):
    """A banded matrix from the model grid to observed pixels, in blocks.

    Args:
        start: (blocks,) where the window of each block begins.
        weights: (blocks, ROWS, window).
        place: (pixels,) the row of each pixel among those of all blocks; None where they are the pixels in order.
    """

    start: Int[AnyArray, " blocks"]
    weights: Float[AnyArray, "blocks rows window"]
    place: Int[AnyArray, " pixels"] | None

    def __call__(self, depth: Float[Array, "*batch grid"]) -> Float[Array, "*batch pixels"]:
        """Observe line depths (flux − 1) on the model grid."""
        flat = depth.reshape(-1, depth.shape[-1])
        window = self.weights.shape[-1]
        seen = jax.vmap(lambda i: jax.lax.dynamic_slice_in_dim(flat, i, window, axis=1))(jnp.asarray(self.start))
        pixels = jnp.einsum("bpw,bkw->kbp", self.weights, seen).reshape(len(flat), -1)
        if self.place is not None:
            pixels = pixels[:, self.place]
        return pixels.reshape(*depth.shape[:-1], -1)

    def reached(self) -> np.ndarray:
        """Return (pixels,) bool: which have a weight at all."""
        rows = _any(np.asarray(self.weights)).ravel()
        return rows if self.place is None else rows[np.asarray(self.place)]


class Bands(NamedTuple):
    """The same matrix as it is made: row i acts on ``first[i] … first[i] + K − 1`` of the grid.

    Args:
        first: (pixels,) int.
        weights: (pixels, K) float32; zeros where the model does not reach.
    """

    first: np.ndarray
    weights: np.ndarray

    def matrix(self, size: int, pixels: int | None = None) -> PixelMatrix:
        """Return it in blocks, for a grid of so many points.

        Args:
            pixels: how many it is to give; those beyond its own have no weights.
        """
        own, width = self.weights.shape
        assert width <= size, "a band is wider than the grid"
        n, band = pixels or own, min(_rounded(width, PAD_BAND), size)
        first, used = np.zeros(n, np.int64), np.zeros(n, bool)
        first[:own], used[:own] = self.first, _any(self.weights)
        first = _filled(first, used)
        edges = np.arange(0, n, ROWS)
        needed = band + int(np.max(_spans(first, edges)))
        usual = band + (ROWS - 1) * _most(np.abs(np.diff(first)))
        limit = _rounded(min(needed, WASTE * usual), PAD_WINDOW)
        place = None
        if needed > limit or n % ROWS:
            edges = _edges(first, limit - band)
            lengths = np.diff([*edges, n])
            block = np.repeat(np.arange(len(edges)), lengths)
            place = block * ROWS + np.arange(n) - edges[block]
        else:
            block = np.repeat(np.arange(len(edges)), ROWS)
        window = min(limit, size)
        blocks = len(edges) if place is None else _rounded(len(edges), PAD_BLOCKS)
        start = np.zeros(blocks, np.int32)
        start[: len(edges)] = np.minimum(np.minimum.reduceat(first, edges), size - window)
        weights = np.zeros(blocks * ROWS * window, np.float32)
        begin = (np.arange(n) if place is None else place) * window + first - start[block]
        weights[begin[:own, None] + np.arange(width)] = self.weights
        return PixelMatrix(
            start, weights.reshape(blocks, ROWS, window), None if place is None else place.astype(np.int32)
        )


def _any(weights: np.ndarray) -> np.ndarray:
    """Return (...) bool: which rows (..., K) hold anything but zeros. Much faster than to ask for any."""
    return np.abs(weights) @ np.ones(weights.shape[-1], weights.dtype) > 0


def _most(steps: np.ndarray) -> int:
    """Return what nine of ten are no larger than; 0 for none."""
    place = int(np.ceil(0.9 * (len(steps) - 1)))
    return int(np.partition(steps, place)[place]) if len(steps) else 0


def _filled(first: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Return where bands begin; those without weights begin where their neighbours do."""
    if not used.any():
        return np.zeros(len(first), np.int64)
    rows = np.flatnonzero(used)
    nearest = rows[np.clip(np.searchsorted(rows, np.arange(len(first)), side="right") - 1, 0, None)]
    return np.asarray(first, np.int64)[nearest]


def _spans(first: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return np.maximum.reduceat(first, edges) - np.minimum.reduceat(first, edges)


def _edges(first: np.ndarray, room: int) -> np.ndarray:
    """Return where blocks begin so that none has more than ROWS pixels, or spans more than ``room`` of the grid."""
    edges, low, high = [0], first[0], first[0]
    for i, at in enumerate(first.tolist()):
        low, high = min(low, at), max(high, at)
        if i - edges[-1] >= ROWS or high - low > room:
            edges.append(i)
            low = high = at
    return np.array(edges)


def _rounded(n: int, step: int) -> int:
    return -(-n // step) * step
