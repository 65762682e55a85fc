"""How long the explorer takes from a slider that moves to the spectrum that is drawn anew, in a browser.

``python benchmarks/explorer.py [MODEL]`` serves the page, opens it in Chromium (named by $CHROMIUM, or found) and
presses an arrow key on one slider after another. The clock runs in the browser, from the time stamp of the key to the
end of the first painting with new data: the way to the server and back, the emulator, and Bokeh are all in it.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from typing import Any

import numpy as np
from playwright.sync_api import Page, sync_playwright
from yardstick import record, speeds

MOVES, WARM = 200, 20

WATCH = """() => {
  const doc = Bokeh.documents[0], source = doc.get_model_by_name("model")
  const view = Bokeh.index.find_one(doc.get_model_by_name("spectrum"))
  const w = window.watch = {pressed: null, fresh: null, times: [], server: []}
  window.addEventListener("keydown", event => { w.pressed = event.timeStamp; w.fresh = null }, true)
  source.connect(source.properties.data.change, () => { w.fresh ??= performance.now() })
  const paint = view._actual_paint.bind(view)
  view._actual_paint = (...given) => {
    paint(...given)
    if (w.pressed === null || w.fresh === null) return
    w.times.push(performance.now() - w.pressed)
    w.server.push(w.fresh - w.pressed)
    w.pressed = w.fresh = null
  }
}"""


def move(page: Page, sliders: list[Any]) -> None:
    """Press one arrow key on one slider, and wait until the spectrum is drawn, and a moment longer."""
    done = page.evaluate("watch.times.length")
    random.choice(sliders).focus()
    page.keyboard.press(random.choice(["ArrowLeft", "ArrowRight"]))
    page.wait_for_function("n => watch.times.length > n", arg=done, polling=20, timeout=20_000)
    # Some moves follow at once, others after the derivative and the lines have begun.
    page.wait_for_timeout(random.choice([20, 60, 300]))


def main() -> None:
    random.seed(0)
    model = sys.argv[1] if len(sys.argv) > 1 else "mgb"
    command = "from starpayne.cli import main; main()"
    words = [sys.executable, "-c", command, "explore", "--model", model, "--no-browser", "--port", "0"]
    before = os.getloadavg()[0]
    server = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        address = next(line for line in server.stderr if "the page is at" in line).split()[4].rstrip(";")
        with sync_playwright() as playwright:
            chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1366, "height": 650})
            page.goto(address)
            page.wait_for_selector(".noUi-handle")
            page.wait_for_timeout(3000)
            page.evaluate(WATCH)
            handles = page.locator(".noUi-handle").all()
            # In the middle of its range every slider can go both ways.
            sliders = [h for h in handles if h.get_attribute("aria-valuemin") != h.get_attribute("aria-valuenow")]
            for _ in range(WARM + MOVES):
                move(page, sliders)
            times, answered = (np.array(page.evaluate(f"watch.{name}"))[WARM:] for name in ("times", "server"))
            version = browser.version
            browser.close()
    finally:
        server.kill()
        server.wait()
    processor = speeds()[1]
    record(
        "explorer",
        {
            "model": model,
            "browser": f"Chromium {version}, headless, 1366 x 650",
            "moves": len(times),
            "median_ms": round(float(np.median(times)), 1),
            "percentile_95_ms": round(float(np.percentile(times, 95)), 1),
            "of_it_until_the_data_arrive_median_ms": round(float(np.median(answered)), 1),
            "of_it_until_the_data_arrive_percentile_95_ms": round(float(np.percentile(answered, 95)), 1),
            "load_average_before": round(before, 1),
            "load_average_after": round(os.getloadavg()[0], 1),
            "gflops_per_processor_second": round(processor, 1),
        },
    )


if __name__ == "__main__":
    main()
