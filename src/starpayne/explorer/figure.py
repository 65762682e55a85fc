"""The plots of the page: spectrum with element lines, residuals, and the derivative by one label."""

# Bokeh's properties take more than their declared types say: a title is a string or an object with a text.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOptionalMemberAccess=false
# pyright: reportIndexIssue=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from starpayne.explorer.dials import title_of
from starpayne.explorer.downloads import derivative_name
from starpayne.explorer.lines import Line
from starpayne.explorer.observed import Comparison, Observed
from starpayne.explorer.predictor import Predictor
from starpayne.plots import COLOURS, GREY

BLUE, VERMILION, GREEN = COLOURS[:3]
FONT = "Helvetica, Arial, sans-serif"
TOP = 1.12
HEIGHTS = {"spectrum": 280, "residual": 110, "derivative": 170}
TALL = HEIGHTS["spectrum"] + HEIGHTS["residual"]

HIGHLIGHT = """
const i = cb_data.index.indices[0]
const element = i === undefined ? null : marks.data.element[i]
if (element === marks.tags[0]) return
marks.tags = [element]
marks.data.alpha = Float32Array.from(marks.data.element, e => e === element ? 0.4 : 0)
marks.data.bold = Float32Array.from(marks.data.element, e => element === null || e === element ? 1 : 0.25)
marks.change.emit()
"""
"""All lines of the element under the pointer, at once and without the server."""


@dataclass(frozen=True, eq=False)
class Plots:
    """What of the plots changes: their data, and the residual panel, which is there with an observed spectrum only.

    Args:
        layout: all of them, a Bokeh layout.
        model, observed, derivative, marks: sources of data (``bokeh.models.ColumnDataSource``).
        spectrum, residual, slope: the plots (``bokeh.plotting.figure``), from top to bottom.
    """

    layout: Any
    model: Any
    observed: Any
    derivative: Any
    marks: Any
    spectrum: Any
    residual: Any
    slope: Any

    @classmethod
    def of(cls, predictor: Predictor) -> Plots:
        """Lay out empty plots."""
        from bokeh.layouts import gridplot
        from bokeh.models import ColumnDataSource, CustomJS, HoverTool, Range1d, Span
        from bokeh.plotting import figure

        domain = predictor.model.emulator.domain
        x_range = Range1d(start=domain.low, end=domain.high)
        tools = "pan,wheel_zoom,box_zoom,reset,save"

        def plot(name: str, label: str, title: str | None = None, **settings: Any) -> Any:
            made: Any = figure(
                height=HEIGHTS[name], title=title or "", sizing_mode="stretch_width", x_range=x_range, tools=tools,
                name=name, active_scroll="wheel_zoom", y_axis_label=label, output_backend="canvas", min_border_left=68,
                **settings,
            )  # fmt: skip
            for axis in made.axis:
                axis.axis_label_text_font = axis.major_label_text_font = FONT
                axis.axis_label_text_font_style, axis.axis_label_text_font_size = "normal", "13px"
                axis.major_label_text_font_size = "12px"
            made.title.text_font, made.title.text_font_size, made.title.text_font_style = FONT, "12px", "normal"
            made.title.standoff = made.title.offset = 0
            made.grid.grid_line_alpha = 0.5
            made.xaxis.visible = name == "derivative"
            made.outline_line_color = "#bbbbbb"
            return made

        sources = [
            ColumnDataSource({"x": [], "y": []}, name="model"),
            ColumnDataSource({"x": [], "y": [], "residual": []}, name="observed"),
            ColumnDataSource({"x": [], "y": []}, name="derivative"),
            ColumnDataSource(_marks({}), name="marks", tags=[None]),
        ]
        model, observed, derivative, marks = sources
        top = plot("spectrum", "Normalised flux", y_range=Range1d(start=0, end=TOP))
        lines = top.segment("x", 0, "x", TOP, source=marks, color=VERMILION, alpha="alpha", line_width=4)
        top.line("x", "y", source=observed, color="black", line_width=1, legend_label="observed", visible=False)
        top.line("x", "y", source=model, color=BLUE, line_width=1.6, legend_label="model")
        top.segment("x", 1.035, "x", 1.06, source=marks, color="black", alpha="bold", line_width=1.5)
        top.text(
            "x",
            1.065,
            "text",
            source=marks,
            text_font={"value": FONT},
            text_font_size="11px",
            text_align="center",
            alpha="bold",
        )
        top.legend.location, top.legend.label_text_font_size = "bottom_right", "12px"
        top.legend.background_fill_alpha, top.legend.orientation = 0.8, "horizontal"
        tooltips = [("element", "@element"), ("wavelength", "@x{0.00} Å"), ("∂flux/∂[X/Fe]", "@slope{+0.000} per dex")]
        top.add_tools(
            HoverTool(
                renderers=[lines], mode="vline", tooltips=tooltips, line_policy="nearest", point_policy="follow_mouse",
                callback=CustomJS(args={"marks": marks}, code=HIGHLIGHT), description="Element lines",
            )
        )  # fmt: skip
        middle = plot("residual", "Residual", "Observed − model")
        middle.line("x", "residual", source=observed, color=VERMILION, line_width=1)
        middle.visible = False
        bottom = plot("derivative", "", " ")
        bottom.line("x", "y", source=derivative, color=GREEN, line_width=1.4)
        bottom.xaxis.axis_label = f"Wavelength (Å, {domain.medium})"
        for panel in (middle, bottom):
            panel.add_layout(Span(location=0, dimension="width", line_color=GREY, line_width=1))
        top.height = TALL
        top.legend.padding = top.legend.margin = 4
        layout = gridplot(
            [[top], [middle], [bottom]],
            toolbar_location="right",
            sizing_mode="stretch_width",
            merge_tools=True,
            toolbar_options={"logo": None},
        )
        return cls(layout, model, observed, derivative, marks, top, middle, bottom)

    def show_spectrum(self, wavelength: np.ndarray, flux: np.ndarray) -> None:
        """Draw the model; wavelengths are sent only where they have changed."""
        _send(self.model, {"x": wavelength, "y": flux})

    def show_observed(self, observed: Observed, seen: Comparison) -> None:
        """Draw the observed spectrum and the residuals."""
        _send(self.observed, {"x": observed.wavelength, "y": seen.flux, "residual": seen.residual})
        if not self.residual.visible:
            self.residual.visible = True
            self.spectrum.height = HEIGHTS["spectrum"]
            self.spectrum.renderers[1].visible = True

    def show_derivative(self, wavelength: np.ndarray, slope: np.ndarray, predictor: Predictor, name: str) -> None:
        """Draw the derivative by a label."""
        _send(self.derivative, {"x": wavelength, "y": slope})
        self.slope.title.text, self.slope.yaxis.axis_label = derivative_name(predictor, name)

    def show_lines(self, lines: Mapping[str, tuple[Line, ...]]) -> None:
        """Mark the lines of elements.

        Args:
            lines: label name → its lines, the strongest first.
        """
        self.marks.data = _marks(lines)


