"""The page in a real browser, as a visitor uses it, with a small model; screenshots go to $STARPAYNE_ARTEFACTS."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import known_star
import numpy as np
import pytest

from starpayne import bundle
from starpayne.fitting import ForwardModel
from starpayne.spectra import ObservedSpectrum
from starpayne.wavelengths import log_grid

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
SCREEN = {"width": 1366, "height": 650}
"""What a window leaves of a laptop's 1366 × 768."""

KNOBS = ("Teff (K)", "log g (dex)", "[Fe/H] (dex)", "[α/Fe] (dex)", "RV (km/s)", "v sin i (km/s)", "R = λ/FWHM",
         "[Mg/Fe] (dex)")  # fmt: skip

COUNT = """() => {
  window.changes = 0
  const source = Bokeh.documents[0].get_model_by_name("model")
  source.connect(source.properties.data.change, () => { window.changes += 1 })
}"""

COLUMN = """name => {
  const data = Bokeh.documents[0].get_model_by_name(name).data
  return [...data.x, ...data.y].map(value => Number.isFinite(value) ? value : null)
}"""
"""Wavelengths, then fluxes."""


SCATTER = """(() => {
  const all = Array.from(Bokeh.documents[0].get_model_by_name("observed").data.residual).filter(Number.isFinite)
  return all.length > 500 ? Math.sqrt(all.reduce((sum, r) => sum + r * r, 0) / all.length) : Infinity
})()"""


@pytest.fixture
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed (apt-get install chromium), and $CHROMIUM does not name it")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A server of a small model."""
    model = bundle.save(known_star.model(), tmp_path / "small.model")
    command = "from starpayne.cli import main; main()"
    words = [sys.executable, "-c", command, "explore", "--no-browser", "--port", "0", "--resolution", "20000"]
    server = subprocess.Popen([*words, "--model", str(model)], stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        found = None
        for line in server.stderr:
            if found := re.search(r"http://127\.0\.0\.1:\d+/", line):
                break
        assert found, "the server ended before it said where the page is"
        yield found.group()
    finally:
        server.terminate()
        server.wait()


def star() -> ObservedSpectrum:
    """A star at 12 km/s."""
    wavelength = log_grid(5000.0, 5060.0, 60_000.0)
    forward, usable = ForwardModel.on(known_star.model().emulator, wavelength, known_star.RESOLUTION, velocity=12.0)
    flux = np.asarray(forward(jnp.asarray(known_star.TRUTH, jnp.float32), 12.0, 5.0), np.float64)
    noise = np.random.default_rng(1).normal(0, 0.005, len(flux))
    return ObservedSpectrum(wavelength, 40 * (flux + noise), np.full(len(flux), 0.2), usable, "air", "star")


@pytest.fixture
def artefacts(tmp_path: Path) -> Path:
    folder = Path(os.environ.get("STARPAYNE_ARTEFACTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.slow
def test_a_visitor_turns_every_slider_fits_a_star_and_takes_the_result_home(
    browser: Any, address: str, artefacts: Path, as_text: Callable, tmp_path: Path
) -> None:
    from playwright.sync_api import expect

    page = browser.new_page(viewport=SCREEN)
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("dialog", lambda dialog: (errors.append(dialog.message), dialog.dismiss()))
    page.goto(address)
    page.wait_for_selector(".noUi-handle")
    page.wait_for_function("Bokeh.documents[0].get_model_by_name('marks').data.x.length > 0", timeout=20_000)

    def drawn() -> np.ndarray:
        return np.array([np.nan if y is None else y for y in page.evaluate(COLUMN, "model")], float)

    # Every slider, with the keyboard: the value beside it follows, and the spectrum is another.
    page.evaluate(COUNT)
    handles = page.locator(".noUi-handle").all()
    boxes = [page.get_by_label(name, exact=True).first for name in KNOBS]
    assert len(handles) == len(KNOBS)
    for handle, box in zip(handles, boxes, strict=True):
        before, value, changes = drawn(), box.input_value(), page.evaluate("changes")
        at_end = handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemax")
        handle.focus()
        page.keyboard.press("ArrowLeft" if at_end else "ArrowRight")
        page.wait_for_function("n => changes > n", arg=changes)
        expect(box).not_to_have_value(value)
        assert not np.array_equal(drawn(), before, equal_nan=True)

    # A script for a name is text; what is no spectrum is refused.
    upload = page.locator("input[type=file]")
    upload.set_input_files(
        {"name": "<img src=x onerror=alert(1)>.txt", "mimeType": "text/plain", "buffer": b"\x00junk"}
    )
    page.get_by_text("refused: <img src=x onerror=alert(1)>.txt is neither text nor FITS").wait_for()
    upload.set_input_files({"name": "star.txt", "mimeType": "text/plain", "buffer": as_text(star())})
    page.get_by_text(re.compile(r"star\.txt: \d+ pixels in the model")).wait_for()
    page.screenshot(path=artefacts / "explorer-before-fit.png")

    page.get_by_role("button", name="Fit", exact=True).click()
    page.get_by_text(re.compile("fitting star.txt: step")).wait_for()
    page.get_by_text(re.compile("fitted star.txt: reduced χ²")).wait_for(timeout=120_000)
    assert abs(float(page.get_by_label("RV (km/s)").first.input_value()) - 12) < 1
    assert page.get_by_text(re.compile("^± ")).count() >= 5
    page.wait_for_function(f"{SCATTER} < 0.007", timeout=20_000)  # the star has 0.005
    page.screenshot(path=artefacts / "explorer-after-fit.png")

    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    download.value.save_as(tmp_path / "mine.csv")
    flux = ObservedSpectrum.read(tmp_path / "mine.csv").flux
    shown = drawn()[len(drawn()) // 2 :]
    assert np.allclose(flux, shown[np.isfinite(shown)], atol=1e-6)

    link = page.get_by_label("Link to this view").input_value()
    again = browser.new_page(viewport=SCREEN)
    again.goto(address + link + "&teff=1e9")
    again.get_by_text("teff = 1e+09 K is outside the range 4500 to 7000; taken as 7000").wait_for()
    for name in ("log g (dex)", "[Mg/Fe] (dex)", "RV (km/s)"):
        assert again.get_by_label(name).first.input_value() == page.get_by_label(name).first.input_value()
    assert page.evaluate("document.documentElement.scrollWidth") <= SCREEN["width"]
    assert errors == []
    assert all(url.startswith((address, "data:", "blob:")) for url in asked)
