"""The widgets of the page. Each has a name that a screen reader reads, and is reached with the Tab key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from starpayne.explorer.dials import Dial, Panel, title_of
from starpayne.explorer.extra import panel as library
from starpayne.explorer.upload import LARGEST, MEGABYTE
from starpayne.labels import is_abundance

ALL, ABUNDANCES_HELD = "all labels", "abundances held"
BOX = """
label { font-size: 12px; margin: 0; white-space: nowrap; }
.bk-input { font-size: 13px; height: 27px; min-height: 27px; padding: 0 6px; }
"""
SLIDER = ".bk-slider-title { display: none; }"
"""The title is for programs; people read the box beside it."""
DROP = ":host { font-size: 12px; } .filepond--root { font-size: 12px; margin-bottom: 0; }"
NOTE = ":host { font-size: 11px; color: #444444; line-height: 14px; } .told { color: #005a8c; font-weight: bold; }"


class Knob:
    """One slider with an editable value beside it."""

    def __init__(self, dial: Dial, turned: Callable[[str, float], None]) -> None:
        pn = library()
        self.dial, self._turned, self._silent = dial, turned, False
        name = f"{dial.title} ({dial.unit})" if dial.unit else dial.title
        common: dict[str, Any] = {"start": dial.low, "end": dial.high, "step": dial.step, "value": dial.value}
        self.box = pn.widgets.FloatInput(name=name, width=92, margin=(0, 2, 0, 0), stylesheets=[BOX], **common)
        self.slider = pn.widgets.FloatSlider(
            name=name, show_value=False, tooltips=False, width=92, margin=(3, 0, 0, 8), tags=[dial.name],
            stylesheets=[SLIDER], **common,
        )  # fmt: skip
        self.told = pn.pane.HTML(dial.range, width=108, height=15, margin=(0, 0, 0, 5), stylesheets=[NOTE])
        self.row = pn.Row(self.box, pn.Column(self.told, self.slider, margin=0), margin=(0, 0, 2, 0))
        # Panel gathers events of a widget for 50 ms, half of what a redraw may take; the page gathers them itself.
        self.slider._debounce = 0
        self.box.param.watch(self._moved, "value")
        self.slider.param.watch(self._moved, "value")

    def _moved(self, event: Any) -> None:
        if self._silent or event.new is None:
            return
        # A slider counts its steps in binary: 0.1 + 0.2 is not what anyone wants in a link.
        value = round(float(event.new), 9)
        self.set(value)
        self._turned(self.dial.name, value)

    def set(self, value: float) -> None:
        """Show a value without calling back; the box has one digit more than the slider has steps for."""
        self._silent = True
        try:
            for widget, shown in ((self.box, round(value, self.dial.digits + 1)), (self.slider, value)):
                if widget.value != shown:
                    widget.value = shown
        finally:
            self._silent = False

    def note(self, text: str) -> None:
        """Write something in the place of the range, such as the error of a fit; the range again for ""."""
        shown = f'<span class="told">{escape(text)}</span>' if text else self.dial.range
        if self.told.object != shown:
            self.told.object = shown


@dataclass(frozen=True, eq=False)
class Controls:
    """All widgets of a page."""

    knobs: Mapping[str, Knob]
    upload: Any
    what: Any
    fit: Any
    cancel: Any
    busy: Any
    derivative: Any
    link: Any
    copy: Any

    @classmethod
    def of(cls, panel: Panel, turned: Callable[[str, float], None], derivative: str) -> Controls:
        """Make the widgets of a model."""
        pn = library()
        names = panel.space.names
        copy = pn.widgets.Button(name="Copy link", width=88, margin=(18, 4, 0, 2))
        link = pn.widgets.TextInput(name="Link to this view", width=150, margin=(0, 2))
        copy.js_on_click(
            args={"box": link},
            code="navigator.clipboard?.writeText(location.origin + location.pathname + box.value)",
        )
        return cls(
            knobs={dial.name: Knob(dial, turned) for dial in panel.dials},
            upload=pn.widgets.FileDropper(
                name=f"Spectrum (FITS or text, ≤ {LARGEST // MEGABYTE} MB)",
                max_file_size=f"{LARGEST // MEGABYTE}MB", layout="compact", width=205, margin=(8, 0, 0, 0),
                stylesheets=[DROP],
            ),
            what=pn.widgets.Select(name="Fit", options=[ALL, ABUNDANCES_HELD], width=132, margin=(0, 2)),
            fit=pn.widgets.Button(
                name="Fit", button_type="primary", width=60, margin=(18, 2, 0, 2), disabled=True
            ),
            cancel=pn.widgets.Button(name="Cancel", width=64, margin=(18, 4, 0, 2), disabled=True),
            busy=pn.indicators.Progress(active=True, value=-1, width=120, height=8, visible=False, margin=(6, 4)),
            derivative=pn.widgets.Select(
                name="Derivative by", value=derivative, width=110, margin=(0, 4),
                options={title_of(name): name for name in names},
            ),
            link=link,
            copy=copy,
        )  # fmt: skip

    def sides(self, panel: Panel) -> tuple[Any, Any]:
        """Return two columns of knobs: star and spectrograph, and abundances."""
        pn = library()
        elements = [name for name in panel.names if is_abundance(name)]
        others = [name for name in panel.names if name not in elements]
        star, abundances = ([self.knobs[name].row for name in some] for some in (others, elements))
        # Beside many abundances there is room under the few other dials.
        return (
            pn.Column(*star, self.upload, width=212, margin=0),
            pn.Column(*abundances, width=212, margin=0),
        )
