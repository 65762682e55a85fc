"""TransformerPayne: wavelength as the query of attention over label tokens (arXiv:2407.05751).

The wavelength vectors never attend to each other, so the network answers at any wavelength of its range; keys and
values depend on the labels alone and are made once per star and layer, whatever the number of wavelengths.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from starpayne.emulators.base import BoundEmulator, Emulator, HostArray, SpectralDomain
from starpayne.emulators.blocks import Block, Layer, StarMatrices, run_blocks, star_matrices
from starpayne.emulators.fused import fused_outputs, fusible
from starpayne.emulators.layers import ACTIVATIONS, check_activation, rms_norm
from starpayne.errors import RecipeError
from starpayne.labels import LabelSpace
from starpayne.wavelengths import LOG10_ANGSTROM, Coordinate, log_grid, phases

CPU_PIECE, GPU_PIECE = 2**17, 2**25
"""Numbers of the stream (rows × d) that go through the network together: the feed-forward layer, four times as wide,
then takes 2 MiB. On two cores a step of 128×8 took 7 % more processor time in pieces of 2**18, 22 % more of 2**19."""

MAX_WIDTH = 2**14
"""Largest d: a model file must not make its reader allocate without bound."""

WIDENING = 4
"""Units of the feed-forward layer for each of d, where nothing else is said."""


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
        super().with_products(precision)
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
        rows, layers = rows_at_once(d), self.block.layers()
        if stars * n <= rows:
            outputs = self._outputs(layers, self.tokens(labels), encoding[None])
        else:
            pieces = pad_and_split(encoding, rows)
            groups = pad_and_split(labels, max(1, rows // n))
            # A gradient makes the activations of each piece anew: to store them all and fetch them again took longer
            # (0.49 of a plain product's speed at 64×4 on one core, and 0.54 this way).
            outputs = jax.lax.map(
                jax.checkpoint(lambda group: self._outputs(layers, self.tokens(group), pieces)), groups
            )
        return self._scaled(outputs.reshape(-1, *outputs.shape[-2:])[:stars, :n])

    def all_at_once(
        self, labels: Float[Array, "stars labels"], encoding: Float[Array, "wavelengths d"]
    ) -> Float[Array, "stars channels wavelengths"]:
        """Return :meth:`spectra`, whatever memory that takes."""
        return self._scaled(self._outputs(self.block.layers(), self.tokens(labels), encoding[None]))

    def _scaled(
        self, outputs: Float[Array, "stars wavelengths channels"]
    ) -> Float[Array, "stars channels wavelengths"]:
        return self.center + self.width * outputs.transpose(0, 2, 1)

    def fused(
        self, labels: Float[Array, "stars labels"], encoding: Float[Array, "wavelengths d"]
    ) -> Float[Array, "stars channels wavelengths"]:
        """Return :meth:`spectra` by the kernel for GPUs, with products in bfloat16; it has no derivative."""
        matrices = star_matrices(self.block.layers(), self.tokens(labels))
        return self._scaled(fused_outputs(self.block, self.head, matrices, encoding, self.activation))

    def watched(
        self, tokens: Float[Array, "stars tokens d"], encoding: Float[Array, "wavelengths d"]
    ) -> tuple[Float[Array, "stars channels wavelengths"], Float[Array, "L stars wavelengths heads tokens"]]:
        """Return all channels of stars with these label tokens, and how much each wavelength attends to each token.

        Args:
            tokens: those of :meth:`tokens`, or others in their place.
            encoding: of the wavelengths, all of which go through the network at once.
        """
        layers = self.block.layers()
        outputs, weights = self._through(layers, star_matrices(layers, tokens), encoding)
        shape = (len(tokens), len(encoding), *weights[0].shape[1:])
        return self._scaled(outputs), jnp.stack([layer.reshape(shape) for layer in weights])

    def _outputs(
        self, layers: Sequence[Layer], tokens: Float[Array, "stars tokens d"],
        pieces: Float[Array, "pieces wavelengths d"],
    ) -> Float[Array, "stars allwavelengths channels"]:  # fmt: skip
        """Return the unscaled outputs at all pieces of the wavelengths, one after the other."""
        matrices, (_, n, _) = star_matrices(layers, tokens), pieces.shape
        stars = len(tokens)
        if len(pieces) == 1:
            return self._through(layers, matrices, pieces[0])[0]
        outputs = jax.lax.map(jax.checkpoint(lambda piece: self._through(layers, matrices, piece)[0]), pieces)
        return jnp.moveaxis(outputs, 0, 1).reshape(stars, len(pieces) * n, -1)

    def _through(
        self, layers: Sequence[Layer], matrices: StarMatrices, encoding: Float[Array, "wavelengths d"]
    ) -> tuple[Float[Array, "stars wavelengths channels"], list[Float[Array, "rows heads tokens"]]]:
        """Return the unscaled outputs, and the attention of each layer."""
        stars, (n, d) = matrices.to_scores.shape[1], encoding.shape
        start = jnp.broadcast_to(encoding, (stars, n, d)).reshape(stars * n, d)
        stream, weights = run_blocks(layers, matrices, start, self.products, self.activation)
        hidden = ACTIVATIONS[self.activation](rms_norm(stream) @ self.head[0])
        return (hidden @ self.head[1]).reshape(stars, n, -1), weights


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


class BoundTransformerPayne(BoundEmulator):
    """A TransformerPayne with the encoding of given wavelengths."""

    emulator: TransformerPayne
    wavelength: HostArray = eqx.field(static=True)
    encoding: Float[Array, "wavelengths d"]

    def outputs(self, labels: Float[Array, " labels"]) -> Float[Array, "channels wavelengths"]:
        return self.batch(labels[None])[0]

    def batch(self, labels: Float[Array, "stars labels"]) -> Float[Array, "stars channels wavelengths"]:
        return self.emulator.spectra(labels, self.encoding)

    def values(self, labels: Float[Array, "stars labels"]) -> Float[Array, "stars channels wavelengths"]:
        emulator = self.emulator
        small = emulator.products == "bfloat16" and fusible(emulator.block, emulator.embed[1].shape[1])
        if small and jax.default_backend() == "gpu":
            return emulator.fused(labels, self.encoding)
        return self.batch(labels)

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
