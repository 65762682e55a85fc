"""[X/Fe] labels are totals, on a named solar composition."""

from __future__ import annotations

import pytest

from starpayne.errors import LabelError
from starpayne.synthesis.abundances import abundances

SOLAR = {"H": 12.0, "He": 10.93, "C": 8.43, "O": 8.69, "Mg": 7.60, "Ca": 6.34, "Fe": 7.50, "Ni": 6.22}


def test_mg_fe_is_a_total_at_low_metallicity() -> None:
    a = abundances({"feh": -2.0, "mg_fe": 0.1}, SOLAR)
    assert a["Mg"] == pytest.approx(SOLAR["Mg"] - 1.9)
    assert a["C"] == pytest.approx(SOLAR["C"] - 2.0), "a published grid had no C, N, O for such a slip"


def test_alpha_fe_moves_the_alpha_elements_that_are_not_labels_and_no_others() -> None:
    low = abundances({"feh": -1.0, "mg_fe": 0.2, "alpha_fe": 0.0}, SOLAR)
    high = abundances({"feh": -1.0, "mg_fe": 0.2, "alpha_fe": 0.4}, SOLAR)
    assert high["Mg"] == low["Mg"]
    assert high["O"] - low["O"] == pytest.approx(0.4)
    assert high["Ca"] - low["Ca"] == pytest.approx(0.4)
    assert high["Ni"] == low["Ni"]


def test_hydrogen_and_helium_do_not_follow_metallicity() -> None:
    a = abundances({"feh": -2.0}, SOLAR)
    assert (a["H"], a["He"], a["Fe"]) == (12.0, 10.93, pytest.approx(5.5))


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("Mg_fe", "unknown label 'Mg_fe'; did you mean 'mg_fe'?"),
        ("fe_fe", "unknown label 'fe_fe'"),
        ("he_fe", "unknown label 'he_fe'"),
        ("as_fe", "unknown label 'as_fe'"),
        ("Teff", "unknown label 'Teff'; did you mean 'teff'?"),
    ],
)
def test_labels_of_no_element_of_the_composition_are_refused(label: str, message: str) -> None:
    with pytest.raises(LabelError, match=message.replace("?", r"\?")):
        abundances({label: 0.1}, SOLAR)
