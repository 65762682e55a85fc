"""TransformerPayne: the architecture of arXiv:2407.05751, and independence of the wavelengths asked for together."""

from __future__ import annotations

from math import pi

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from jaxtyping import Array

from starpayne import bundle
from starpayne.bundle import named_arrays
from starpayne.emulators import TransformerPayne
from starpayne.errors import RecipeError
from starpayne.training import train
from starpayne.wavelengths import log_grid

LABELS = toy.labels(3, seed=11)


def shapes(channels: tuple[str, ...] = ("flux",), **changes) -> TransformerPayne:
    """A small network with shapes in the place of arrays."""
    sizes = {"width": 12, "depth": 3, "tokens": 5, "head_width": 4, **changes}
    return eqx.filter_eval_shape(
        lambda key: TransformerPayne.initialise(toy.SPACE, toy.domain(), channels, key=key, **sizes), jax.random.key(0)
    )


def transformer(**changes) -> TransformerPayne:
    """A small network with weights from NumPy, which compiles nothing."""
    random = np.random.default_rng(3)

    def draw(leaf: object) -> object:
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        return jnp.asarray(0.3 * random.normal(size=leaf.shape), jnp.float32)

    emulator = jax.tree_util.tree_map(draw, shapes(**changes))
    channels = len(emulator.channels)
    return eqx.tree_at(lambda e: (e.center, e.width), emulator, (jnp.zeros((channels, 1)), jnp.ones((channels, 1))))


# -- the architecture, written down again in float64 as a textbook has it ---------------------------------------------


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / pi) * (x + 0.044715 * x**3)))


def rms(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-6)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def textbook(emulator: TransformerPayne, labels: np.ndarray, wavelength: np.ndarray) -> np.ndarray:
    """One star: tokens from the labels, then per block multi-head cross-attention, head by head, and feed-forward."""
    w = {name: np.asarray(leaf, np.float64) for name, leaf in named_arrays(emulator).items()}
    depth, d, heads, head_width = w["block.query"].shape
    tokens = rms(np.einsum("i,itd->td", gelu(toy.SPACE.scale(labels) @ w["embed.0"]), w["embed.1"]))
    periods = np.geomspace(emulator.periods.values[0], emulator.periods.values[-1], d)
    x = np.sin(2 * pi * np.log10(wavelength)[:, None] / periods)
    branch = (depth / 2) ** -0.5
    for i in range(depth):
        query = rms(x)
        attended = np.zeros_like(x)
        for h in range(heads):
            q = query @ w["block.query"][i, :, h]
            k = tokens @ w["block.key"][i, :, h]
            v = tokens @ w["block.value"][i, :, h]
            attended += softmax(q @ k.T / head_width) @ v @ w["block.out"][i, h]
        x = x + branch * attended
        x = x + branch * gelu(rms(x) @ w["block.up"][i]) @ w["block.down"][i]
    output = gelu(rms(x) @ w["head.0"]) @ w["head.1"]
    return w["center"] + w["width"] * output.T


@pytest.mark.parametrize(
    "sizes", [{}, {"depth": 1, "width": 8, "tokens": 2, "head_width": 8}, {"periods": (1e-6, 10.0)}]
)
def test_the_folded_attention_is_textbook_cross_attention(sizes) -> None:
    emulator = transformer(channels=("flux", "log10_continuum"), **sizes)
    scaling = jnp.array([[0.9], [7.0]]), jnp.array([[0.1], [0.2]])
    emulator = eqx.tree_at(lambda e: (e.center, e.width), emulator, scaling)
    wavelength = np.linspace(5000.1, 5009.5, 11)
    found = eqx.filter_jit(lambda b, x: b.batch(x))(emulator.on(wavelength), jnp.asarray(LABELS, jnp.float32))
    for star, labels in zip(found, LABELS, strict=True):
        np.testing.assert_allclose(star, textbook(emulator, labels, wavelength), rtol=0, atol=3e-6)


def test_there_are_no_biases_and_heads_share_the_width() -> None:
    assert {name: leaf.shape for name, leaf in named_arrays(shapes()).items()} == {
        "embed.0": (5, 12), "embed.1": (12, 5, 12),
        "block.query": (3, 12, 3, 4), "block.key": (3, 12, 3, 4), "block.value": (3, 12, 3, 4),
        "block.out": (3, 3, 4, 12), "block.up": (3, 12, 48), "block.down": (3, 48, 12),
        "head.0": (12, 12), "head.1": (12, 1), "center": (1, 1), "width": (1, 1),
    }  # fmt: skip


