"""A network on another grid: what it knew it still predicts, and what is new starts from no effect, but can be learned.

The networks have random weights, so that every weight counts; where a spectrum has to be smooth, they are trained.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from starpayne.bundle import Model
from starpayne.emulators import CHANNELS, AdditivePayne, Emulator, Target, adapted, learned_arrays
from starpayne.emulators.base import predict_in_chunks
from starpayne.errors import RecipeError
from starpayne.labels import Label, LabelSpace, mapped_space
from starpayne.training import PayneArchitecture
from starpayne.training.build import build, output_scaling
from starpayne.training.optimizer import trainable

RESIDUAL = PayneArchitecture((16, 16), "silu", residual=True)
RECIPES = {name: toy.recipe(name) for name in ("payne", "additive", "transformer", "convolutional")} | {
    "residual payne": toy.recipe("payne", architecture=RESIDUAL)
}
ALL = pytest.mark.parametrize("name", RECIPES)
WITH_PIXELS = pytest.mark.parametrize("name", ["payne", "residual payne", "additive"])
FEH, NA = Label("feh", -2.0, 0.5), Label("na_fe", -0.3, 0.6)


def network(name: str, channels: tuple[str, ...] = ("flux",)) -> Emulator:
    return toy.network(RECIPES[name].replace(channels=channels))


def target(
    emulator: Emulator, space: LabelSpace = toy.SPACE, wavelength: np.ndarray = toy.WAVELENGTH, **parts
) -> Target:
    """The target of a toy grid with these labels and wavelengths."""
    channels, values = parts.get("channels", emulator.channels), toy.labels()
    spectra = np.stack([toy.spectra(values, wavelength), np.log10(toy.continua(values, wavelength))], axis=1)
    center, width = output_scaling(emulator.network_targets(spectra[:, : len(channels)]), toy.recipe("payne"))
    domain = dataclasses.replace(toy.domain(), low=float(wavelength[0]), high=float(wavelength[-1]))
    return Target(space, domain, wavelength, channels, center.astype(np.float32), width.astype(np.float32))


def outputs(emulator: Emulator, labels: np.ndarray, wavelength: np.ndarray = toy.WAVELENGTH) -> np.ndarray:
    return predict_in_chunks(emulator, labels, wavelength)


# -- what stays -------------------------------------------------------------------------------------------------------


@ALL
@pytest.mark.parametrize("channels", [("flux",), CHANNELS])
def test_the_same_labels_and_wavelengths_change_nothing(name: str, channels: tuple[str, ...]) -> None:
    base = network(name, channels)
    same = adapted(base, target(base))
    for one, other in zip(*map(jax.tree_util.tree_leaves, (base, same)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert jax.tree_util.tree_structure(same) == jax.tree_util.tree_structure(base)  # labels, wavelengths, sizes


@ALL
def test_other_bounds_in_another_order_change_no_prediction(name: str) -> None:
    base = network(name)
    narrower, wider = [Label("mg_fe", -0.2, 0.5), Label("vmic", 0.8, 2.0)], [Label("logg", 0.0, 5.5)]
    grid = LabelSpace((*narrower, Label("alpha_fe", -0.4, 0.3), *wider, Label("teff", 3000.0, 9000.0)))
    other = adapted(base, target(base, mapped_space(base.space, grid, {})))
    assert other.space.names == base.space.names
    np.testing.assert_allclose(outputs(other, toy.labels(6)), outputs(base, toy.labels(6)), atol=1e-6)


@ALL
@pytest.mark.parametrize("held", [{"mg_fe": 0.2}, {"vmic": 1.3, "alpha_fe": 0.1}])
def test_a_held_label_gives_the_prediction_of_the_base_at_its_value(name: str, held: dict[str, float]) -> None:
    base = network(name)
    grid = LabelSpace(tuple(label for label in toy.SPACE.labels if label.name not in held))
    other = adapted(base, target(base, mapped_space(base.space, grid, held)))
    assert other.space.names == grid.names
    rows = toy.labels(6)
    for label, value in held.items():
        rows[:, toy.SPACE.names.index(label)] = value
    own = rows[:, [toy.SPACE.names.index(n) for n in grid.names]]
    np.testing.assert_allclose(outputs(other, own), outputs(base, rows), atol=2e-6)


@ALL
def test_a_held_label_that_comes_back_finds_its_weights_again(name: str) -> None:
    base = network(name)
    without = LabelSpace(tuple(label for label in toy.SPACE.labels if label.name != "mg_fe"))
    once = adapted(base, target(base, mapped_space(base.space, without, {"mg_fe": 0.2})))
    again = adapted(once, target(once, mapped_space(once.space, toy.SPACE, {})))
    values = dict(zip(toy.SPACE.names, toy.labels(1)[0], strict=True))
    np.testing.assert_allclose(again.predict(values).flux, base.predict(values).flux, atol=2e-6)


# -- what is new ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "new"), [*((name, FEH) for name in RECIPES), ("additive", NA)])
def test_a_new_label_has_no_effect_until_a_step_is_taken(name: str, new: Label) -> None:
    base = network(name)
    other = adapted(base, target(base, mapped_space(base.space, LabelSpace((*toy.SPACE.labels, new)), {})))
    rows = np.column_stack([toy.labels(6), np.linspace(new.low, new.high, 6)])
    np.testing.assert_allclose(outputs(other, rows), outputs(base, toy.labels(6)), atol=1e-6)

    labels = jnp.asarray(rows[2], jnp.float32)
    weights, fixed = eqx.partition(other, trainable(other))

    def flux(weights, labels) -> jax.Array:
        return eqx.combine(weights, fixed).on(toy.WAVELENGTH)(labels)

    @jax.jit
    def effects(weights) -> tuple[jax.Array, jax.Array]:
        """The derivative by the new label, before and after a first step of Adam."""
        gradient = jax.grad(lambda w: jnp.mean((flux(w, labels) - 0.5) ** 2))(weights)
        stepped = jax.tree_util.tree_map(lambda w, g: w - 1e-3 * jnp.sign(g), weights, gradient)
        tangent = jnp.zeros(len(labels)).at[-1].set(1.0)

        def effect(w) -> jax.Array:
            return jax.jvp(lambda x: flux(w, x), (labels,), (tangent,))[1]

        return effect(weights), effect(stepped)

    before, after = effects(weights)
    assert not np.any(before)
    assert np.max(np.abs(after)) > 1e-6


def test_a_new_element_is_a_new_group_that_sees_its_own_abundance_alone() -> None:
    base = network("additive")
    grid = LabelSpace((NA, *toy.SPACE.labels))
    other = adapted(base, target(base, mapped_space(base.space, grid, {})))
    assert isinstance(base, AdditivePayne)
    assert isinstance(other, AdditivePayne)
    assert other.weights[0].shape == (3, base.weights[0].shape[1], 16)
    assert other.readout.shape == (3 * 16, 40)
    np.testing.assert_array_equal(other.readout[:32], base.readout)
    assert not np.any(other.readout[32:])
    # The latents mix all labels; without them, sodium's group alone may answer to sodium.
    opened = dataclasses.replace(
        other, readout=jnp.ones_like(other.readout), latent=(other.latent[0], 0 * other.latent[1])
    )
    scaled = jnp.asarray(other.space.scale(np.append(toy.labels(1), 0.3)[None]) - 0.5, jnp.float32)
    shift = opened._inputs(scaled) != opened._inputs(scaled.at[:, other.space.inputs.index("na_fe")].add(0.1))
    assert np.argwhere(shift).tolist() == [[2, 0, base.weights[0].shape[1] - 1]]


def test_the_first_element_of_an_additive_network_without_any_can_be_learned() -> None:
    space = LabelSpace(tuple(label for label in toy.SPACE.labels if label.name != "mg_fe"))
    keep = [toy.SPACE.names.index(n) for n in space.names]
    data = dataclasses.replace(toy.data(), space=space, labels=toy.data().labels[:, keep])
    base = build(data, RECIPES["additive"])
    other = adapted(base, target(base, mapped_space(space, LabelSpace((*space.labels, NA)), {})))
    rows = toy.labels(6)[:, keep]
    more = np.column_stack([rows, np.linspace(-0.3, 0.6, 6)])
    np.testing.assert_allclose(outputs(other, more), outputs(base, rows), atol=1e-6)
    assert isinstance(other, AdditivePayne)
    assert other.weights[0].shape[0] == 2


@pytest.mark.parametrize("name", ["payne", "residual payne", "additive", "transformer"])
def test_a_new_continuum_leaves_the_flux_and_starts_from_the_mean(name: str) -> None:
    base = network(name)
    other = adapted(base, target(base, channels=CHANNELS))
    rows = toy.labels(6)
    found = outputs(other, rows)
    np.testing.assert_allclose(found[:, :1], outputs(base, rows), atol=2e-6)
    mean = np.mean(np.log10(toy.continua(toy.labels())), axis=0)
    if name == "transformer":  # one number for all wavelengths
        mean = np.full_like(mean, np.mean(mean))
    np.testing.assert_allclose(found[:, 1], np.tile(mean, (6, 1)), rtol=1e-6)


# -- other pixels -----------------------------------------------------------------------------------------------------

BETWEEN = 0.5 * (toy.WAVELENGTH[:-1] + toy.WAVELENGTH[1:])


@pytest.mark.parametrize("name", ["payne", "residual payne"])
def test_other_pixels_inside_give_what_the_base_interpolates_to(name: str) -> None:
    base = network(name)
    other = adapted(base, target(base, wavelength=BETWEEN))
    np.testing.assert_array_equal(other.native_wavelength, BETWEEN)
    rows = toy.labels(6)
    np.testing.assert_allclose(outputs(other, rows, BETWEEN), outputs(base, rows, BETWEEN), atol=3e-6)


def test_other_pixels_of_an_additive_network_are_no_further_from_the_truth(additive_model: Model) -> None:
    # It interpolates optical depths, the base fluxes: they differ by what cubics miss of lines two pixels wide.
    base = additive_model.emulator
    other = adapted(base, target(base, wavelength=BETWEEN))
    rows = toy.labels(20)
    one, two = outputs(other, rows, BETWEEN)[:, 0], outputs(base, rows, BETWEEN)[:, 0]
    truth = toy.spectra(rows, BETWEEN)
    assert np.mean(np.abs(one - truth)) < 1.1 * np.mean(np.abs(two - truth))
    assert np.max(np.abs(one - two)) < 0.02


def test_a_transformer_answers_at_any_wavelengths_as_before() -> None:
    base = network("transformer")
    other = adapted(base, target(base, wavelength=BETWEEN))
    np.testing.assert_array_equal(outputs(other, toy.labels(6), BETWEEN), outputs(base, toy.labels(6), BETWEEN))


@WITH_PIXELS
def test_a_part_of_the_pixels_is_cut_out_unchanged(name: str) -> None:
    base = network(name, CHANNELS)
    other = adapted(base, target(base, wavelength=toy.WAVELENGTH[7:31]))
    rows = toy.labels(6)
    np.testing.assert_allclose(
        outputs(other, rows, toy.WAVELENGTH[7:31]), outputs(base, rows)[:, :, 7:31], rtol=2e-6, atol=2e-6
    )


@WITH_PIXELS
def test_rounding_of_the_ends_does_not_make_new_pixels(name: str) -> None:
    base = network(name)
    moved = toy.WAVELENGTH * (1 + 1e-12 * np.linspace(-1, 1, len(toy.WAVELENGTH)))
    other = adapted(base, target(base, wavelength=moved))
    np.testing.assert_allclose(outputs(other, toy.labels(6), moved), outputs(base, toy.labels(6)), atol=2e-6)


@WITH_PIXELS
def test_pixels_beyond_the_old_ones_start_from_the_mean_spectrum(name: str) -> None:
    base = network(name)
    longer = toy.log_grid(5000.0, 5014.0, 20000.0)
    np.testing.assert_array_equal(longer[:40], toy.WAVELENGTH)
    asked = target(base, wavelength=longer)
    found = outputs(adapted(base, asked), toy.labels(6), longer)[:, 0]
    np.testing.assert_allclose(found[:, :40], outputs(base, toy.labels(6))[:, 0], atol=2e-6)
    start = np.exp(-asked.center[0, 40:]) if name == "additive" else asked.center[0, 40:]
    np.testing.assert_allclose(found[:, 40:], np.tile(start, (6, 1)), rtol=1e-6)


@WITH_PIXELS
def test_a_neighbouring_window_starts_from_its_mean_spectrum(name: str) -> None:
    base = network(name)
    window = toy.log_grid(5010.5, 5016.0, 20000.0)
    asked = target(base, wavelength=window)
    other = adapted(base, asked)
    start = np.exp(-asked.center[0]) if name == "additive" else asked.center[0]
    np.testing.assert_allclose(outputs(other, toy.labels(6), window)[:, 0], np.tile(start, (6, 1)), rtol=1e-6)


def test_a_convolutional_network_keeps_its_pixels_and_refuses_others() -> None:
    base = network("convolutional")
    text = r"^a convolutional emulator computes its pixels from each other: it can be fine-tuned on its own pixels and"
    for asked in (target(base, wavelength=BETWEEN), target(base, channels=CHANNELS)):
        with pytest.raises(RecipeError, match=text):
            adapted(base, asked)
    # Its own pixels, but for the rounding of a conversion between air and vacuum.
    rounded = adapted(base, target(base, wavelength=toy.WAVELENGTH * (1 + 1e-13)))
    np.testing.assert_array_equal(outputs(rounded, toy.labels(3)), outputs(base, toy.labels(3)))


@pytest.mark.parametrize("name", ["polynomial", "gaussian_process"])
def test_emulators_in_closed_form_are_refused(name: str, request: pytest.FixtureRequest) -> None:
    emulator = request.getfixturevalue(f"{name}_model").emulator
    with pytest.raises(
        RecipeError,
        match=rf"^a {name} is solved in closed form and cannot be fine-tuned; train it on the new grid$",
    ):
        adapted(emulator, target(emulator))


# -- parts ------------------------------------------------------------------------------------------------------------


def changed_by(emulator: Emulator, names: tuple[str, ...]) -> Callable[[np.ndarray], np.ndarray]:
    """How far predictions for some labels move when these weights do."""
    found = []

    def nudged(keys, leaf):
        if jax.tree_util.keystr(keys, simple=True, separator=".") in names:
            found.append(leaf)
            return leaf * 1.5 + 0.1
        return leaf

    other = jax.tree_util.tree_map_with_path(nudged, emulator)
    assert len(found) == len(names)
    return lambda labels: outputs(other, labels) - outputs(emulator, labels)


@ALL
@pytest.mark.parametrize("part", ["head", "labels"])
def test_every_array_of_a_part_is_there_and_moves_the_spectrum(name: str, part: str) -> None:
    emulator = network(name)
    for array in learned_arrays(emulator, part):
        assert np.max(np.abs(changed_by(emulator, (array,))(toy.labels(3)))) > 1e-4


@ALL
def test_an_unknown_part_is_refused_naming_those_there_are(name: str) -> None:
    emulator = network(name)
    with pytest.raises(RecipeError, match=rf"^a {emulator.architecture} has no part 'body'; it has head, labels$"):
        learned_arrays(emulator, "body")


def test_a_closed_form_has_no_parts(polynomial_model: Model) -> None:
    with pytest.raises(RecipeError, match=r"^a polynomial has no part 'head'; it has none$"):
        learned_arrays(polynomial_model.emulator, "head")
