"""The convolutional emulator: its transposed convolution is PyTorch's, and it reaches any number of pixels."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from starpayne.bundle import named_arrays
from starpayne.emulators import Convolutional
from starpayne.emulators.convolutional import KERNEL, PADDING, count_layers, layer_lengths, transposed_convolution
from starpayne.errors import RecipeError


def convolutional(**changes) -> Emulator:
    given = {"hidden": (9, 8), "filters": 6, "activation": "gelu", "key": jax.random.key(2), **changes}
    wavelength, channels = given.pop("wavelength", toy.WAVELENGTH), given.pop("channels", ("flux",))
    return toy.fresh(Convolutional.initialise, toy.SPACE, toy.domain(), channels, wavelength, **given)


@eqx.filter_jit
def pixels_of(emulator: Emulator, labels: jax.Array) -> jax.Array:
    return emulator.pixels_of(labels)


def test_the_transposed_convolution_is_that_of_the_definition() -> None:
    x = np.asarray(jax.random.normal(jax.random.key(0), (2, 13, 4)), np.float64)
    filters = np.asarray(jax.random.normal(jax.random.key(1), (KERNEL, 4, 3)), np.float64)
    whole = np.zeros((2, 3 * 12 + KERNEL, 3))
    for place in range(13):
        for tap in range(KERNEL):
            whole[:, 3 * place + tap] += x[:, place] @ filters[tap]
    expected = whole[:, PADDING:-PADDING]
    for length in (37, 20):
        found = transposed_convolution(jnp.asarray(x, jnp.float32), jnp.asarray(filters, jnp.float32), length)
        np.testing.assert_allclose(found, expected[:, :length], atol=1e-5)


def test_the_number_of_layers_follows_the_pixels() -> None:
    assert [count_layers(n) for n in (13, 14, 1929, 2917, 2918, 8749)] == [1, 2, 6, 6, 7, 7]
    assert layer_lengths(8749, 7) == [13, 37, 109, 325, 973, 2917, 8749]


def test_places_that_no_pixel_needs_are_not_computed() -> None:
    # The same filters on the full sequences: cropping early changes nothing.
    long = convolutional(wavelength=np.linspace(5000, 5009, 109))
    short = convolutional(wavelength=np.linspace(5000, 5009, 109)[:40])
    labels = jnp.asarray(toy.labels(3), jnp.float32)
    assert layer_lengths(40, 3) == [7, 15, 40]
    np.testing.assert_allclose(pixels_of(short, labels), pixels_of(long, labels)[:, :, :40], atol=1e-6)


def test_two_channels_come_from_the_last_layer() -> None:
    emulator = convolutional(channels=("flux", "log10_continuum"))
    assert pixels_of(emulator, jnp.asarray(toy.labels(1), jnp.float32)).shape == (1, 2, 40)
    assert emulator.filters[-1].shape == (KERNEL, 6, 2)


def test_hidden_matrices_are_named_for_the_optimizer() -> None:
    emulator = convolutional()
    arrays = named_arrays(emulator)
    assert set(emulator.matrix_axes()) == {"weights.1", "weights.2", "filters.0", "filters.1"}
    assert set(emulator.matrix_axes()) <= set(arrays)
    assert arrays["filters.0"].shape == (KERNEL, 6, 6)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"activation": "cosine"}, r"activation 'cosine' is not known; choose one of leaky_relu, gelu, silu, relu"),
        ({"hidden": (0,)}, r"every layer needs at least one unit, got hidden = \(0,\) and filters = 6"),
        ({"filters": 0}, r"every layer needs at least one unit, got hidden = \(9, 8\) and filters = 0"),
    ],
)
def test_an_impossible_network_is_refused(changes, text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        convolutional(**changes)
