"""Pages without a browser: they have a state each, and what they show follows it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bokeh.document import Document
from shell import refuse

from starpayne import explore
from starpayne.explorer import fits as queue
from starpayne.explorer.fits import FitQueue
from starpayne.explorer.observed import Observed
from starpayne.explorer.page import Page
from starpayne.explorer.predictor import Predictor
from starpayne.explorer.server import free_port


def test_two_sessions_do_not_see_each_other(predictor: Predictor, fits: FitQueue, observe, as_text) -> None:
    one, other = (Page(predictor, fits) for _ in range(2))
    documents = [page.view.server_doc(Document()) for page in (one, other)]
    before = np.array(other.plots.model.data["y"])
    one.controls.knobs["teff"].slider.value = 4500.0
    one.receive("star.txt", as_text(observe()))
    assert one.state["teff"] == 4500
    assert "star.txt" in one.status.object
    assert other.state["teff"] == 5772
    assert other.controls.knobs["teff"].box.value == 5772
    assert np.array_equal(np.array(other.plots.model.data["y"]), before, equal_nan=True)
    assert other.observed is None
    assert "star" not in other.status.object
    ids = [{model.id for model in document.models} for document in documents]
    assert not ids[0] & ids[1]


def test_slider_and_box_follow_each_other_and_the_spectrum_follows_both(predictor: Predictor, fits: FitQueue) -> None:
    page = Page(predictor, fits)
    knob = page.controls.knobs["logg"]
    knob.slider.value = 2.0
    assert (knob.box.value, page.state["logg"]) == (2.0, 2.0)
    knob.box.value = 3.0
    assert (knob.slider.value, page.state["logg"]) == (3.0, 3.0)
    drawn = np.asarray(page.plots.model.data["y"])
    assert np.array_equal(drawn, predictor.flux(page.state), equal_nan=True)
    assert drawn.dtype == np.float32
    assert page.controls.link.value == "?" + page.state.to_query()


def test_a_link_opens_the_page_it_was_copied_from_and_says_what_it_did_not_take(
    predictor: Predictor, fits: FitQueue
) -> None:
    page = Page(predictor, fits)
    page.turn("teff", 5123.0)
    page.controls.derivative.value = "logg"
    again = Page(predictor, fits, query=page.controls.link.value + "&vsini=1e6&<script>=1")
    assert again.state.labels.tolist() == page.state.labels.tolist()
    assert again.controls.knobs["teff"].box.value == 5123
    assert again.plots.slope.title.text == "∂flux/∂log g"  # pyright: ignore
    assert "vsini = 1e+06 km/s is outside the range 0 to 100; taken as 100" in again.status.object
    assert "&lt;script&gt;" in again.status.object
    assert "<script" not in again.status.object


def test_a_refused_upload_leaves_the_page_as_it_was(predictor: Predictor, fits: FitQueue, observe: Callable) -> None:
    page = Page(predictor, fits, Observed.of(observe(), predictor))
    before = page.observed
    page.receive("<b>junk", b"\x00\x01")
    assert page.observed is before
    assert "refused: &lt;b&gt;junk is neither text nor FITS" in page.status.object


def test_lines_of_each_element_are_marked(predictor: Predictor, fits: FitQueue) -> None:
    marks = Page(predictor, fits).plots.marks.data
    assert set(marks["element"]) == {"Mg"}
    assert any(abs(x - 5006) < 0.5 for x in marks["x"])  # the toy's line of magnesium


def test_fits_wait_for_each_other_and_can_be_cancelled(
    predictor: Predictor, fits: FitQueue, observe: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FitQueue, "_work", lambda self: None)  # a worker that never comes
    monkeypatch.setattr(queue, "MOST_WAITING", 2)
    pages = [Page(predictor, fits, Observed.of(observe(), predictor)) for _ in range(3)]
    first, second, third = pages
    first.fit()
    second.fit()
    assert "waiting: 1 fit(s) ahead of this one" in second.status.object
    assert second.controls.fit.disabled
    assert not second.controls.cancel.disabled
    third.fit()
    assert "no fit: 2 fits are waiting already: try again later" in third.status.object
    first.cancel()
    second.look()
    assert "waiting: 0 fit(s) ahead" in second.status.object
    assert "the fit was cancelled" in first.status.object
    assert not first.controls.fit.disabled
    second.close()
    assert second.ticket is not None
    assert second.ticket.stage == "cancelled"


def test_without_the_extra_one_sentence_says_what_to_install(monkeypatch, capsys) -> None:
    monkeypatch.setitem(__import__("sys").modules, "panel", None)
    sentence = refuse(monkeypatch, capsys, "explore", "--no-browser")
    assert re.search(r'the explorer needs an extra: pip install "starpayne\[explorer\]"', sentence)


def test_a_port_that_is_taken_is_said(monkeypatch, capsys) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        sentence = refuse(monkeypatch, capsys, "explore", "--no-browser", "--port", port)
    assert f"port {port} cannot be used (Address already in use): give another one, or --port 0" in sentence
    assert free_port(0) > 0


def test_a_notebook_gets_a_page_of_its_own(payne_model, observe: Callable, as_text, tmp_path: Path) -> None:
    import panel as pn

    (tmp_path / "star.txt").write_bytes(as_text(observe()))
    page = explore(payne_model, tmp_path / "star.txt", resolution=8000)
    assert isinstance(page, pn.viewable.Viewable)
    assert page is not explore(payne_model)
