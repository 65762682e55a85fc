"""The Payne: the published form, and interpolation off its pixels."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from starpayne.bundle import Model, load, named_arrays, save
from starpayne.emulators import Payne, SpectralDomain
from starpayne.errors import RecipeError, WavelengthError

CENTRE = toy.SPACE.from_cube(np.full(5, 0.4))


def payne(**changes) -> Payne:
    given = {
        "hidden": (12, 9, 7),
        "activation": "leaky_relu",
        "key": jax.random.key(3),
        "channels": ("flux",),
        **changes,
    }
    wavelength = given.pop("wavelength", toy.WAVELENGTH)
    return toy.fresh(Payne.initialise, toy.SPACE, toy.domain(), given.pop("channels"), wavelength, **given)


def test_it_is_the_published_network_on_labels_scaled_to_half() -> None:
    emulator = eqx.tree_at(
        lambda e: (e.center, e.width), payne(), (jnp.full((1, 40), 0.9), jnp.linspace(0.1, 0.2, 40)[None])
    )
    weights = [np.asarray(w, np.float64) for w in emulator.weights]
    biases = [np.asarray(b, np.float64) for b in emulator.biases]
    hidden = toy.SPACE.scale(CENTRE) - 0.5
    for w, b in zip(weights[:-1], biases[:-1], strict=True):
        hidden = hidden @ w + b
        hidden = np.where(hidden > 0, hidden, 0.01 * hidden)
    expected = 0.9 + np.linspace(0.1, 0.2, 40) * (hidden @ weights[-1] + biases[-1])
    np.testing.assert_allclose(emulator.predict(CENTRE).flux, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("activation", ["gelu", "silu"])
def test_modern_activations_are_smooth_where_the_published_one_is_not(activation: str) -> None:
    def kink(name: str) -> float:
        """The largest jump of the slope along a line through label space."""
        bound = payne(activation=name, hidden=(40,)).on()
        ends = jnp.asarray(toy.SPACE.low, jnp.float32), jnp.asarray(toy.SPACE.high, jnp.float32)
        slope = jax.jit(jax.vmap(jax.grad(lambda t: bound(ends[0] + t * (ends[1] - ends[0]))[20])))
        return float(jnp.max(jnp.abs(jnp.diff(slope(jnp.linspace(0.05, 0.95, 400))))))

    assert kink(activation) < 0.2 * kink("leaky_relu")


def test_between_its_pixels_it_interpolates_and_at_them_it_is_exact() -> None:
    emulator = payne()
    pixels = emulator.predict(CENTRE).flux
    mixed = np.sort(np.concatenate([toy.WAVELENGTH[5:20:3], np.linspace(5001.01, 5007.03, 9)]))
    at_pixels = np.isin(mixed, toy.WAVELENGTH)
    assert at_pixels.sum() == 5
    np.testing.assert_allclose(emulator.predict(CENTRE, mixed).flux[at_pixels], pixels[5:20:3], rtol=0, atol=1e-7)


def test_interpolation_keeps_a_resolved_line_to_two_ten_thousandths() -> None:
    def line(x: np.ndarray) -> np.ndarray:
        return 1 - 0.6 * np.exp(-(((x - 5004.7) / 1.5) ** 2))

    scaling = jnp.asarray(line(toy.WAVELENGTH)[None], jnp.float32), jnp.zeros((1, 40))
    emulator = eqx.tree_at(lambda e: (e.center, e.width), payne(), scaling)
    between = np.linspace(5000.0, 5009.7, 333)
    # The bound of four-point interpolation is 3/128 h⁴ max|f⁗| = 1.3e-4.
    np.testing.assert_allclose(emulator.predict(CENTRE, between).flux, line(between), rtol=0, atol=2e-4)


def test_fewer_than_four_pixels_cannot_be_interpolated() -> None:
    emulator = payne(wavelength=toy.WAVELENGTH[:3])
    assert emulator.predict(CENTRE).flux.shape == (3,)
    with pytest.raises(WavelengthError, match=r"cubic interpolation needs at least 4 wavelengths to start from, got 3"):
        emulator.on(toy.WAVELENGTH[:1] + 0.01)


def test_two_channels_share_the_hidden_layers() -> None:
    emulator = payne(channels=("flux", "log10_continuum"))
    labels = jnp.asarray(CENTRE, jnp.float32)
    assert jax.jit(lambda x: emulator.on().outputs(x))(labels).shape == (2, 40)
    assert jax.jit(lambda x: emulator.on(toy.WAVELENGTH[:7] + 0.01).outputs(x))(labels).shape == (2, 7)
    prediction = emulator.predict(CENTRE)
    assert prediction.continuum is not None
    assert prediction.continuum.shape == prediction.flux.shape == (40,)
    np.testing.assert_array_less(0, prediction.continuum)


def test_the_same_key_draws_the_same_weights() -> None:
    one, same, other = payne(), payne(), payne(key=jax.random.key(4))
    assert all(np.array_equal(a, b) for a, b in zip(one.weights, same.weights, strict=True))
    assert not np.array_equal(one.weights[0], other.weights[0])
    assert np.abs(one.weights[1]).max() <= 1 / np.sqrt(12)


def test_only_hidden_matrices_are_named_as_such() -> None:
    emulator = payne()
    arrays = named_arrays(emulator)
    assert set(emulator.matrix_axes()) == {"weights.1", "weights.2"}
    assert arrays["weights.1"].shape == (12, 9)


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        (
            {"activation": "cosine"},
            RecipeError,
            r"activation 'cosine' is not known; choose one of leaky_relu, gelu, silu, relu",
        ),
        ({"hidden": (16, 0)}, RecipeError, r"every layer needs at least one unit, got hidden = \(16, 0\)"),
        (
            {"hidden": (16, 8), "residual": True},
            RecipeError,
            r"residual connections need hidden layers of one width, got hidden = \(16, 8\)",
        ),
        ({"wavelength": toy.WAVELENGTH[::-1]}, WavelengthError, r"wavelengths must increase"),
    ],
)
def test_an_impossible_network_is_refused(changes, error, text: str) -> None:
    with pytest.raises(error, match=text):
        payne(**changes)


def test_residual_layers_are_added_to_what_enters_them() -> None:
    emulator = payne(hidden=(12, 12, 12), residual=True, activation="silu")
    weights = [np.asarray(w, np.float64) for w in emulator.weights]
    biases = [np.asarray(b, np.float64) for b in emulator.biases]

    def normalised(x: np.ndarray) -> np.ndarray:
        x = x / np.sqrt(np.mean(x**2) + 1e-6)
        return x / (1 + np.exp(-x))

    stream = (toy.SPACE.scale(CENTRE) - 0.5) @ weights[0] + biases[0]
    for w, b in zip(weights[1:-1], biases[1:-1], strict=True):
        stream = stream + normalised(stream) @ w + b
    expected = normalised(stream) @ weights[-1] + biases[-1]
    np.testing.assert_allclose(emulator.predict(CENTRE).flux, expected, rtol=0, atol=2e-6)


def test_residual_layers_survive_a_bundle(tmp_path) -> None:
    emulator = payne(hidden=(12, 12), residual=True)
    again = load(save(Model(emulator), tmp_path / "m")).emulator
    np.testing.assert_array_equal(again.predict(CENTRE).flux, emulator.predict(CENTRE).flux)
    assert again.config["residual"] is True


def test_a_model_from_before_residual_connections_is_still_read() -> None:
    config = {"hidden": [4], "activation": "gelu", "wavelength": toy.WAVELENGTH.tolist()}
    assert Payne.skeleton(toy.SPACE, toy.domain(), ("flux",), config).residual is False


def test_a_subset_of_pixels_is_refused() -> None:
    emulator = payne()
    with pytest.raises(RecipeError, match=r"a Payne computes all its pixels at once; batch_wavelengths does not apply"):
        emulator.on().at(emulator, jnp.arange(3))


def test_new_weights_go_into_a_bound_payne() -> None:
    one, other = payne(), payne(key=jax.random.key(4))
    labels = jnp.asarray(CENTRE, jnp.float32)
    np.testing.assert_array_equal(jax.jit(one.on().at(other))(labels), jax.jit(other.on())(labels))


def test_a_domain_says_what_the_spectra_are() -> None:
    assert payne().domain == SpectralDomain(
        *(float(x) for x in toy.WAVELENGTH[[0, -1]]), "air", 20000.0, None, toy.PHYSICS
    )
