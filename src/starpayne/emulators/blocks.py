"""The blocks of a TransformerPayne: wavelength vectors attend to the label tokens of a star, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from starpayne.emulators.layers import ACTIVATIONS, rms_norm

REFERENCE_DEPTH = 2
"""Depth at which a residual branch has weight one; deeper networks weigh each branch by (L / this)^-1/2."""


class Block(eqx.Module):
    """The weights of the L blocks, stacked along the first axis; no biases (arXiv:2407.05751)."""

    query: Float[Array, "L d h k"]
    key: Float[Array, "L d h k"]
    value: Float[Array, "L d h k"]
    out: Float[Array, "L h k d"]
    up: Float[Array, "L d f"]
    down: Float[Array, "L f d"]

    def layers(self) -> list[Layer]:
        """Return the weights of each block by itself, as its products take them.

        To be made once, outside of what is done for many stars or pieces of wavelengths: within, each would cut its
        weights out of the stacks anew, 6 % of a forward pass.
        """
        depth, d, heads, k = self.query.shape
        # Scores scaled by 1/k rather than 1/sqrt(k): the μP attention scale of the published code.
        query = self.query.transpose(0, 2, 3, 1) / k
        key, value = (x.reshape(depth, d, heads * k) for x in (self.key, self.value))
        # XLA's product for the gradient of a weight reaches 50 GFLOP/s where the weight is tall, and 95 where it is
        # wide (one core of an EPYC). Used in transposed form, the tall weight is a wide one.
        down = self.down.transpose(0, 2, 1)
        return [Layer(*layer) for layer in zip(query, key, value, self.out, self.up, down, strict=True)]


class Layer(NamedTuple):
    """The weights of one block."""

    query: Float[Array, "h k d"]
    key: Float[Array, "d hk"]
    value: Float[Array, "d hk"]
    out: Float[Array, "h k d"]
    up: Float[Array, "d f"]
    down: Float[Array, "d f"]


class StarMatrices(eqx.Module):
    """What attention needs to know of each star, in each layer: heads and tokens are one axis of h·T."""

    to_scores: Float[Array, "L stars hT d"]
    from_scores: Float[Array, "L stars hT d"]


def star_matrices(layers: Sequence[Layer], tokens: Float[Array, "stars tokens d"]) -> StarMatrices:
    """Multiply the query and key weights, and the value and output weights, into one matrix each per star and layer.

    That leaves 4·d·heads·tokens operations per wavelength of attention instead of 4·d² + 4·d·tokens: half, at 16
    tokens and heads of 32.
    """
    heads, k, d = layers[0].query.shape
    stars, n_tokens, _ = tokens.shape
    flat = tokens.reshape(stars * n_tokens, d)

    def fold(inner: Float[Array, "d hk"], outer: Float[Array, "h k d"]) -> Float[Array, "stars hT d"]:
        vectors = (flat @ inner).reshape(-1, heads, k)
        folded = jnp.einsum("rhk,hkd->hrd", vectors, outer).reshape(heads, stars, n_tokens, d)
        return folded.transpose(1, 0, 2, 3).reshape(stars, heads * n_tokens, d)

    to_scores = jnp.stack([fold(layer.key, layer.query) for layer in layers])
    from_scores = jnp.stack([fold(layer.value, layer.out) for layer in layers])
    return StarMatrices(to_scores, from_scores)


def run_blocks(
    layers: Sequence[Layer], attention: StarMatrices, stream: Float[Array, "rows d"], precision: str = "float32",
    activation: str = "gelu",
) -> tuple[Float[Array, "rows d"], list[Float[Array, "rows heads tokens"]]]:  # fmt: skip
    """Pass wavelength vectors, those of one star after those of another, through all blocks.

    Returns:
        the vectors, and of each layer how much each attends to each token (which sums to one over the tokens).

    The stream stays a matrix (rows of all stars) wherever all stars share the weights: XLA's gradient of a weight
    that is contracted over two axes is 2.5 times slower on the CPU than over one.
    """
    heads, _, d = layers[0].query.shape
    stars = attention.to_scores.shape[1]
    branch = float((len(layers) / REFERENCE_DEPTH) ** -0.5)

    def product(subscripts: str, x: Array, y: Array, rounded: bool = False) -> Array:
        if precision == "bfloat16":
            x, y = x.astype(jnp.bfloat16), y.astype(jnp.bfloat16)
            kind = jnp.bfloat16 if rounded else jnp.float32
            return jnp.einsum(subscripts, x, y, preferred_element_type=kind, precision="default")
        return jnp.einsum(subscripts, x, y)

    def attend(x: Array, i: int) -> tuple[Array, Array]:
        scores = product("bnd,bsd->bns", x.reshape(stars, -1, d), attention.to_scores[i])
        weights = jax.nn.softmax(scores.reshape(len(x), heads, -1), axis=-1)
        taken = product("bns,bsd->bnd", weights.reshape(scores.shape), attention.from_scores[i])
        return taken.reshape(x.shape), weights

    watched = []
    for i, layer in enumerate(layers):
        taken, weights = attend(rms_norm(stream), i)
        watched.append(weights)
        stream = stream + branch * taken
        # A GPU waits for its memory: the widest array, which the next product rounds in any case, goes there small. To
        # make anew in a gradient what is not a product (jax.checkpoint, dots_saveable) made steps there 7 % longer.
        hidden = ACTIVATIONS[activation](product("rd,df->rf", rms_norm(stream), layer.up, rounded=True))
        stream = stream + branch * product("rf,df->rd", hidden, layer.down)
    return stream, watched