def test_the_published_sizes_have_the_published_number_of_parameters() -> None:
    def parameters(width: int, depth: int) -> int:
        leaves = jax.tree_util.tree_leaves(shapes(width=width, depth=depth, tokens=16, head_width=32))
        return sum(leaf.size for leaf in leaves)

    # 13.7 and 1.86 million with 95 labels; here 5 labels, which takes 90 × d away.
    assert parameters(256, 16) + 90 * 256 == pytest.approx(13.7e6, rel=0.01)
    assert parameters(128, 8) + 90 * 128 == pytest.approx(1.86e6, rel=0.01)


# -- wavelengths ------------------------------------------------------------------------------------------------------


def test_a_wavelength_has_the_same_flux_alone_or_in_company() -> None:
    emulator = transformer()
    many = np.sort(5000 + 9.7 * np.random.default_rng(2).random(60))
    together = emulator.predict(LABELS, many).flux
    for i in (0, 31, 59):
        np.testing.assert_allclose(emulator.predict(LABELS, many[i : i + 1]).flux[:, 0], together[:, i], atol=1e-6)
    np.testing.assert_allclose(emulator.predict(LABELS, many[::7]).flux, together[:, ::7], rtol=0, atol=1e-6)


def test_a_subset_for_a_training_step_is_the_same_as_binding_to_it() -> None:
    emulator, labels = transformer(), jnp.asarray(LABELS[0], jnp.float32)
    columns = jnp.array([3, 17, 21])
    part = emulator.on(toy.WAVELENGTH).at(emulator, columns)
    np.testing.assert_allclose(jax.jit(part)(labels), jax.jit(emulator.on(toy.WAVELENGTH[columns]))(labels), atol=1e-6)


def batch_and_derivatives() -> tuple[Array, Array, Array]:
    """Spectra of a few stars, and their derivatives in reverse and in forward mode."""
    bound = transformer().on(toy.WAVELENGTH)

    def summed(x: Array) -> tuple[Array, Array]:
        found = bound.batch(x)
        return jnp.sum(found**2), found

    @jax.jit
    def both(x: Array) -> tuple[Array, Array, Array]:
        (_, value), gradient = jax.value_and_grad(summed, has_aux=True)(x)
        return value, gradient, jax.jvp(lambda y: bound.batch(y), (x,), (0.01 * x,))[1]

    return both(jnp.asarray(LABELS, jnp.float32))


@pytest.fixture(scope="module")
def whole() -> tuple[Array, Array, Array]:
    return batch_and_derivatives()


