"""TransformerPayne: wavelength as the query of attention over label tokens (arXiv:2407.05751).

The wavelength vectors never attend to each other, so the network answers at any wavelength of its range; keys and
values depend on the labels alone and are made once per star and layer, whatever the number of wavelengths.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from starpayne.emulators.base import BoundEmulator, Emulator, HostArray, SpectralDomain
from starpayne.emulators.layers import ACTIVATIONS, check_activation, rms_norm
from starpayne.errors import RecipeError
from starpayne.labels import LabelSpace
from starpayne.wavelengths import LOG10_ANGSTROM, Coordinate, log_grid, phases

REFERENCE_DEPTH = 2
"""Depth at which a residual branch has weight one; deeper networks weigh each branch by (L / this)^-1/2."""

CPU_PIECE, GPU_PIECE = 2**17, 2**25
"""Numbers of the stream (rows × d) that go through the network together: the feed-forward layer, four times as wide,
then takes 2 MiB. On two cores a step of 128×8 took 7 % more processor time in pieces of 2**18, 22 % more of 2**19."""

MAX_WIDTH = 2**14
"""Largest d: a model file must not make its reader allocate without bound."""

WIDENING = 4
"""Units of the feed-forward layer for each of d, where nothing else is said."""


class Block(eqx.Module):
    """The weights of the L blocks, stacked along the first axis; no biases (arXiv:2407.05751)."""

    query: Float[Array, "L d h k"]
    key: Float[Array, "L d h k"]
    value: Float[Array, "L d h k"]
    out: Float[Array, "L h k d"]
    up: Float[Array, "L d f"]
    down: Float[Array, "L f d"]


class TransformerPayne(Emulator):
    """A transformer whose query is the encoded wavelength and whose keys and values come from the labels.

    Args:
        embed: (n_labels, d) and (d, tokens, d) weights of the label embedding.
        block: stacked block weights.
        head: (d, d) and (d, channels) weights of the output layers.
        center, width: (channels, 1); the output is ``center + width * network``.
        periods: (d,) periods of the sine encoding in ``coordinate``, float64 on the host.
        activation: of all layers.
        coordinate: what the encoding is periodic in, log10(λ/Å) but for imported networks.
        products: precision of the matrix products of the blocks, "float32" or "bfloat16"; sums, the residual stream,
            norms, softmax and head are float32 in either case.

    Example:
        ``TransformerPayne.initialise(space, domain, ("flux",), width=64, depth=4, key=jax.random.key(0))``
    """

    embed: tuple[Float[Array, "labels d"], Float[Array, "d tokens d"]]
    block: Block
    head: tuple[Float[Array, "d d"], Float[Array, "d channels"]]
    center: Float[Array, "channels 1"]
    width: Float[Array, "channels 1"]
    space: LabelSpace = eqx.field(static=True)
    domain: SpectralDomain = eqx.field(static=True)
    channels: tuple[str, ...] = eqx.field(static=True)
    periods: HostArray = eqx.field(static=True)
    products: str = eqx.field(static=True, default="float32")
    activation: str = eqx.field(static=True, default="gelu")
    coordinate: Coordinate = eqx.field(static=True, default=LOG10_ANGSTROM)
    architecture: ClassVar[str] = "transformer"

    @classmethod
    def initialise(
        cls,
        space: LabelSpace,
        domain: SpectralDomain,
        channels: tuple[str, ...],
        *,
        width: int,
        depth: int,
        tokens: int = 16,
        head_width: int = 32,
        periods: tuple[float, float] = (1e-6, 10.0),
        feed_forward: int | None = None,
        activation: str = "gelu",
        coordinate: Coordinate = LOG10_ANGSTROM,
        key: PRNGKeyArray,
    ) -> TransformerPayne:
        """Draw fresh weights, normal with standard deviation 1/sqrt(fan-in).

        Args:
            width: d, a multiple of ``head_width``.
            depth: number of blocks L.
            tokens: number of label tokens T.
            head_width: width of one attention head.
            periods: shortest and longest period of the encoding in log10(λ/Å); the published range is 1e-6 to 10.
            feed_forward: units of the feed-forward layers; by default four times the width.
            activation, coordinate: of imported networks.

        Raises:
            RecipeError: for sizes that do not fit together.
        """
        if not 1 <= head_width <= width <= MAX_WIDTH or width % head_width:
            raise RecipeError(f"width = {width} must be a multiple of the head width {head_width}, at most {MAX_WIDTH}")
        if depth < 1 or tokens < 2:
            raise RecipeError(f"depth must be at least 1 and tokens at least 2, got {depth} and {tokens}")
        if len(periods) != 2 or not 0 < periods[0] < periods[1]:
            raise RecipeError(f"periods must be positive and increasing, got {periods}")
        d, heads, k = width, width // head_width, head_width
        f = WIDENING * d if feed_forward is None else feed_forward
        if not 1 <= f <= WIDENING**2 * MAX_WIDTH:
            raise RecipeError(f"feed_forward = {f} must be 1 to {WIDENING**2 * MAX_WIDTH}")
        check_activation(activation)
        keys = iter(jax.random.split(key, 10))

        def normal(shape: tuple[int, ...], fan_in: int) -> Array:
            return jax.random.normal(next(keys), shape) / np.sqrt(fan_in)

        embed = (normal((len(space.inputs), d), len(space.inputs)), normal((d, tokens, d), d))
        block = Block(
            query=normal((depth, d, heads, k), d),
            key=normal((depth, d, heads, k), d),
            value=normal((depth, d, heads, k), d),
            out=normal((depth, heads, k, d), d),
            up=normal((depth, d, f), d),
            down=normal((depth, f, d), f),
        )
        head = (normal((d, d), d), normal((d, len(channels)), d))
        shape = (len(channels), 1)
        return cls(
            embed=embed, block=block, head=head, center=jnp.zeros(shape), width=jnp.ones(shape),
            space=space, domain=domain, channels=tuple(channels), periods=HostArray(np.geomspace(*periods, d)),
            activation=activation, coordinate=coordinate,
        )  # fmt: skip

    @classmethod
    def skeleton(
        cls, space: LabelSpace, domain: SpectralDomain, channels: tuple[str, ...], config: Mapping[str, Any]
    ) -> TransformerPayne:
        return cls.initialise(
            space, domain, channels, width=config["width"], depth=config["depth"], tokens=config["tokens"],
            head_width=config["head_width"], periods=tuple(config["periods"]),
            feed_forward=config.get("feed_forward"), activation=config.get("activation", "gelu"),
            coordinate=Coordinate(**config.get("coordinate", {})), key=jax.random.key(0),
        )  # fmt: skip

    @property
    def config(self) -> dict[str, Any]:
        depth, d, _, k = self.block.query.shape
        periods = self.periods.values
        config = {
            "width": d, "depth": depth, "tokens": self.embed[1].shape[1], "head_width": k,
            "periods": [float(periods[0]), float(periods[-1])],
        }  # fmt: skip
        # Only what is not as usual: the digest of a model must not change with what later versions can do.
        if (f := self.block.up.shape[2]) != WIDENING * d:
            config["feed_forward"] = f
        if self.activation != "gelu":
            config["activation"] = self.activation
        if self.coordinate != LOG10_ANGSTROM:
            config["coordinate"] = dataclasses.asdict(self.coordinate)
        return config

    @property
    def native_wavelength(self) -> np.ndarray:
        return log_grid(self.domain.low, self.domain.high, self.domain.sampling)

    def matrix_axes(self) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
        project = ((1,), (2, 3))
        return {
            "embed.1": ((0,), (2,)), "head.0": ((0,), (1,)),
            "block.query": project, "block.key": project, "block.value": project, "block.out": ((1, 2), (3,)),
            "block.up": ((1,), (2,)), "block.down": ((1,), (2,)),
        }  # fmt: skip

    @property
    def hidden_width(self) -> int:
        return self.block.query.shape[1]

    @property
    def readouts(self) -> tuple[str, ...]:
        return ("head.1",)

    def with_products(self, precision: str) -> TransformerPayne:
        return self if precision == self.products else dataclasses.replace(self, products=precision)

    def bind(self, wavelength: np.ndarray) -> BoundTransformerPayne:
        encoding = jnp.asarray(phases(wavelength, self.periods.values, self.coordinate))
        return BoundTransformerPayne(emulator=self, wavelength=HostArray(wavelength), encoding=encoding)

    def tokens(self, labels: Float[Array, "stars labels"]) -> Float[Array, "stars tokens d"]:
        """Return the RMS-normalised label tokens."""
        first, second = self.embed
        # Scaled to [0, 1], not [-1/2, 1/2]: without biases the zero vector is singular, and must not be the centre.
        hidden = ACTIVATIONS[self.activation](self.space.scale(jnp.asarray(labels, jnp.float32)) @ first)
        d, n_tokens, _ = second.shape
        return rms_norm((hidden @ second.reshape(d, n_tokens * d)).reshape(-1, n_tokens, d))

    def spectra(
        self, labels: Float[Array, "stars labels"], encoding: Float[Array, "wavelengths d"]
    ) -> Float[Array, "stars channels wavelengths"]:
        """Return all channels of many stars at encoded wavelengths, in pieces that fit in the caches."""
        stars, (n, d) = labels.shape[0], encoding.shape
        rows = rows_at_once(d)
        if stars * n <= rows:
            outputs = self._outputs(labels, encoding[None])
        else:
            pieces = pad_and_split(encoding, rows)
            groups = pad_and_split(labels, max(1, rows // n))
            # A gradient makes the activations of each piece anew: to store them all and fetch them again took longer
            # (0.49 of a plain product's speed at 64×4 on one core, and 0.54 this way).
            outputs = jax.lax.map(jax.checkpoint(lambda group: self._outputs(group, pieces)), groups)
        return self._scaled(outputs.reshape(-1, *outputs.shape[-2:])[:stars, :n])

    def all_at_once(
        self, labels: Float[Array, "stars labels"], encoding: Float[Array, "wavelengths d"]
    ) -> Float[Array, "stars channels wavelengths"]:
        """Return :meth:`spectra`, whatever memory that takes."""
        return self._scaled(self._outputs(labels, encoding[None]))

    def _scaled(
        self, outputs: Float[Array, "stars wavelengths channels"]
    ) -> Float[Array, "stars channels wavelengths"]:
        return self.center + self.width * outputs.transpose(0, 2, 1)

    def _outputs(
        self, labels: Float[Array, "stars labels"], pieces: Float[Array, "pieces wavelengths d"]
    ) -> Float[Array, "stars allwavelengths channels"]:
        """Return the unscaled outputs at all pieces of the wavelengths, one after the other."""
        stars, (_, n, d) = labels.shape[0], pieces.shape
        attention = star_matrices(self.block, self.tokens(labels))

        def outputs(encoding: Float[Array, "wavelengths d"]) -> Float[Array, "stars wavelengths channels"]:
            start = jnp.broadcast_to(encoding, (stars, n, d)).reshape(stars * n, d)
            stream = run_blocks(self.block, attention, start, self.products, self.activation)
            hidden = ACTIVATIONS[self.activation](rms_norm(stream) @ self.head[0])
            return (hidden @ self.head[1]).reshape(stars, n, -1)

        if len(pieces) == 1:
            return outputs(pieces[0])
        return jnp.moveaxis(jax.lax.map(jax.checkpoint(outputs), pieces), 0, 1).reshape(stars, len(pieces) * n, -1)


def rows_at_once(width: int) -> int:
    """Return how many rows of the stream go through the network together: on a CPU, as many as its caches hold.

    Of 4,096 rows at d = 128 nothing is in the caches when the next operation wants it: a forward pass reaches 0.60 of
    a plain matrix product's speed, in pieces of 1,024 rows 0.85; its gradient 0.66 and 0.76.
    """
    return max(1, (CPU_PIECE if jax.default_backend() == "cpu" else GPU_PIECE) // width)


def pad_and_split(x: Float[Array, "n m"], most: int) -> Float[Array, "pieces size m"]:
    """Split rows into the fewest equal pieces of at most ``most``; the last row fills up the last piece."""
    pieces = -(-len(x) // most)
    size = -(-len(x) // pieces)
    return jnp.pad(x, ((0, pieces * size - len(x)), (0, 0)), mode="edge").reshape(pieces, size, -1)


class StarMatrices(eqx.Module):
    """What attention needs to know of each star, in each layer: heads and tokens are one axis of h·T."""

    to_scores: Float[Array, "L stars hT d"]
    from_scores: Float[Array, "L stars hT d"]


def star_matrices(block: Block, tokens: Float[Array, "stars tokens d"]) -> StarMatrices:
    """Multiply the query and key weights, and the value and output weights, into one matrix each per star and layer.

    That leaves 4·d·heads·tokens operations per wavelength of attention instead of 4·d² + 4·d·tokens: half, at 16
    tokens and heads of 32.
    """
    depth, d, heads, k = block.query.shape
    stars, n_tokens, _ = tokens.shape
    flat = tokens.reshape(stars * n_tokens, d)

    def fold(inner: Float[Array, "d h k"], outer: Float[Array, "h k d"]) -> Float[Array, "stars hT d"]:
        vectors = (flat @ inner.reshape(d, heads * k)).reshape(-1, heads, k)
        folded = jnp.einsum("rhk,hkd->hrd", vectors, outer).reshape(heads, stars, n_tokens, d)
        return folded.transpose(1, 0, 2, 3).reshape(stars, heads * n_tokens, d)

    queries = block.query.transpose(0, 2, 3, 1)
    # Scores scaled by 1/k rather than 1/sqrt(k): the μP attention scale of the published code.
    to_scores = jnp.stack([fold(block.key[i], queries[i] / k) for i in range(depth)])
    from_scores = jnp.stack([fold(block.value[i], block.out[i]) for i in range(depth)])
    return StarMatrices(to_scores, from_scores)


def run_blocks(
    block: Block, attention: StarMatrices, stream: Float[Array, "rows d"], precision: str = "float32",
    activation: str = "gelu",
) -> Float[Array, "rows d"]:  # fmt: skip
    """Pass wavelength vectors, those of one star after those of another, through all blocks.

    The stream stays a matrix (rows of all stars) wherever all stars share the weights: XLA's gradient of a weight
    that is contracted over two axes is 2.5 times slower on the CPU than over one.
    """
    depth, d, heads, _ = block.query.shape
    stars = attention.to_scores.shape[1]
    branch = float((depth / REFERENCE_DEPTH) ** -0.5)
    # XLA's product for the gradient of a weight reaches 50 GFLOP/s where the weight is tall, and 95 where it is wide
    # (one core of an EPYC). Used in transposed form, the tall weight is a wide one, transposed once for all layers.
    down = block.down.transpose(0, 2, 1)

    def product(subscripts: str, x: Array, y: Array) -> Array:
        if precision == "bfloat16":
            x, y = x.astype(jnp.bfloat16), y.astype(jnp.bfloat16)
        return jnp.einsum(subscripts, x, y, preferred_element_type=jnp.float32)

    def attend(x: Array, i: int) -> Array:
        scores = product("bnd,bsd->bns", x.reshape(stars, -1, d), attention.to_scores[i])
        weights = jax.nn.softmax(scores.reshape(len(x), heads, -1), axis=-1).reshape(scores.shape)
        return product("bns,bsd->bnd", weights, attention.from_scores[i]).reshape(x.shape)

    for i in range(depth):
        stream = stream + branch * attend(rms_norm(stream), i)
        hidden = ACTIVATIONS[activation](product("rd,df->rf", rms_norm(stream), block.up[i]))
        stream = stream + branch * product("rf,df->rd", hidden, down[i])
    return stream


class BoundTransformerPayne(BoundEmulator):
    """A TransformerPayne with the encoding of given wavelengths."""

    emulator: TransformerPayne
    wavelength: HostArray = eqx.field(static=True)
    encoding: Float[Array, "wavelengths d"]

    def outputs(self, labels: Float[Array, " labels"]) -> Float[Array, "channels wavelengths"]:
        return self.batch(labels[None])[0]

    def batch(self, labels: Float[Array, "stars labels"]) -> Float[Array, "stars channels wavelengths"]:
        return self.emulator.spectra(labels, self.encoding)

    def whole(self, labels: Float[Array, " labels"]) -> Float[Array, "channels wavelengths"]:
        return self.emulator.all_at_once(labels[None], self.encoding)[0]

    def at(self, emulator: Emulator, columns: Int[Array, " subset"] | None = None) -> BoundTransformerPayne:
        if columns is None:
            return eqx.tree_at(lambda b: b.emulator, self, emulator)
        return eqx.tree_at(lambda b: (b.emulator, b.encoding), self, (emulator, self.encoding[columns]))

    @property
    def spectra_at_once(self) -> int:
        n, d = self.encoding.shape
        return max(1, rows_at_once(d) // n)

    @property
    def floats_per_spectrum(self) -> int:
        # Residual stream, normalised stream, scores, and the feed-forward layer before and after its activation.
        return 12 * self.encoding.shape[0] * self.encoding.shape[1]
