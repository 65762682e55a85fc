"""All blocks of a TransformerPayne in one kernel for GPUs: a tile of the stream never leaves the chip between layers.

Layer by layer, an H100 waits for its memory: a feed-forward layer of width 128 moves some 6 kB a row and computes for a
tenth of that time. Here a program holds the rows of one star's tile in registers, passes them through all layers, and
reads nothing but weights, which all programs share in the cache. Matrix products are in bfloat16 with sums in float32,
as are those of :func:`starpayne.emulators.blocks.run_blocks` with ``precision="bfloat16"``; there is no derivative.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

from starpayne.emulators.blocks import REFERENCE_DEPTH, Block, StarMatrices
from starpayne.emulators.layers import ACTIVATIONS, rms_norm

try:
    from jax.experimental.pallas import triton as plt
except ImportError:  # JAX means to give up this way to a GPU; predictions then take the plain path.
    plt = None

SMALLEST = 16
"""Least size of any side of a matrix product of the tensor cores; the channels are padded to it."""


@dataclass(frozen=True)
class Tiling:
    """How the kernel cuts its work.

    Args:
        rows: wavelengths of one program.
        scores: of the attention, and ``chunk`` units of a feed-forward layer, that are there of a row at a time.
        warps, stages: of Triton: groups of 32 threads, and loads on their way at a time.
    """

    rows: int
    scores: int
    chunk: int
    warps: int
    stages: int


def tiling(width: int) -> Tiling:
    """Return the tiling that was fastest on an H100 (``benchmarks/gpu.py``)."""
    return Tiling(64, 32, 64, 4, 3) if width <= 128 else Tiling(64, 64, 64, 8, 3)


def fusible(block: Block, n_tokens: int) -> bool:
    """Return whether the kernel takes networks of these sizes: powers of two, as Triton wants, that fit on the chip."""
    _, d, heads, _ = block.query.shape
    sizes = (d, heads * n_tokens, block.up.shape[2])
    return (
        plt is not None
        and all(n >= SMALLEST and n & (n - 1) == 0 for n in (*sizes, n_tokens))
        and d <= 256
        and sizes[1] <= 128
    )


def fused_outputs(
    block: Block,
    head: tuple[Float[Array, "d d"], Float[Array, "d channels"]],
    attention: StarMatrices,
    encoding: Float[Array, "wavelengths d"],
    activation: str = "gelu",
    tiles: Tiling | None = None,
    interpret: bool = False,
) -> Float[Array, "stars wavelengths channels"]:
    """Return the unscaled outputs of many stars at encoded wavelengths.

    Args:
        block, head: the weights.
        attention: from :func:`starpayne.emulators.blocks.star_matrices`.
        encoding: of the wavelengths.
        activation: of all layers.
        tiles: by default :func:`tiling`.
        interpret: run the kernel's operations one by one, on any device: for tests.
    """
    depth, d, heads, _ = block.query.shape
    _, stars, n_scores, _ = attention.to_scores.shape
    tiles = tiles or tiling(d)
    assert plt is not None
    n, channels = len(encoding), head[1].shape[1]
    n_tiles = pl.cdiv(n, tiles.rows)
    padded = jnp.pad(encoding, ((0, n_tiles * tiles.rows - n), (0, 0)), mode="edge")
    last = jnp.pad(head[1], ((0, 0), (0, max(0, SMALLEST - channels))))
    small = partial(jnp.asarray, dtype=jnp.bfloat16)
    kernel = partial(
        _kernel, depth=depth, heads=heads, scores=tiles.scores, chunk=min(tiles.chunk, d, block.up.shape[2]),
        activation=activation, exact=interpret,
    )  # fmt: skip

    def whole(array: Array) -> pl.BlockSpec:
        return pl.BlockSpec(array.shape, lambda star, tile: (0,) * array.ndim)

    weights = [small(block.up), small(block.down), small(head[0]), small(last)]
    per_star = pl.BlockSpec((depth, 1, n_scores, d), lambda star, tile: (0, star, 0, 0))
    outputs = pl.pallas_call(
        kernel,
        grid=(stars, n_tiles),
        in_specs=[
            pl.BlockSpec((tiles.rows, d), lambda star, tile: (tile, 0)),
            per_star, per_star, *map(whole, weights),
        ],
        out_specs=pl.BlockSpec((1, tiles.rows, last.shape[1]), lambda star, tile: (star, tile, 0)),
        out_shape=jax.ShapeDtypeStruct((stars, n_tiles * tiles.rows, last.shape[1]), jnp.float32),
        compiler_params=plt.CompilerParams(num_warps=tiles.warps, num_stages=tiles.stages),
        interpret=interpret,
    )(padded, small(attention.to_scores), small(attention.from_scores), *weights)  # fmt: skip
    return outputs[:, :n, :channels]


def _kernel(
    encoding: Any, to_scores: Any, from_scores: Any, up: Any, down: Any, first: Any, last: Any, out: Any,
    *, depth: int, heads: int, scores: int, chunk: int, activation: str, exact: bool,
) -> None:  # fmt: skip
    """Pass one tile of one star's wavelengths through the network; the arguments are references to memory."""
    branch = float((depth / REFERENCE_DEPTH) ** -0.5)
    act = _gelu if activation == "gelu" and not exact else ACTIVATIONS[activation]

    def product(x: Array, y: Array, transposed: bool = False) -> Array:
        return jnp.dot(x.astype(jnp.bfloat16), y.T if transposed else y, preferred_element_type=jnp.float32)

    # Whole heads at a time, so that neither their scores nor their matrices crowd out the stream.
    tokens = to_scores.shape[2] // heads
    together = max(1, min(heads, scores // tokens))

    def layer(i: Array, x: Array) -> Array:
        normal = rms_norm(x).astype(jnp.bfloat16)

        def attend(k: Array, x: Array) -> Array:
            units = pl.ds(k * together * tokens, together * tokens)
            raw = product(normal, to_scores[i, 0, units, :], transposed=True)
            by_head = raw.reshape(len(x), together, tokens)
            grown = jnp.exp(by_head - jnp.max(by_head, axis=-1, keepdims=True))
            weights = grown * (branch / jnp.sum(grown, axis=-1, keepdims=True))
            return x + product(weights.reshape(raw.shape), from_scores[i, 0, units, :])

        x = jax.lax.fori_loop(0, heads // together, attend, x)
        normal = rms_norm(x).astype(jnp.bfloat16)

        def feed(k: Array, x: Array) -> Array:
            units = pl.ds(k * chunk, chunk)
            return x + product(branch * act(product(normal, up[i, :, units])), down[i, units, :])

        # The stream itself takes up the sums: a second array of its size would not fit into the registers.
        return jax.lax.fori_loop(0, up.shape[2] // chunk, feed, x)

    normal = rms_norm(jax.lax.fori_loop(0, depth, layer, encoding[...])).astype(jnp.bfloat16)

    def read(k: Array, total: Array) -> Array:
        units = pl.ds(k * chunk, chunk)
        return total + product(act(product(normal, first[:, units])), last[units, :])

    out[0] = jax.lax.fori_loop(0, first.shape[1] // chunk, read, jnp.zeros(out.shape[1:], jnp.float32))


def _gelu(x: Array) -> Array:
    """GELU with the chip's own tanh: the one of the library takes as long as the matrix products beside it."""
    assert plt is not None
    inner = x * (0.7978845608 + 0.0356774081 * x * x)
    return 0.5 * x * (1.0 + plt.approx_tanh(inner))
