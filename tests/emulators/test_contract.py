"""What every emulator keeps to: pure bound functions, exact batches, right derivatives, refusals and flags."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from starpayne.bundle import Model
from starpayne.emulators import ARCHITECTURES, SpectralDomain, architecture, base, flags_for
from starpayne.emulators.base import HostArray
from starpayne.errors import BundleError, LabelError, WavelengthError
from starpayne.labels import Constraint, LabelSpace
from starpayne.wavelengths import air_to_vacuum

SPACE = toy.SPACE
CENTRE = SPACE.from_cube(np.full(5, 0.5))
OFF_PIXELS = np.linspace(5000.3, 5009.1, 17)
SUN = {"teff": 5772.0, "logg": 4.44, "alpha_fe": 0.0, "vmic": 1.0, "mg_fe": 0.1}


def stars(n: int = 7) -> jax.Array:
    return jnp.asarray(toy.labels(n, seed=9), jnp.float32)


@pytest.fixture(
    params=[
        "payne on its pixels", "payne between them", "transformer", "convolutional", "additive", "polynomial",
        "gaussian_process", "gaussian_process between pixels", "corrected between pixels",
    ]
)  # fmt: skip
def bound(request: pytest.FixtureRequest):
    model = request.getfixturevalue(f"{request.param.split()[0]}_model")
    return model.emulator.on(OFF_PIXELS if "between" in request.param else None)


# -- the pure function ------------------------------------------------------------------------------------------------


def test_bound_gives_flux_at_the_wavelengths_asked_for(model: Model) -> None:
    flux = jax.jit(model.emulator.on(OFF_PIXELS))(stars()[0])
    assert flux.shape == (17,)
    assert flux.dtype == jnp.float32
    truth = toy.spectra(np.asarray(stars()[:1], np.float64), OFF_PIXELS)[0]
    assert np.mean(np.abs(flux - truth)) < 0.1  # it was trained on such spectra


def test_bound_can_be_jitted_mapped_and_differentiated(bound) -> None:
    labels = stars()
    one = jax.jit(bound)(labels[0])
    np.testing.assert_allclose(jax.jit(jax.vmap(bound))(labels)[0], one, atol=1e-6)
    gradient = jax.jit(jax.grad(lambda x: jnp.mean(bound(x))))(labels[0])
    assert gradient.shape == (5,)
    assert np.all(np.isfinite(gradient))
    assert np.any(gradient != 0)


def test_bound_is_a_pytree_that_may_be_an_argument(bound) -> None:
    leaves, structure = jax.tree_util.tree_flatten(bound)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    again = jax.tree_util.tree_unflatten(structure, leaves)
    called = jax.jit(lambda b, x: b(x))(again, stars()[0])
    np.testing.assert_allclose(called, jax.jit(bound)(stars()[0]), atol=1e-6)


def test_a_batch_equals_a_map_over_single_stars(bound) -> None:
    labels = stars()
    batch = jax.jit(type(bound).batch)(bound, labels)
    assert batch.shape == (7, 1, len(bound.wavelength))
    np.testing.assert_allclose(batch[:, 0], jax.jit(jax.vmap(bound))(labels), atol=1e-6)
    np.testing.assert_allclose(batch[3, 0], jax.jit(bound)(labels[3]), atol=1e-6)


def test_derivatives_agree_with_finite_differences(bound) -> None:
    centre = jnp.asarray(CENTRE, jnp.float32)
    width = jnp.asarray(SPACE.high - SPACE.low, jnp.float32)

    def flux(u: jax.Array) -> jax.Array:
        return bound(centre + width * u)

    derivative = jax.jit(jax.jacrev(flux))(jnp.zeros(5))
    flux = jax.jit(flux)
    h = 0.01
    for i in range(5):
        step = jnp.zeros(5).at[i].set(h)
        # The fourth-order difference: rounding leaves 1e-5, truncation about as much.
        difference = (8 * (flux(step) - flux(-step)) - (flux(2 * step) - flux(-2 * step))) / (12 * h)
        np.testing.assert_allclose(derivative[:, i], difference, rtol=0, atol=2e-3 * (1 + np.abs(derivative).max()))
    assert np.abs(derivative).max() > 0.05


def test_forward_mode_equals_reverse_mode(bound) -> None:
    labels = stars()[0]
    forward = jax.jit(jax.jacfwd(bound))(labels) * (SPACE.high - SPACE.low)
    reverse = jax.jit(jax.jacrev(bound))(labels) * (SPACE.high - SPACE.low)
    np.testing.assert_allclose(forward, reverse, rtol=0, atol=2e-5 * np.abs(reverse).max())


def test_wavelengths_of_bound_are_float64_and_cannot_be_changed(model: Model) -> None:
    bound = model.emulator.on(OFF_PIXELS)
    np.testing.assert_array_equal(bound.wavelength.values, OFF_PIXELS)
    assert bound.wavelength.values.dtype == np.float64
    with pytest.raises(ValueError, match=r"read-only"):
        bound.wavelength.values[0] = 0
    assert HostArray(OFF_PIXELS) == HostArray(OFF_PIXELS.copy())
    assert hash(HostArray(OFF_PIXELS)) == hash(HostArray(OFF_PIXELS.copy()))
    assert HostArray(OFF_PIXELS) != HostArray(OFF_PIXELS + 1e-9)


# -- wavelengths ------------------------------------------------------------------------------------------------------


def test_a_traced_wavelength_is_refused_with_what_to_do(model: Model) -> None:
    with pytest.raises(WavelengthError, match=r"traced by JAX .*Call bound = emulator.on\(wavelength\) outside"):
        jax.jit(lambda w: model.emulator.on(w)(stars()[0]))(jnp.asarray(OFF_PIXELS))


def test_the_same_wavelengths_in_the_other_medium_give_the_same_flux(model: Model) -> None:
    for wavelength in (OFF_PIXELS, toy.WAVELENGTH):
        air = model.emulator.predict(SUN, wavelength)
        vacuum = model.emulator.predict(SUN, air_to_vacuum(wavelength), medium="vacuum")
        np.testing.assert_allclose(vacuum.flux, air.flux, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(vacuum.wavelength, air_to_vacuum(wavelength))
        assert (air.medium, vacuum.medium) == ("air", "vacuum")
        bound = model.emulator.on(air_to_vacuum(wavelength), medium="vacuum")
        flux = jax.jit(bound)(jnp.asarray(SPACE.vector(SUN), jnp.float32))
        np.testing.assert_allclose(flux, air.flux, rtol=0, atol=1e-6)


def test_its_own_wavelengths_are_given_in_the_medium_asked_for(model: Model) -> None:
    air, vacuum = model.emulator.predict(SUN), model.emulator.predict(SUN, medium="vacuum")
    assert (air.medium, vacuum.medium) == ("air", "vacuum")
    np.testing.assert_array_equal(air.wavelength, model.emulator.native_wavelength)
    np.testing.assert_array_equal(vacuum.wavelength, air_to_vacuum(air.wavelength))
    np.testing.assert_array_equal(vacuum.flux, air.flux)


@pytest.mark.parametrize(
    ("wavelength", "medium", "text"),
    [
        ([4990.0, 5005.0], None, r"wavelengths 4990.000 to 5005.000 Å leave the model's range 5000.000 to 5009.760 Å"),
        ([5001.0, 5000.5], None, r"wavelengths must increase"),
        ([5001.0, np.nan], None, r"wavelength\[1\] = nan is not a finite number"),
        ([500.1, 500.2], None, r"wavelengths start at 500.1: starpayne expects Å"),
        ([5001.0], "water", r"medium 'water' is not known; say 'air' or 'vacuum'"),
        ([5000.5, 5001.0], "vacuum", r"leave the model's range .*would fit as air ones: say medium='air' if that is"),
        (
            air_to_vacuum(toy.WAVELENGTH),
            None,
            r"leave the model's range .*they were taken to be air wavelengths and would fit as vacuum ones: "
            r"say medium='vacuum' if that is what they are",
        ),
    ],
)
def test_unusable_wavelengths_are_refused(model: Model, wavelength, medium: str | None, text: str) -> None:
    with pytest.raises(WavelengthError, match=text):
        model.emulator.predict(SUN, wavelength, medium=medium)
    with pytest.raises(WavelengthError, match=text):
        model.emulator.on(wavelength, medium)


@pytest.mark.parametrize(
    "wrong",
    [
        {"low": 5010.0, "high": 5000.0},
        {"low": float("nan")},
        {"high": float("inf")},
        {"sampling": 0.0},
        {"medium": "water"},
    ],
)
def test_an_impossible_domain_is_refused(wrong) -> None:
    given = {"low": 5000.0, "high": 5010.0, "medium": "air", "sampling": 1e5} | wrong
    with pytest.raises(WavelengthError, match=r"a spectral domain needs 0 < low < high|medium 'water' is not known"):
        SpectralDomain(**given)


# -- labels -----------------------------------------------------------------------------------------------------------


def test_one_star_or_many_by_name_or_in_order(model: Model) -> None:
    emulator = model.emulator
    by_name = emulator.predict(dict(reversed(SUN.items())))
    in_order = emulator.predict(SPACE.vector(SUN))
    table = emulator.predict(np.stack([CENTRE, SPACE.vector(SUN)]))
    assert by_name.flux.shape == emulator.native_wavelength.shape
    np.testing.assert_array_equal(by_name.flux, in_order.flux)
    assert table.flux.shape == (2, *by_name.flux.shape)
    assert table.flux.dtype == np.float32
    np.testing.assert_allclose(table.flux[1], by_name.flux, atol=1e-6)
    assert (len(by_name.flags), len(table.flags)) == (1, 2)
    assert by_name.continuum is None


def test_no_stars_give_no_spectra(model: Model) -> None:
    nothing = model.emulator.predict(np.empty((0, 5)), OFF_PIXELS)
    assert nothing.flux.shape == (0, 17)
    assert nothing.flags == ()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"tef": 1}, r"unknown label 'tef'; did you mean 'teff'\?"),
        ({"teff": 7300}, r"^teff = 7300 K is outside the range 4000 to 7000$"),
        ({"mg_fe": 0.5}, r"^the labels break -0.4 <= mg_fe - alpha_fe <= 0.4: the combination is 0.5$"),
        ({"vmic": float("nan")}, r"^vmic = nan is not a finite number$"),
    ],
)
def test_labels_outside_the_domain_are_refused(model: Model, change, text: str) -> None:
    with pytest.raises(LabelError, match=text):
        model.emulator.predict(SUN | change)


def test_a_missing_label_is_refused_with_its_range(model: Model) -> None:
    with pytest.raises(LabelError, match=r"missing labels: mg_fe \(-0.5 to 0.9 dex\)"):
        model.emulator.predict({name: SUN[name] for name in SUN if name != "mg_fe"})


@pytest.mark.parametrize("shape", [(4,), (2, 4), (2, 3, 5)])
def test_label_arrays_of_the_wrong_shape_are_refused(model: Model, shape: tuple[int, ...]) -> None:
    with pytest.raises(LabelError, match=r"labels must (have 5 values in the last dimension|be one vector or a table)"):
        model.emulator.predict(np.broadcast_to(CENTRE[: shape[-1]], shape), extrapolate=True)


def test_extrapolation_is_allowed_on_request_and_marked(model: Model) -> None:
    rows = np.stack([SPACE.vector(SUN), SPACE.vector(SUN | {"teff": 7300}), SPACE.vector(SUN | {"mg_fe": 0.6})])
    with pytest.raises(LabelError, match=r"^row 1: teff = 7300 K is outside"):
        model.emulator.predict(rows)
    prediction = model.emulator.predict(rows, extrapolate=True)
    assert prediction.flags == ((), ("extrapolated",), ("extrapolated",))
    assert np.all(np.isfinite(prediction.flux))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_extrapolation_does_not_admit_what_is_not_a_number(model: Model, value: float) -> None:
    with pytest.raises(LabelError, match=r"^logg = (nan|inf) is not a finite number$"):
        model.emulator.predict(SUN | {"teff": 7300, "logg": value}, extrapolate=True)


def test_extrapolation_does_not_need_a_corner_that_the_constraints_allow() -> None:
    # The lower corner of this box is forbidden; that must not stand in the way.
    space = LabelSpace(SPACE.labels, (Constraint({"mg_fe": 1.0, "alpha_fe": -1.0}, -0.1, 0.1),))
    space.check(space.vector(SUN | {"teff": 7300}), extrapolate=True)
    assert not space.inside(space.low)


def test_missing_physics_is_flagged_where_it_matters(model: Model) -> None:
    cool, giant = SUN | {"teff": 4500}, SUN | {"logg": 1.2}
    rows = np.stack([SPACE.vector(x) for x in (SUN, cool, giant, cool | {"logg": 1.2})])
    no_molecules, plane_parallel = "no_molecules_below_5000_K", "plane_parallel_below_logg_1.5"
    assert model.emulator.predict(rows).flags == (
        (),
        (no_molecules,),
        (plane_parallel,),
        (no_molecules, plane_parallel),
    )
    assert flags_for(SPACE, (), SPACE.vector(cool)) == ()


# -- chunks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stars_per_chunk", [1, 3, 7])
def test_prediction_does_not_depend_on_its_chunks(model: Model, monkeypatch, stars_per_chunk: int) -> None:
    labels, wavelength = toy.labels(7, seed=9), OFF_PIXELS
    whole = model.emulator.predict(labels, wavelength).flux
    bytes_each = 4 * model.emulator.on(wavelength).floats_per_spectrum
    monkeypatch.setattr(base, "PREDICT_MEMORY", stars_per_chunk * bytes_each)
    np.testing.assert_allclose(model.emulator.predict(labels, wavelength).flux, whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("processors", [1, 2, 5])
def test_prediction_does_not_depend_on_the_cores(model: Model, monkeypatch, processors: int) -> None:
    labels = toy.labels(7, seed=9)
    whole = model.emulator.predict(labels, OFF_PIXELS).flux
    monkeypatch.setattr(base, "WORTHWHILE", 0)
    monkeypatch.setattr(base, "cores", lambda: processors)
    monkeypatch.setattr(base, "PIECE", len(OFF_PIXELS) // 2)
    np.testing.assert_allclose(model.emulator.predict(labels, OFF_PIXELS).flux, whole, rtol=0, atol=1e-6)


def test_calls_side_by_side_compile_once_and_their_errors_arrive(payne_model: Model, monkeypatch) -> None:
    # Numbers of rows that nothing else has compiled for.
    emulator, labels, traced = payne_model.emulator, toy.labels(4 * 37, seed=9), []
    bound_class = type(emulator.on())
    values = bound_class.values

    def counted(self, rows):
        traced.append(len(rows))
        return values(self, rows)

    monkeypatch.setattr(base, "WORTHWHILE", 0)
    monkeypatch.setattr(base, "cores", lambda: 4)
    monkeypatch.setattr(bound_class, "values", counted)
    emulator.predict(labels)
    assert traced == [37]

    def broken(self, rows):
        raise FloatingPointError("no")

    monkeypatch.setattr(bound_class, "values", broken)
    with pytest.raises(FloatingPointError, match="no"):
        emulator.predict(toy.labels(4 * 39, seed=9))


def test_long_wavelength_arrays_are_predicted_in_pieces(model: Model) -> None:
    long = np.linspace(5000.0, 5009.7, 8192 + 100)
    everywhere = model.emulator.predict(SUN, long).flux
    some = np.unique(np.concatenate([np.arange(0, 8192, 1000), np.arange(8190, 8292)]))
    np.testing.assert_allclose(everywhere[some], model.emulator.predict(SUN, long[some]).flux, rtol=0, atol=1e-6)


def test_an_architecture_is_found_by_its_name() -> None:
    assert sorted(ARCHITECTURES) == [
        "additive",
        "convolutional",
        "corrected",
        "gaussian_process",
        "payne",
        "polynomial",
        "transformer",
    ]
    with pytest.raises(
        BundleError, match=r"unknown architecture 'cnn'; this starpayne knows payne, transformer, convol"
    ):
        architecture("cnn")
