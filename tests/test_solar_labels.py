"""Labels that are not given: a solar mixture that hangs together, and a microturbulence that a relation gives."""

from __future__ import annotations

import pytest

from starpayne.labels import Constraint, Label, LabelSpace, fill_solar_scaled, microturbulence, solar_abundances
from starpayne.synthesis.abundances import ALPHA as SYNTHESIS_ALPHA

SPACE = LabelSpace(
    (
        Label("teff", 4000, 7000),
        Label("logg", 1, 5),
        Label("feh", -2.5, 0.5),
        Label("alpha_fe", -0.1, 0.5),
        Label("vmic", 0.9, 2),
        Label("na_fe", -0.4, 0.4),
        Label("mg_fe", -0.5, 0.9),
        Label("ti_fe", -0.5, 0.9),
    ),
    (Constraint({"mg_fe": 1, "alpha_fe": -1}, -0.4, 0.4),),
)


def test_alpha_elements_follow_alpha() -> None:
    assert solar_abundances(SPACE, {}) == {"alpha_fe": 0, "na_fe": 0, "mg_fe": 0, "ti_fe": 0}
    assert solar_abundances(SPACE, {"alpha_fe": 0.3}) == {"na_fe": 0, "mg_fe": 0.3, "ti_fe": 0.3}
    assert solar_abundances(SPACE, {"mg_fe": 0.2}) == {"alpha_fe": 0, "na_fe": 0, "ti_fe": 0}
    assert "Ti" in SYNTHESIS_ALPHA


@pytest.mark.parametrize(
    ("star", "expected"),
    [
        # Worked by hand from the relation.
        ((5500.0, 4.0, 0.0), 1.05),
        ((6500.0, 4.0, 0.0), 1.05 + 0.251 + 0.15),
        ((4000.0, 4.5, -1.0), 1.05 - 0.1255 + 0.0375 - 0.07 - 0.00125 - 0.05 + 0.01),
        ((4500.0, 2.0, 0.5), 1.25 - 0.401 + 0.31 + 0.28 - 0.02 + 0.025 + 0.0025),
    ],
)
def test_microturbulence_of_the_gaia_eso_survey(star: tuple[float, float, float], expected: float) -> None:
    assert microturbulence(*star) == pytest.approx(expected, abs=1e-9)


def test_the_sun_is_filled_in() -> None:
    sun = {"teff": 5772.0, "logg": 4.44, "feh": 0.0}
    filled = fill_solar_scaled(SPACE, sun)
    assert filled == {"alpha_fe": 0, "vmic": 1.07, "na_fe": 0, "mg_fe": 0, "ti_fe": 0}
    assert list(SPACE.vector(sun | filled)) == [5772, 4.44, 0, 0, 1.07, 0, 0, 0]


def test_microturbulence_stays_in_the_range_of_the_model_and_needs_the_star() -> None:
    assert fill_solar_scaled(SPACE, {"teff": 4000.0, "logg": 5.0, "feh": 0.0})["vmic"] == 0.9
    assert "vmic" not in fill_solar_scaled(SPACE, {"teff": 4000.0, "logg": 5.0})
    assert "vmic" not in fill_solar_scaled(SPACE, {"teff": 4000.0, "logg": 5.0, "feh": 0.0, "vmic": 1.5})


def test_what_a_network_holds_is_known() -> None:
    space = LabelSpace((SPACE["teff"], SPACE["logg"], SPACE["vmic"]), held=((SPACE["feh"], -1.0),))
    assert fill_solar_scaled(space, {"teff": 5500.0, "logg": 4.0}) == {"vmic": pytest.approx(1.01)}
