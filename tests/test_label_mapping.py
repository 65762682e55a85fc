"""From the labels of one grid to those of another: nothing a network knows moves, and what does not map is said."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from hypothesis import given
from hypothesis import strategies as st

from starpayne.errors import LabelError
from starpayne.labels import Constraint, Label, LabelSpace, mapped_space, solar_scaled

TEFF, LOGG, ALPHA, VMIC, MG = toy.SPACE.labels
OTHER = LabelSpace(
    (
        Label("na_fe", -0.3, 0.6),
        Label("mg_fe", -0.2, 0.5),
        Label("feh", -2.0, 0.5),
        Label("logg", 3.0, 5.0),
        Label("teff", 5000.0, 6500.0),
    ),
    (Constraint({"mg_fe": 1.0, "na_fe": -1.0}, -0.5, 0.5),),
)
HOLD = {"alpha_fe": 0.1, "vmic": 1.5}


@pytest.fixture
def mapped() -> LabelSpace:
    return mapped_space(toy.SPACE, OTHER, HOLD)


def test_shared_labels_keep_their_order_and_new_ones_follow(mapped: LabelSpace) -> None:
    assert mapped.names == ("teff", "logg", "mg_fe", "na_fe", "feh")
    assert mapped.inputs == ("teff", "logg", "mg_fe", "na_fe", "feh", "alpha_fe", "vmic")
    assert {label.name: value for label, value in mapped.held} == HOLD


def test_bounds_and_constraints_are_those_of_the_grid(mapped: LabelSpace) -> None:
    for name in OTHER.names:
        assert (mapped[name].low, mapped[name].high) == (OTHER[name].low, OTHER[name].high)
    assert mapped.constraints == OTHER.constraints
    mapped.check([6000, 4, 0.2, 0.2, 0])
    with pytest.raises(LabelError, match=r"teff = 4500 K is outside the range 5000 to 6500"):
        mapped.check([4500, 4, 0.2, 0.2, 0])


def test_the_network_meets_its_own_labels_as_it_knew_them(mapped: LabelSpace) -> None:
    values = {"teff": 5321.0, "logg": 3.2, "mg_fe": 0.4, "na_fe": 0.3, "feh": -0.5}
    found = dict(zip(mapped.inputs, mapped.scale(mapped.vector(values)), strict=True))
    base = {name: {**HOLD, **values}[name] for name in toy.SPACE.names}
    known = dict(zip(toy.SPACE.names, toy.SPACE.scale(toy.SPACE.vector(base)), strict=True))
    for name in toy.SPACE.names:
        assert found[name] == known[name]
    assert found["na_fe"] == pytest.approx(0.6 / 0.9)  # a new label is scaled by the grid's bounds


def test_the_scale_of_the_network_s_own_transform_is_kept(mapped: LabelSpace) -> None:
    # The other grid gives Teff no transform; the network goes on with 1/Teff.
    assert mapped["teff"].transform == "inverse"
    assert mapped["teff"].ends == (4000.0, 7000.0)


def test_the_same_labels_map_to_themselves() -> None:
    assert mapped_space(toy.SPACE, toy.SPACE, {}) == toy.SPACE


def test_mapping_twice_keeps_the_first_network_s_scaling_and_what_is_held(mapped: LabelSpace) -> None:
    narrow = LabelSpace((Label("teff", 5500, 6000), Label("mg_fe", 0, 0.2), Label("feh", -1, 0)))
    again = mapped_space(mapped, narrow, {"logg": 4.4, "na_fe": 0.0})
    assert again["teff"].ends == (4000.0, 7000.0)
    assert {label.name: value for label, value in again.held} == {**HOLD, "logg": 4.4, "na_fe": 0.0}
    assert set(again.inputs) == set(mapped.inputs)


def test_a_held_label_that_a_later_grid_has_is_a_label_again(mapped: LabelSpace) -> None:
    again = mapped_space(mapped, toy.SPACE, {"na_fe": 0.0, "feh": -0.3})
    assert set(again.names) == set(toy.SPACE.names)
    assert [label.name for label, _ in again.held] == ["na_fe", "feh"]
    values = dict(zip(toy.SPACE.names, toy.labels(1)[0], strict=True))
    scaled = dict(zip(again.inputs, again.scale(again.vector(values)), strict=True))
    known = dict(zip(toy.SPACE.names, toy.SPACE.scale(toy.labels(1)[0]), strict=True))
    assert {name: scaled[name] for name in toy.SPACE.names} == known


# -- what does not map ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grid", "hold", "text"),
    [
        (
            LabelSpace((TEFF, LOGG)),
            {"mg_fe": 0.0},
            r"^the grid lacks labels of the model: alpha_fe \(-0\.1 to 0\.5 dex\), vmic \(0\.5 to 3 km/s\); "
            r"say where to hold each, as in alpha_fe=0$",
        ),
        (LabelSpace((LOGG, ALPHA, MG)), {"teff": 5772}, r"lacks labels of the model: vmic .* as in vmic=0\.5$"),
        (
            LabelSpace((Label("teff", 4, 7, unit="kK"), LOGG, ALPHA, VMIC, MG)),
            {},
            r"^label teff is in K in the model and in kK in the grid; convert the grid's labels$",
        ),
        (
            LabelSpace((Label("age", 1, 10),)),
            {},
            r"no label in common: teff, logg, alpha_fe, vmic, mg_fe against age$",
        ),
        (LabelSpace((TEFF, LOGG)), {"teff": 5772.0}, r"^teff is a label of the grid; it cannot be held at 5772$"),
        (LabelSpace((TEFF,)), {"mg_fee": 0.0}, r"^a label to hold: unknown label 'mg_fee'; did you mean 'mg_fe'\?"),
        (LabelSpace((TEFF,)), {"logg": 7}, r"^logg cannot be held at 7: the model knows 1 to 5$"),
        (LabelSpace((TEFF,)), {"logg": np.nan}, r"^logg cannot be held at nan: the model knows 1 to 5$"),
    ],
)
def test_labels_that_do_not_map_are_refused_with_what_to_do(grid: LabelSpace, hold, text: str) -> None:
    with pytest.raises(LabelError, match=text):
        mapped_space(toy.SPACE, grid, hold)


def test_a_solar_mixture_holds_elements_at_zero_and_vmic_at_one() -> None:
    grid = LabelSpace((TEFF, LOGG))
    assert solar_scaled(toy.SPACE, grid) == {"alpha_fe": 0.0, "vmic": 1.0, "mg_fe": 0.0}
    assert solar_scaled(toy.SPACE, toy.SPACE) == {}
    # Temperature and gravity have no solar value that would serve: they must be given.
    assert solar_scaled(toy.SPACE, LabelSpace((MG,))) == {"alpha_fe": 0.0, "vmic": 1.0}


# -- label tables with scales and held labels -------------------------------------------------------------------------


def test_scaling_with_held_labels_is_the_same_in_numpy_and_jax(mapped: LabelSpace) -> None:
    values = mapped.sobol(20, 1)
    host = mapped.scale(values)
    assert host.shape == (20, 7)
    np.testing.assert_allclose(jax.jit(mapped.scale)(jnp.asarray(values, jnp.float32)), host, atol=1e-5)
    np.testing.assert_allclose(mapped.scale(values[0]), host[0])


def test_unscaling_gives_the_labels_back_without_the_held_ones(mapped: LabelSpace) -> None:
    values = mapped.sobol(20, 1)
    np.testing.assert_allclose(mapped.unscale(mapped.scale(values)), values, rtol=1e-12, atol=1e-12)


@given(value=st.floats(0.01, 100), transform=st.sampled_from(["linear", "log10", "inverse"]))
def test_a_label_s_scale_goes_to_zero_and_one_whatever_its_bounds(value: float, transform: str) -> None:
    scaled = LabelSpace((Label("x", 1.0, 2.0, transform=transform, scale=(0.5, 8.0)),))
    plain = LabelSpace((Label("x", 0.5, 8.0, transform=transform),))
    np.testing.assert_array_equal(scaled.scale(np.array([value])), plain.scale(np.array([value])))
    np.testing.assert_allclose(scaled.scale(np.array([[0.5], [8.0]])), [[0.0], [1.0]], atol=1e-12)


def test_a_table_with_scales_and_held_labels_comes_back_from_json(mapped: LabelSpace) -> None:
    again = LabelSpace.from_dict(mapped.to_dict())
    assert again == mapped
    assert hash(again) == hash(mapped)
    assert again.to_dict() == mapped.to_dict()
    np.testing.assert_array_equal(again.scale(mapped.sobol(5, 1)), mapped.scale(mapped.sobol(5, 1)))


def test_tables_that_hold_other_values_are_different(mapped: LabelSpace) -> None:
    other = mapped_space(toy.SPACE, OTHER, {**HOLD, "vmic": 1.6})
    assert other != mapped
    assert hash(other) != hash(mapped)


def test_a_scale_that_is_the_bounds_is_no_scale() -> None:
    assert Label("x", 1, 2, scale=(1, 2)) == Label("x", 1, 2)
    assert "scale" not in Label("x", 1, 2, scale=(1.0, 2.0)).to_dict()


@pytest.mark.parametrize("scale", [(2.0, 1.0), (0.0, np.inf), (-1.0, 5.0)])
def test_a_scale_that_is_none_is_refused(scale: tuple[float, float]) -> None:
    with pytest.raises(LabelError, match=r"label vmic: scale = .* must be two increasing numbers on its scale"):
        Label("vmic", 1, 2, transform="log10", scale=scale)


@pytest.mark.parametrize("scale", [[1.0], [1.0, 2.0, 3.0], "ab", 5])
def test_a_scale_of_the_wrong_form_in_a_file_is_one_sentence(scale: object) -> None:
    with pytest.raises(LabelError, match=r"label table cannot be read"):
        LabelSpace.from_dict({"labels": [{"name": "x", "low": 1, "high": 2, "scale": scale}]})


def test_a_label_cannot_be_held_and_free_or_at_no_number() -> None:
    with pytest.raises(LabelError, match=r"labels given twice: teff"):
        LabelSpace((TEFF,), held=((TEFF, 5000.0),))
    for value in (np.inf, -1.0):
        with pytest.raises(LabelError, match=rf"label vmic cannot be held at {value}"):
            LabelSpace((TEFF,), held=((VMIC, value),))
