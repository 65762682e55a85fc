"""The label table: names, bounds, constraints, scaling, the unit cube, designs, and what it says of bad labels."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from starpayne.errors import LabelError
from starpayne.labels import Constraint, Label, LabelSpace, symbol_of, unit_of

SPACE = toy.SPACE
GOOD = {"teff": 5772, "logg": 4.44, "alpha_fe": 0.1, "vmic": 1.0, "mg_fe": 0.2}
CUBES = arrays(np.float64, st.tuples(st.integers(1, 6), st.just(5)), elements=st.floats(0, 1))


# -- designs ----------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 200), more=st.integers(0, 200), seed=st.integers(0, 2**31 - 1))
def test_a_shorter_sobol_design_is_a_prefix_of_a_longer_one(n: int, more: int, seed: int) -> None:
    np.testing.assert_array_equal(SPACE.sobol(n, seed), SPACE.sobol(n + more, seed)[:n])


def test_the_prefix_property_holds_where_points_are_passed_over() -> None:
    # Half of the cube is cut away by a constraint whose interval is empty there.
    space = LabelSpace((Label("a", 0, 1), Label("b", 0, 1)), (Constraint({"a": 1, "b": 1}, 1.2, 3),))
    long = space.sobol(500, 3)
    for n in (1, 63, 64, 65, 300):
        np.testing.assert_array_equal(space.sobol(n, 3), long[:n])
    assert np.all(long.sum(axis=1) >= 1.2 - 1e-6)


def test_a_sobol_design_obeys_bounds_and_constraints_and_fills_the_box() -> None:
    design = SPACE.sobol(512, 1)
    assert np.all(design >= SPACE.low)
    assert np.all(design <= SPACE.high)
    assert np.all(np.abs(design[:, 4] - design[:, 2]) <= 0.4 + 1e-12)
    # Every sixteenth of each label's own scale is visited.
    counts = np.apply_along_axis(lambda u: np.histogram(u, 16, (0, 1))[0], 0, SPACE.to_cube(design))
    assert counts.min() >= 24


def test_seeds_give_different_designs() -> None:
    assert not np.array_equal(SPACE.sobol(16, 1), SPACE.sobol(16, 2))


def test_sobol_of_the_shared_grid_is_its_labels(data_folder) -> None:
    facts = json.loads((data_folder / "mgb_reference" / "grid.json").read_text())
    labels = np.load(data_folder / "mgb_reference" / "labels.npy")
    np.testing.assert_allclose(LabelSpace.from_dict(facts).sobol(11000, 20261123), labels, rtol=0, atol=1e-9)


def test_a_design_of_no_spectra_is_refused() -> None:
    with pytest.raises(LabelError, match=r"a design needs at least one spectrum, got n = 0"):
        SPACE.sobol(0, 1)


def test_constraints_that_leave_nothing_are_refused_rather_than_searched_for_ever() -> None:
    space = LabelSpace((Label("a", 0, 1), Label("b", 0, 1)), (Constraint({"a": 1, "b": 1}, 2.5, 3),))
    with pytest.raises(LabelError, match=r"the constraints leave too little of the label box: 0 of \d+ points"):
        space.sobol(4, 1)


# -- the unit cube and scaling ------------------------------------------------------------------------------------


@settings(deadline=None)
@given(cube=CUBES)
def test_the_unit_cube_maps_into_the_allowed_region_and_back(cube: np.ndarray) -> None:
    labels = SPACE.from_cube(cube)
    assert np.all(SPACE.inside(labels))
    np.testing.assert_allclose(SPACE.to_cube(labels), cube, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "constraints",
    [
        ("-0.4 <= a - b <= 0.4",),
        ("-0.4 <= -2 a + 3 b <= 1.5", "0.1 <= b - 0.5 c <= 3"),
        ("-0.5 <= a + b <= 1.2", "-0.2 <= a - b <= 0.9", "-1 <= a - b - 2 c <= 1"),
    ],
)
def test_constraints_of_any_sign_and_number_are_obeyed(constraints: tuple[str, ...]) -> None:
    labels = Label("a", 0, 1), Label("b", 0, 1), Label("c", 0, 1)
    space = LabelSpace(labels, tuple(Constraint.parse(text) for text in constraints))
    design = space.sobol(200, 1)
    for constraint in space.constraints:
        total = sum(c * design[:, space.names.index(name)] for name, c in constraint.coefficients.items())
        assert np.all((total >= constraint.low - 1e-5) & (total <= constraint.high + 1e-5))
    cube = space.to_cube(design)
    assert np.all((cube > -1e-4) & (cube < 1 + 1e-4))
    np.testing.assert_allclose(space.from_cube(cube), design, rtol=0, atol=1e-9)


@pytest.mark.parametrize("text", ["-0.4 <= a - b <= 0.4", "-0.4 <= b - a <= 0.4", "-0.8 <= 2 a - 2 b <= 0.8"])
def test_the_whole_cube_is_allowed_whatever_the_sign_of_the_last_label(text: str) -> None:
    space = LabelSpace((Label("a", 0, 1), Label("b", 0, 1)), (Constraint.parse(text),))
    assert np.all(space.inside(space.from_cube(np.random.default_rng(0).random((500, 2)))))
    np.testing.assert_allclose(space.from_cube(np.array([[0.5, 0.0], [0.5, 1.0]]))[:, 1], [0.1, 0.9], atol=1e-12)


@settings(deadline=None)
@given(unit=CUBES)
def test_scaling_and_unscaling_are_inverse(unit: np.ndarray) -> None:
    labels = SPACE.unscale(unit)
    np.testing.assert_allclose(SPACE.scale(labels), unit, rtol=0, atol=1e-9)
    assert np.all(labels >= SPACE.low - 1e-9 * np.abs(SPACE.low))
    assert np.all(labels <= SPACE.high + 1e-9 * np.abs(SPACE.high))


def test_bounds_scale_to_zero_and_one_on_each_transforms_own_scale() -> None:
    np.testing.assert_allclose(SPACE.scale(SPACE.low), np.zeros(5), atol=1e-12)
    np.testing.assert_allclose(SPACE.scale(SPACE.high), np.ones(5), atol=1e-12)
    middle = SPACE.unscale(np.full(5, 0.5))
    assert middle[0] == pytest.approx(2 / (1 / 4000 + 1 / 7000))
    assert middle[1] == pytest.approx(3.0)
    assert middle[3] == pytest.approx(np.sqrt(0.5 * 3.0))


@pytest.mark.parametrize("method", ["scale", "unscale", "to_cube", "from_cube"])
def test_jax_and_numpy_agree(method: str) -> None:
    cube = np.random.default_rng(1).random((50, 5))
    values = cube if method in ("unscale", "from_cube") else SPACE.from_cube(cube)
    expected = getattr(SPACE, method)(values)
    found = jax.jit(getattr(SPACE, method))(jnp.asarray(values, jnp.float32))
    assert isinstance(expected, np.ndarray)
    assert expected.dtype == np.float64
    assert isinstance(found, jax.Array)
    # float32 keeps a label to a few 1e-7 of its size, which its range may be ten times smaller than.
    scale = np.maximum(np.abs(SPACE.low), np.abs(SPACE.high)) if method in ("unscale", "from_cube") else 1.0
    np.testing.assert_allclose(np.asarray(found) / scale, expected / scale, rtol=0, atol=3e-6)


def test_the_cube_coordinate_of_a_constrained_label_is_its_offset() -> None:
    low, high = SPACE.from_cube(np.array([[0.5, 0.5, 0.5, 0.5, 0.0], [0.5, 0.5, 0.5, 0.5, 1.0]]))
    assert low[4] == pytest.approx(0.2 - 0.4)
    assert high[4] == pytest.approx(0.2 + 0.4)


def test_a_label_outside_the_region_lands_outside_the_cube() -> None:
    labels = SPACE.from_cube(np.full(5, 0.5))
    labels[4] = labels[2] + 0.5
    assert SPACE.to_cube(labels)[4] > 1


# -- checks and their texts -----------------------------------------------------------------------------------------


def test_a_mapping_becomes_a_vector_in_the_order_of_the_table() -> None:
    vector = SPACE.vector(dict(reversed(GOOD.items())))
    np.testing.assert_array_equal(vector, [5772, 4.44, 0.1, 1.0, 0.2])
    assert vector.dtype == np.float64
    SPACE.check(vector)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"tef": 5772}, r"^unknown label 'tef'; did you mean 'teff'\? \(labels: teff, logg, alpha_fe, vmic, mg_fe\)$"),
        ({"Mg_Fe": 0}, r"unknown label 'Mg_Fe'; did you mean 'mg_fe'\?"),
        ({"colour": 1}, r"^unknown label 'colour' \(labels: teff"),
    ],
)
def test_an_unknown_label_is_refused_with_the_nearest_name(wrong: dict[str, float], text: str) -> None:
    with pytest.raises(LabelError, match=text):
        SPACE.vector(GOOD | wrong)


def test_missing_labels_are_all_listed_with_their_ranges() -> None:
    with pytest.raises(LabelError, match=r"^missing labels: logg \(1 to 5 dex\(cm/s2\)\), vmic \(0.5 to 3 km/s\)$"):
        SPACE.vector({name: GOOD[name] for name in ("teff", "alpha_fe", "mg_fe")})


@pytest.mark.parametrize("value", ["hot", None, [1, 2]])
def test_a_label_that_is_not_a_number_is_named(value: object) -> None:
    with pytest.raises(LabelError, match=r"^teff = .* is not a number$"):
        toy.unchecked(LabelSpace.vector)(SPACE, GOOD | {"teff": value})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"teff": 7300}, r"^teff = 7300 K is outside the range 4000 to 7000$"),
        ({"teff": 3999}, r"^teff = 3999 K is outside the range 4000 to 7000$"),
        ({"logg": float("nan")}, r"^logg = nan is not a finite number$"),
        ({"vmic": float("inf")}, r"^vmic = inf is not a finite number$"),
        # A NaN is worse than a range, and is named first.
        ({"teff": 9000, "mg_fe": float("nan")}, r"^mg_fe = nan is not a finite number$"),
        ({"mg_fe": 0.6}, r"^the labels break -0.4 <= mg_fe - alpha_fe <= 0.4: the combination is 0.5$"),
    ],
)
def test_a_bad_value_is_refused_with_its_name_and_range(change: dict[str, float], text: str) -> None:
    vector = SPACE.vector(GOOD | change)
    assert not SPACE.inside(vector)
    with pytest.raises(LabelError, match=text):
        SPACE.check(vector)


def test_the_first_bad_row_of_a_table_is_named() -> None:
    table = np.tile(SPACE.vector(GOOD), (4, 1))
    table[2, 1] = 5.5
    np.testing.assert_array_equal(SPACE.inside(table), [True, True, False, True])
    with pytest.raises(LabelError, match=r"^row 2: logg = 5.5 dex\(cm/s2\) is outside the range 1 to 5$"):
        SPACE.check(table)


def test_extrapolation_lifts_ranges_and_constraints_but_not_nan() -> None:
    SPACE.check(SPACE.vector(GOOD | {"teff": 9000, "mg_fe": -3}), extrapolate=True)
    with pytest.raises(LabelError, match=r"^mg_fe = nan is not a finite number$"):
        SPACE.check(SPACE.vector(GOOD | {"teff": 9000, "mg_fe": float("nan")}), extrapolate=True)
    with pytest.raises(LabelError, match=r"^vmic = -1 has no place on its log10 scale$"):
        SPACE.check(SPACE.vector(GOOD | {"teff": 9000, "vmic": -1}), extrapolate=True)


@pytest.mark.parametrize("shape", [(), (4,), (3, 6)])
def test_a_wrong_number_of_labels_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(LabelError, match=r"labels must have 5 values in the last dimension \(teff, .*got an array of"):
        SPACE.check(np.zeros(shape))


@settings(deadline=None)
@given(cube=CUBES.map(np.round))
def test_a_float32_round_trip_of_the_edge_stays_inside(cube: np.ndarray) -> None:
    assert np.all(SPACE.inside(SPACE.from_cube(cube).astype(np.float32)))


# -- making tables --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Label("teff", 7000, 4000), r"label teff: bounds must be finite and increasing, got low = 7000"),
        (lambda: Label("teff", float("nan"), 1), r"label teff: bounds must be finite and increasing, got low = nan"),
        (lambda: Label("t eff", 1, 2), r"label name 't eff' is not an identifier"),
        (
            lambda: Label("teff", 1, 2, transform="log"),
            r"unknown transform 'log'; choose one of linear, log10, inverse",
        ),
        (lambda: Label("feh", -1, 2, transform="log10"), r"label feh: transform log10 needs low > 0, got -1"),
        (lambda: LabelSpace(()), r"a label space needs at least one label"),
        (lambda: LabelSpace((Label("a", 0, 1), Label("a", 0, 1))), r"labels given twice: a"),
        (
            lambda: LabelSpace((Label("a", 0, 1),), (Constraint({"b": 1.0}, 0, 1),)),
            r"constraint 0 <= b <= 1: unknown label 'b'",
        ),
        (lambda: Constraint({"a": 0.0}, 0, 1), r"coefficients must be finite and not zero"),
        (lambda: Constraint({"a": 1.0}, 1, 1), r"constraint 1 <= a <= 1: low must be below high"),
        (lambda: SPACE["mgfe"], r"unknown label 'mgfe'; did you mean 'mg_fe'\?"),
    ],
)
def test_an_impossible_table_is_refused(make, text: str) -> None:
    with pytest.raises(LabelError, match=text):
        make()


@pytest.mark.parametrize(
    ("text", "coefficients"),
    [
        ("-0.4 <= mg_fe - alpha_fe <= 0.4", {"mg_fe": 1, "alpha_fe": -1}),
        ("-0.4<=-mg_fe+2*alpha_fe<=0.4", {"mg_fe": -1, "alpha_fe": 2}),
        ("-0.4 <= 1e-3 teff - .5 logg <= 0.4", {"teff": 1e-3, "logg": -0.5}),
    ],
)
def test_a_constraint_is_read_from_text(text: str, coefficients: dict[str, float]) -> None:
    assert Constraint.parse(text) == Constraint(coefficients, -0.4, 0.4)


@pytest.mark.parametrize(
    "text",
    [
        "mg_fe <= 0.4",
        "0 <= mg_fe < 1",
        "low <= mg_fe <= 1",
        "0 <=  <= 1",
        "0 <= mg_fe - <= 1",
        "0 <= mg_fe alpha_fe <= 1",
        "0 <= mg_fe + 0.3 <= 1",  # a constant would be dropped in silence
        "0 <= mg_fe + mg_fe <= 1",
        "0 <= 2 3 mg_fe <= 1",
        "0 <= mg_fe / 2 <= 1",
        "0 <= __import__('os') <= 1",
    ],
)
def test_bad_constraint_text_is_refused_with_the_form_it_should_have(text: str) -> None:
    with pytest.raises(LabelError, match=r"constraint .*: write it as 'low <= label - label <= high'"):
        Constraint.parse(text)


NUMBERS = st.floats(-1e6, 1e6).filter(lambda x: x != 0)


@given(a=NUMBERS, b=NUMBERS, ends=st.tuples(NUMBERS, NUMBERS).filter(lambda e: e[0] < e[1]))
def test_a_constraint_survives_its_own_text(a: float, b: float, ends: tuple[float, float]) -> None:
    constraint = Constraint({"teff": a, "e_fe": b}, *ends)
    assert Constraint.parse(str(constraint)) == constraint


def test_a_table_survives_json_and_stays_hashable() -> None:
    again = LabelSpace.from_dict(json.loads(json.dumps(SPACE.to_dict())))
    assert again == SPACE
    assert hash(again) == hash(SPACE)
    assert again["teff"].transform == "inverse"


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"labels": [{"name": "teff", "low": 1}]},
        {"labels": [{"name": "teff", "low": "cool", "high": 2}]},
        {"labels": 3},
        {"labels": ["teff"]},
        {"labels": [{"name": "teff", "low": 1, "high": 2}], "constraints": [3]},
    ],
)
def test_an_unreadable_table_is_one_clear_error(data: dict) -> None:
    with pytest.raises(LabelError, match=r"label table cannot be read: .*each label needs name, low, high"):
        LabelSpace.from_dict(data)


def test_units_and_symbols_come_from_the_name() -> None:
    assert (unit_of("teff"), unit_of("mg_fe"), unit_of("colour")) == ("K", "dex", "")
    assert (symbol_of("mg_fe"), symbol_of("feh"), symbol_of("colour")) == ("[Mg/Fe]", "[Fe/H]", "colour")
    assert Label("vmic", 1, 2).unit == "km/s"
