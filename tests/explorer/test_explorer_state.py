"""States and links: what a page shows is one value, and a link reproduces it or says why not."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from starpayne import bundle
from starpayne.errors import SpectrumError
from starpayne.explorer.dials import Panel
from starpayne.explorer.predictor import Predictor
from starpayne.explorer.state import State, from_query


@pytest.fixture
def start(predictor: Predictor) -> State:
    return State.start(predictor.panel)


def test_a_page_begins_with_the_sun_where_the_model_has_it() -> None:
    state = State.start(Panel.of(bundle.load().emulator))
    assert (state["teff"], state["logg"], state["feh"], state["mg_fe"], state["vmic"]) == (5772, 4.44, 0, 0, 1.07)
    assert (state["rv"], state["vsini"], state["resolution"]) == (0, 0, 50_000)
    assert state.warnings() == ()


def test_a_dial_turns_no_farther_than_its_ends(start: State) -> None:
    turned = start.turned({"teff": 99_999.0, "rv": -1e9, "vsini": 12.5})
    assert (turned["teff"], turned["rv"], turned["vsini"]) == (7000, -500, 12.5)
    assert start["vsini"] == 0  # a new state, not the old one changed


def test_a_combination_that_the_model_does_not_know_is_said(start: State) -> None:
    (warning,) = start.turned({"alpha_fe": -0.1, "mg_fe": 0.9}).warnings()
    assert warning == "extrapolated: the labels break -0.4 <= mg_fe - alpha_fe <= 0.4: the combination is 1"


def test_a_link_reproduces_the_state(start: State) -> None:
    state = start.turned({"teff": 5123.5, "mg_fe": -0.25, "rv": 12.5, "vsini": 3.0, "resolution": 8000.0})
    read, notes = from_query("?" + state.to_query(), start)
    assert read == state
    assert notes == ()


@pytest.mark.parametrize(
    ("query", "note"),
    [
        ("teff=99999", "link: teff = 99999 K is outside the range 4000 to 7000; taken as 7000"),
        ("mg_fe=abc", "link: mg_fe = 'abc' is not a number; left at 0.000"),
        ("mg_fe=nan", "link: mg_fe = 'nan' is not a number; left at 0.000"),
        ("logg=1e999", "link: logg = '1e999' is not a number; left at 4.44"),
        ("mgfe=0.1", "link: 'mgfe' is not known to this model; did you mean 'mg_fe'?; left out"),
        ("derivative=fe", "link: derivative = 'fe' is no label of this model; left at mg_fe"),
        ("teff=" + "9" * 10_000, "the link has 10,005 characters, more than 8,000: it was not read"),
    ],
)
def test_bad_values_of_a_link_are_clipped_or_left_out_and_said(start: State, query: str, note: str) -> None:
    state, notes = from_query(query, start)
    assert notes == (note,)
    assert state == (start.turned({"teff": 7000}) if query == "teff=99999" else start)


def test_what_a_link_says_is_quoted_on_one_line_and_cut(start: State) -> None:
    _, (note,) = from_query("teff=" + quote("<script>alert(1)</script>\n\x1b[31m" + "x" * 200), start)
    assert note.startswith("link: teff = '<script>alert(1)</script>")
    assert "\n" not in note
    assert "\x1b" not in note
    assert len(note) < 100


def test_a_resolution_that_the_model_cannot_give_is_refused(payne_model) -> None:
    with pytest.raises(SpectrumError, match=r"resolution = 50000 is outside the range of this model, 5000 to 10000"):
        Panel.of(payne_model.emulator, 50_000)