def _marks(lines: Mapping[str, tuple[Line, ...]]) -> dict[str, Any]:
    every = [(name, i, line) for name, found in lines.items() for i, line in enumerate(found)]
    symbols = [title_of(name).strip("[]").removesuffix("/Fe") for name, _, _ in every]
    taken: list[float] = []
    texts = [""] * len(every)
    # Symbols above the strongest lines, the strongest of all first, where they have room.
    for k in sorted(range(len(every)), key=lambda k: -abs(every[k][2].slope)):
        x = every[k][2].wavelength
        if all(abs(x - other) > 0.9 for other in taken):
            taken.append(x)
            texts[k] = symbols[k]
    return {
        "x": np.array([line.wavelength for _, _, line in every], np.float64),
        "slope": np.array([line.slope for _, _, line in every], np.float32),
        "element": symbols,
        "text": texts,
        "alpha": np.zeros(len(every), np.float32),
        "bold": np.ones(len(every), np.float32),
    }


def _send(source: Any, columns: Mapping[str, np.ndarray]) -> None:
    """Set columns of a source, and leave those alone that are the same."""
    old = source.data
    changed = {name: array for name, array in columns.items() if not np.array_equal(old[name], array)}
    lengths = {len(array) for array in columns.values()} | {len(array) for array in old.values()}
    if len(lengths) > 1:
        source.data = dict(columns)
        return
    for name, array in changed.items():
        source.data[name] = array
