"""The figures of a study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from starpayne.plots import COLOURS, GREY, axis_name, new_figure
from starpayne.study.table import Result, curve, finished, names_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS = "os^vDPX*<>"
STYLES = ("-", "--", ":")
"""After all colours are used once, lines are dashed."""


def error_against_size(results: Sequence[Result]) -> Figure:
    """Test MAE against the number of training spectra, one line per emulator; dots are seeds."""
    figure, axes = new_figure(figsize=(6, 4.2))
    axis = axes[0, 0]
    for name, look in _looks(results).items():
        _line(axis, *curve(results, name, lambda r: r["test"]["mae"]), name, look)
    _size_axis(axis, results)
    axis.set_ylabel("test MAE of normalised flux")
    _log(axis, "y")
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def error_against_cost(results: Sequence[Result]) -> Figure:
    """Test MAE against operations and time per spectrum, at the largest size that each emulator was trained on."""
    figure, axes = new_figure(1, 3, figsize=(10, 3.6))
    keys = (
        ("operations_per_spectrum", "operations per spectrum"),
        ("ms_per_spectrum_in_batch", "time per spectrum in a batch (ms)"),
        ("training_seconds", "training time (s)"),
    )
    looks = _looks(results)
    for axis, (key, title) in zip(axes[0], keys, strict=True):
        for name, look in looks.items():
            mine = [r for r in finished(results) if r["emulator"] == name]
            largest = max(r["n_train"] for r in mine)
            chosen = [r for r in mine if r["n_train"] == largest]
            x = [r.get(key) or r["cost"].get(key) for r in chosen]
            points = [(a, r["test"]["mae"]) for a, r in zip(x, chosen, strict=True) if a]
            if points:
                axis.plot(*zip(*points, strict=True), look["marker"], color=look["color"], ms=6, label=name)
        axis.set_xlabel(title)
        _log(axis, "x")
        _log(axis, "y")
    axes[0, 0].set_ylabel("test MAE of normalised flux")
    axes[0, -1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def recovery_against_size(results: Sequence[Result]) -> Figure | None:
    """Error of each recovered label against the number of training spectra; None if no labels were recovered.

    Over the stars whose bound is below a quarter of the label's range: the line is the part due to the emulator, the
    dotted grey one the bound that the noise sets (median over stars and emulators).
    """
    with_recovery = [r for r in finished(results) if r.get("recovery")]
    if not with_recovery:
        return None
    labels = list(with_recovery[0]["recovery"]["summary"])
    columns = min(4, len(labels))
    rows = -(-len(labels) // columns)
    figure, axes = new_figure(rows, columns, figsize=(2.5 * columns, 2.1 * rows + 0.5))
    looks = _looks(with_recovery)
    for i, label in enumerate(labels):
        axis = axes.flat[i]
        for name, look in looks.items():
            sizes, values = curve(with_recovery, name, lambda r, k=label: _part(r, k, "emulator_scatter_constrained"))
            _line(axis, sizes, values, name, look)
        bounds = np.array([_part(r, label, "bound_constrained") for r in with_recovery])
        if np.isfinite(bounds).any():
            axis.axhline(float(np.nanmedian(bounds)), color=GREY, ls=":", lw=1)
        else:
            axis.text(0.5, 0.5, "not constrained", transform=axis.transAxes, ha="center", fontsize=8, color=GREY)
        _size_axis(axis, with_recovery)
        if np.isfinite(bounds).any():
            _log(axis, "y")
        axis.set_title(axis_name(label), fontsize=8)
        axis.set_ylabel("scatter" if i % columns == 0 else "")
        if i // columns < rows - 1:
            axis.set_xlabel("")
    for axis in list(axes.flat)[len(labels) :]:
        axis.set_visible(False)
    handles, names = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, fontsize=7, loc="outside upper center", ncols=4, frameon=False)
    return figure


def _part(result: Result, label: str, key: str) -> float:
    value = result["recovery"]["summary"][label][key]
    # The scatter of a single star is 0, which a logarithmic axis has no place for.
    return float(value) if value else float("nan")


def _looks(results: Sequence[Result]) -> dict[str, dict[str, Any]]:
    """Return name → colour, marker and line style."""
    return {
        name: {
            "color": COLOURS[i % len(COLOURS)],
            "marker": MARKERS[i % len(MARKERS)],
            "ls": STYLES[i // len(COLOURS) % len(STYLES)],
        }
        for i, name in enumerate(names_of(results))
    }


def _line(axis: Any, sizes: np.ndarray, values: np.ndarray, name: str, look: dict[str, Any]) -> None:
    known = np.isfinite(values).any(axis=1)
    sizes, values = sizes[known], values[known]
    axis.plot(sizes, np.nanmean(values, axis=1), lw=1.2, ms=4, label=name, **look)
    if values.shape[1] > 1:
        for column in values.T:
            axis.plot(sizes, column, look["marker"], color=look["color"], ms=2.5, alpha=0.6)


def _log(axis: Any, which: str) -> None:
    """Make an axis logarithmic, with few and plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    getattr(axis, f"set_{which}scale")("log")
    low, high = getattr(axis, f"get_{which}lim")()
    if high < 4 * low:  # a narrower axis would have one number, or too many
        middle = (low * high) ** 0.5
        low, high = middle / 2, middle * 2
        getattr(axis, f"set_{which}lim")(low, high)
    side = getattr(axis, f"{which}axis")
    side.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 30 * low else (1, 3) if high < 300 * low else (1,)))
    side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    side.set_minor_formatter(NullFormatter())


def _size_axis(axis: Any, results: Sequence[Result]) -> None:
    sizes = sorted({r["n_train"] for r in results})
    axis.set_xscale("log")
    axis.set_xticks(sizes, [f"{n:,}" for n in sizes])
    axis.minorticks_off()
    axis.set_xlabel("training spectra")