@pytest.mark.parametrize("rows", [1, 4, 7, 39, 40, 41, 90])
def test_pieces_that_fit_in_the_caches_give_what_the_whole_gives(rows: int, whole, monkeypatch) -> None:
    monkeypatch.setattr("starpayne.emulators.transformer.CPU_PIECE", rows * 12)
    monkeypatch.setattr("starpayne.emulators.transformer.GPU_PIECE", rows * 12)
    assert transformer().on(toy.WAVELENGTH).spectra_at_once == max(1, rows // len(toy.WAVELENGTH))
    for one, other in zip(batch_and_derivatives(), whole, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_its_own_wavelengths_are_the_log_grid_it_was_trained_on() -> None:
    emulator = transformer()
    np.testing.assert_allclose(emulator.native_wavelength, toy.WAVELENGTH, rtol=1e-12)
    np.testing.assert_array_equal(emulator.native_wavelength, log_grid(5000.0, float(toy.WAVELENGTH[-1]), 20000.0))
    assert emulator.predict(LABELS[0]).flux.shape == (40,)


def test_close_wavelengths_are_told_apart_at_the_shortest_published_period() -> None:
    emulator = transformer(periods=(1e-6, 10.0))
    close = 5005.0 + 0.001 * np.arange(5)
    assert np.min(np.abs(np.diff(emulator.on(close).encoding[:, 0]))) > 1e-2


def test_fresh_weights_are_normal_with_the_spread_of_their_fan_in() -> None:
    one, same, other = (
        toy.fresh(
            TransformerPayne.initialise, toy.SPACE, toy.domain(), ("flux",), width=64, depth=1, tokens=2,
            key=jax.random.key(seed),
        )
        for seed in (0, 0, 1)
    )  # fmt: skip
    assert float(jnp.std(one.block.up)) == pytest.approx(64**-0.5, rel=0.05)
    assert float(jnp.std(one.block.down)) == pytest.approx(256**-0.5, rel=0.05)
    assert np.array_equal(one.block.query, same.block.query)
    assert not np.array_equal(one.block.query, other.block.query)
    assert not np.array_equal(one.block.query, one.block.key)


# -- edges and refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("corner", ["low", "high"])
def test_value_and_gradient_are_finite_at_the_corners_of_the_label_box(corner: str) -> None:
    # Without biases the zero vector, which is the lower corner, is singular but for the guard in the norm.
    bound = transformer().on(toy.WAVELENGTH[:4])
    labels = jnp.asarray(getattr(toy.SPACE, corner), jnp.float32)
    value, gradient = jax.jit(jax.value_and_grad(lambda x: jnp.sum(bound(x))))(labels)
    assert np.isfinite(value)
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ({"width": 10}, r"width = 10 must be a multiple of the head width 4"),
        ({"width": 2}, r"width = 2 must be a multiple of the head width 4"),
        ({"width": 2**15}, r"width = 32768 must be a multiple of the head width 4, at most 16384"),
        ({"head_width": 0}, r"must be a multiple of the head width 0"),
        ({"depth": 0}, r"depth must be at least 1 and tokens at least 2, got 0 and 5"),
        ({"tokens": 1}, r"depth must be at least 1 and tokens at least 2, got 3 and 1"),
        ({"periods": (1.0, 0.1)}, r"periods must be positive and increasing, got \(1.0, 0.1\)"),
    ],
)
def test_sizes_that_do_not_fit_together_are_refused(sizes, text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        shapes(**sizes)


def test_the_hidden_matrices_are_named_with_their_axes() -> None:
    emulator = transformer()
    arrays, axes = named_arrays(emulator), emulator.matrix_axes()
    assert set(axes) == set(arrays) - {"embed.0", "head.1", "center", "width"}
    for name, (inputs, outputs) in axes.items():
        assert not set(inputs) & set(outputs)
        assert max(*inputs, *outputs) < arrays[name].ndim


def test_products_in_bfloat16_are_near_those_in_float32() -> None:
    emulator = transformer()
    low = emulator.with_products("bfloat16")
    assert low.with_products("float32").products == "float32"
    labels = jnp.asarray(toy.labels(5, seed=9), jnp.float32)
    one, other = (eqx.filter_jit(lambda b, x: b.batch(x))(e.on(), labels) for e in (emulator, low))
    assert other.dtype == jnp.float32
    difference = np.abs(np.asarray(one - other))
    # bfloat16 keeps eight bits: about 0.4 % of an output of order one.
    assert 0 < np.mean(difference) < 1e-2
    assert np.max(difference) < 0.1


def test_training_in_bfloat16_learns_and_leaves_a_float32_model(tmp_path) -> None:
    model = train(toy.data(), toy.recipe("transformer", precision="bfloat16"), tmp_path / "m")
    assert model.emulator.products == "float32"
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(model.emulator))
    history = model.training["history"]
    assert history[-1]["validation_mae"] < 0.7 * history[0]["validation_mae"]
    assert bundle.load(tmp_path / "m").emulator.products == "float32"


def test_the_watched_network_gives_the_same_spectra_and_attention_sums_to_one() -> None:
    network = transformer()
    bound = network.on(toy.WAVELENGTH)
    labels = jnp.asarray(LABELS, jnp.float32)
    spectra, attention = jax.jit(lambda labels: network.watched(network.tokens(labels), bound.encoding))(labels)
    assert attention.shape == (3, len(LABELS), len(toy.WAVELENGTH), 3, 5)
    assert np.allclose(attention.sum(axis=-1), 1, atol=1e-5)
    assert float(attention.std()) > 1e-3
    assert np.allclose(spectra, jax.jit(bound.batch)(labels), atol=1e-5)


def test_attention_is_the_softmax_of_query_times_key() -> None:
    """The first layer once more, as the paper writes it, with nothing folded."""
    network = transformer()
    bound = network.on(toy.WAVELENGTH)
    tokens = np.asarray(jax.jit(lambda labels: network.tokens(labels))(jnp.asarray(LABELS[:1], jnp.float32)))[0]
    x = np.asarray(bound.encoding)
    x = x / np.sqrt(np.mean(x**2, axis=1, keepdims=True))
    query = np.einsum("nd,dhk->nhk", x, np.asarray(network.block.query[0]))
    key = np.einsum("td,dhk->thk", tokens, np.asarray(network.block.key[0]))
    scores = np.einsum("nhk,thk->nht", query, key) / query.shape[-1]
    weights = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    _, attention = jax.jit(lambda tokens: network.watched(tokens, bound.encoding))(jnp.asarray(tokens)[None])
    assert np.allclose(attention[0, 0], weights, atol=1e-4)
