"""The additive emulator: elements act apart from each other but for the latents, and what adds up is optical depth."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from starpayne.emulators import AdditivePayne
from starpayne.emulators.additive import abundances
from starpayne.errors import RecipeError
from starpayne.labels import Label, LabelSpace
from starpayne.training import AdditiveArchitecture, train

SPACE = LabelSpace(
    (
        Label("teff", 4000.0, 7000.0), Label("mg_fe", -0.5, 0.5),
        Label("alpha_fe", -0.1, 0.5), Label("na_fe", -0.5, 0.5),
    )
)  # fmt: skip
STAR = np.array([5000.0, 0.1, 0.2, -0.1])


def additive(space: LabelSpace = SPACE, channels: tuple[str, ...] = ("flux",), **changes) -> AdditivePayne:
    given = {"hidden": (9, 8), "latents": 0, "key": jax.random.key(2), **changes}
    return toy.fresh(AdditivePayne.initialise, space, toy.domain(), channels, toy.WAVELENGTH, **given)


@eqx.filter_jit
def pixels(emulator: AdditivePayne, labels: jax.Array) -> jax.Array:
    return emulator.pixels(labels)


def depth(emulator: AdditivePayne, **changes: float) -> np.ndarray:
    """Optical depth at STAR with some labels changed."""
    labels = STAR.copy()
    for name, value in changes.items():
        labels[SPACE.names.index(name)] = value
    return -np.log(np.asarray(pixels(emulator, jnp.asarray(labels, jnp.float32))[0], np.float64))


def test_alpha_is_no_single_element() -> None:
    assert abundances(SPACE) == [1, 3]


def test_without_latents_the_optical_depths_of_elements_add_up() -> None:
    emulator = additive()
    both = depth(emulator, mg_fe=0.4, na_fe=0.3)
    one_by_one = depth(emulator, mg_fe=0.4) + depth(emulator, na_fe=0.3) - depth(emulator)
    np.testing.assert_allclose(both, one_by_one, atol=2e-6)
    assert np.max(np.abs(both - depth(emulator))) > 1e-3


def test_the_atmosphere_acts_on_every_element() -> None:
    emulator = additive()
    warm = depth(emulator, teff=6500, mg_fe=0.4) - depth(emulator, teff=6500)
    cool = depth(emulator, mg_fe=0.4) - depth(emulator)
    assert np.max(np.abs(warm - cool)) > 1e-4


def test_latents_let_elements_act_on_each_other() -> None:
    emulator = additive(latents=3)
    both = depth(emulator, mg_fe=0.4, na_fe=0.3)
    one_by_one = depth(emulator, mg_fe=0.4) + depth(emulator, na_fe=0.3) - depth(emulator)
    assert np.max(np.abs(both - one_by_one)) > 1e-4


def test_the_continuum_channel_is_no_optical_depth() -> None:
    emulator = additive(channels=("flux", "log10_continuum"))
    outputs = np.asarray(pixels(emulator, jnp.asarray(STAR, jnp.float32)))
    assert outputs.shape == (2, len(toy.WAVELENGTH))
    targets = np.stack([np.full((3, 40), 0.5), np.full((3, 40), 7.0)], axis=1)
    found = emulator.network_targets(targets)
    np.testing.assert_allclose(found[:, 0], np.log(2), rtol=1e-6)
    np.testing.assert_array_equal(found[:, 1], 7.0)


def test_a_dark_pixel_has_a_finite_optical_depth() -> None:
    assert np.all(np.isfinite(additive().network_targets(np.zeros((2, 1, 40)))))


def test_labels_without_elements_make_one_group() -> None:
    space = LabelSpace((Label("teff", 4000.0, 7000.0), Label("logg", 1.0, 5.0)))
    emulator = additive(space, latents=1)
    assert emulator.weights[0].shape == (1, 3, 9)
    assert np.all(np.isfinite(pixels(emulator, jnp.asarray([5000.0, 4.0]))))


def test_it_starts_at_the_mean_optical_depth_and_learns(tmp_path) -> None:
    model = train(toy.data(), toy.recipe("additive"), tmp_path / "m")
    centre = model.emulator.center[0]
    np.testing.assert_allclose(centre, np.mean(-np.log(toy.data().targets[:, 0]), axis=0), rtol=1e-5)
    assert model.validation["mae"] < 0.01


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(RecipeError, match="every layer needs at least one unit, got hidden = \\(\\) and latents = 0"):
        additive(hidden=())
    with pytest.raises(RecipeError, match="latents = -1 is outside the range 0 to 10000"):
        AdditiveArchitecture(latents=-1)
