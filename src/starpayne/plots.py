"""Figures for print and screen: labelled axes with units, colours that the colour-blind can tell apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from starpayne.errors import MissingExtraError
from starpayne.evaluation import Evaluation, Recovery
from starpayne.labels import symbol_of, unit_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from starpayne.fitting import FitResult, Posterior
    from starpayne.training import LearningCurve

# Okabe & Ito 2008, in an order that also differs in lightness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#777777"


def new_figure(
    *args: Any, heights: Sequence[float] | None = None, widths: Sequence[float] | None = None, **kwargs: Any
) -> Any:
    """Return a figure and its axes (rows, columns), made without global state; heights and widths are relative."""
    # The object interface with the Agg canvas: no global state, no display, safe in worker threads.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained", dpi=150, **kwargs)
    FigureCanvasAgg(figure)
    axes = figure.subplots(*(args or (1, 1)), squeeze=False, height_ratios=heights, width_ratios=widths)
    for axis in axes.flat:
        axis.grid(alpha=0.25, linewidth=0.5)
    return figure, axes


def _wavelength_axis(axis: Any, medium: str) -> None:
    axis.set_xlabel(f"wavelength in {medium} (Å)")


def axis_name(label: str) -> str:
    """Return a label's symbol with its unit, for an axis."""
    unit = {"dex(cm/s2)": "dex of cm s$^{-2}$", "km/s": "km s$^{-1}$"}.get(unit_of(label), unit_of(label))
    return f"{symbol_of(label)} ({unit})" if unit else symbol_of(label)


def residuals_by_wavelength(evaluations: Mapping[str, Evaluation]) -> Figure:
    """Median and 95th percentile of |residual| at each wavelength, under the mean spectrum."""
    figure, axes = new_figure(1 + len(evaluations), 1, figsize=(8, 1.8 + 1.8 * len(evaluations)))
    first = next(iter(evaluations.values()))
    axes[0, 0].plot(first.wavelength, np.mean(first.true, axis=0), color="black", lw=0.7)
    axes[0, 0].set_ylabel(f"mean {first.quantity} of\nheld-out spectra")
    top = 1.1 * max(float(np.percentile(np.abs(e.residual), 95, axis=0).max()) for e in evaluations.values())
    for (name, evaluation), axis, colour in zip(evaluations.items(), axes[1:, 0], COLOURS, strict=False):
        size = np.abs(evaluation.residual)
        axis.plot(first.wavelength, np.percentile(size, 95, axis=0), color=GREY, lw=0.6, label="95th percentile")
        axis.plot(first.wavelength, np.median(size, axis=0), color=colour, lw=0.8, label="median")
        axis.set_ylim(0, top)
        axis.set_ylabel("|residual|")
        axis.set_title(f"{name}: mean absolute error {evaluation.mae:.5f}", fontsize=9, loc="left")
        axis.legend(fontsize=7, loc="upper right", ncols=2)
    for axis in axes[:, 0]:
        axis.set_xlim(first.wavelength[0], first.wavelength[-1])
    _wavelength_axis(axes[-1, 0], first.medium)
    return figure


def residuals_by_label(evaluations: Mapping[str, Evaluation]) -> Figure:
    """Mean absolute error of each held-out spectrum against each of its labels."""
    first = next(iter(evaluations.values()))
    columns = min(4, len(first.names))
    rows = -(-len(first.names) // columns)
    figure, axes = new_figure(rows, columns, figsize=(2.3 * columns, 2.2 * rows))
    for i, name in enumerate(first.names):
        axis = axes.flat[i]
        for (emulator, evaluation), colour, marker in zip(evaluations.items(), COLOURS, "os^vDP", strict=False):
            axis.plot(
                evaluation.labels[:, i], evaluation.per_spectrum,
                marker, ms=3, color=colour, alpha=0.7, mew=0, label=emulator,
            )  # fmt: skip
        axis.set_yscale("log")
        axis.set_xlabel(axis_name(name))
        axis.set_ylabel("MAE of spectrum" if i % columns == 0 else "")
    axes.flat[0].legend(fontsize=7)
    for axis in list(axes.flat)[len(first.names) :]:
        axis.set_visible(False)
    return figure


def label_recovery(recoveries: Mapping[str, Recovery]) -> Figure:
    """Fitted minus true value of each label against the true one; bars are the Cramér–Rao bound, if they fit in.

    Spectra whose fit gave no numbers are left out; those beyond a panel's range are drawn on its edge.
    """
    first = next(iter(recoveries.values()))
    columns = min(4, len(first.names))
    rows = -(-len(first.names) // columns)
    figure, axes = new_figure(rows, columns, figsize=(2.5 * columns, 2.0 * rows))
    for i, name in enumerate(first.names):
        axis = axes.flat[i]
        off = np.concatenate([(r.fitted - r.truth)[r.finite, i] for r in recoveries.values()])
        top = 1.3 * float(np.percentile(np.abs(off), 95)) if len(off) else 1.0
        top = top or 1.0
        for (emulator, recovery), colour, marker in zip(recoveries.items(), COLOURS, "os^vDP", strict=False):
            good = recovery.finite
            shown = np.clip((recovery.fitted - recovery.truth)[good, i], -top, top)
            bars = np.where(recovery.bound[good, i] < top, recovery.bound[good, i], 0.0)
            axis.errorbar(
                recovery.truth[good, i], shown, bars, fmt=marker, ms=2.5, color=colour, alpha=0.6, mew=0,
                elinewidth=0.4, label=emulator,
            )  # fmt: skip
        axis.axhline(0, color="black", lw=0.5)
        axis.set_ylim(-1.08 * top, 1.08 * top)
        axis.tick_params(labelsize=7)
        axis.set_xlabel(axis_name(name), fontsize=8)
        axis.set_ylabel("fitted − true" if i % columns == 0 else "", fontsize=8)
    for axis in list(axes.flat)[len(first.names) :]:
        axis.set_visible(False)
    # Above the panels: inside them it would hide stars.
    handles, names = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=4, fontsize=8, frameon=False)
    return figure


def _legend_below_lines(axis: Any) -> None:
    """Add a legend to a spectrum below all of its lines: in no corner is there room for one, nor above, at a title."""
    low, high = axis.get_ylim()
    # As high as a line of text takes, whatever the size of the axis.
    room = 0.22 / axis.get_window_extent().transformed(axis.figure.dpi_scale_trans.inverted()).height
    axis.set_ylim(low - room * (high - low), high)
    axis.legend(fontsize=7, loc="lower left", ncols=4)


def examples(evaluation: Evaluation, title: str = "") -> Figure:
    """The median and the worst held-out spectrum with their residuals."""
    order = np.argsort(evaluation.per_spectrum)
    chosen = {"median": order[len(order) // 2], "worst": order[-1]}
    figure, axes = new_figure(4, 1, figsize=(8, 6.4))
    figure.get_layout_engine().set(h_pad=0.02)
    wavelength = evaluation.wavelength
    for k, (which, i) in enumerate(chosen.items()):
        flux, residual = axes[2 * k, 0], axes[2 * k + 1, 0]
        flux.plot(wavelength, evaluation.true[i], color="black", lw=0.8, label="synthesized")
        flux.plot(wavelength, evaluation.predicted[i], color=COLOURS[1], lw=0.8, ls="--", label="emulated")
        residual.plot(wavelength, evaluation.residual[i], color=COLOURS[0], lw=0.7)
        residual.axhline(0, color="black", lw=0.5)
        labels = ", ".join(
            f"{symbol_of(n)} {v:.0f}" if n == "teff" else f"{symbol_of(n)} {v:.2f}"
            for n, v in zip(evaluation.names[:5], evaluation.labels[i], strict=False)
        )
        flux.set_title(
            f"{title + ': ' if title else ''}{which} spectrum, MAE {evaluation.per_spectrum[i]:.5f} ({labels})",
            fontsize=8, loc="left",
        )  # fmt: skip
        flux.set_ylabel("flux / continuum" if evaluation.quantity == "flux" else "π intensity / continuum")
        residual.set_ylabel("residual")
        _legend_below_lines(flux)
        for axis in (flux, residual):
            axis.set_xlim(wavelength[0], wavelength[-1])
    _wavelength_axis(axes[-1, 0], evaluation.medium)
    return figure


def training_curves(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Validation error against training step."""
    figure, axes = new_figure(figsize=(5, 3))
    for (name, history), colour in zip(histories.items(), COLOURS, strict=False):
        steps, maes = [h["step"] for h in history], [h["validation_mae"] for h in history]
        axes[0, 0].plot(steps, maes, "o-", ms=2.5, color=colour, lw=1, label=name)
    axes[0, 0].set(xlabel="training step", ylabel="validation MAE", yscale="log", xscale="log")
    axes[0, 0].legend(fontsize=8)
    return figure


def learning_curve(curve: LearningCurve, goal: float | None = None) -> Figure:
    """Error against the number of spectra, with the law through the points, and the error of the base model."""
    figure, axes = new_figure(figsize=(5.4, 4))
    axis = axes[0, 0]
    axis.loglog(curve.n, curve.mae, "o-", color=COLOURS[0], label="fine-tuned")
    axis.axhline(curve.before, color=COLOURS[1], ls="--", lw=1, label="base model, not fine-tuned")
    if np.isfinite(curve.slope):
        n = np.geomspace(curve.n[0], 5 * curve.n[-1], 50)
        axis.loglog(n, [curve.expected(x) for x in n], ":", color=GREY, label=f"MAE ∝ $N^{{{curve.slope:.2f}}}$")
    if goal is not None:
        axis.axhline(goal, color=COLOURS[2], ls="-.", lw=1, label="goal")
    axis.set(xlabel="spectra of the new grid", ylabel="MAE of normalised flux")
    axis.legend(fontsize=8)
    return figure


def fitted_spectrum(result: FitResult) -> Figure:
    """Observed spectrum, best model with its continuum, residuals beside the error, pixels not used shaded.

    The title has what was fitted and the spectrum tells.
    """
    figure, axes = new_figure(2, 1, figsize=(9, 4.6))
    flux, residual = axes[:, 0]
    used = np.asarray(result.used, bool)
    wavelength = result.wavelength
    shown = np.where(used, result.model, np.nan)
    # Nothing is drawn across pixels that the spectrum lacks.
    step = np.diff(wavelength)
    holes = np.flatnonzero(step > 5 * np.median(step)) + 1
    flux.plot(
        np.insert(wavelength, holes, np.nan), np.insert(result.flux, holes, np.nan), color="black", lw=1.1,
        label="observed",
    )  # fmt: skip
    flux.plot(wavelength, shown, color=COLOURS[1], lw=0.7, label="model")
    continuum = np.where(used, result.continuum, np.nan)
    flux.plot(wavelength, continuum, color=COLOURS[0], lw=0.8, ls="--", label="continuum")
    flux.set_ylabel("flux")
    flux.set_title(_fitted_values(result), fontsize=8, loc="left")
    residual.plot(wavelength, np.where(used, result.flux - result.model, np.nan), color=COLOURS[0], lw=0.6)
    error = np.where(used, result.error, np.nan)
    residual.fill_between(wavelength, -error, error, color=GREY, alpha=0.3, lw=0, label="±1σ")
    residual.axhline(0, color="black", lw=0.5)
    residual.set_ylabel("observed − model")
    spread = np.nanpercentile(np.abs(np.where(used, result.flux - result.model, np.nan)), 99.5)
    residual.set_ylim(-1.6 * spread, 1.6 * spread)
    for axis in (flux, residual):
        axis.set_xlim(wavelength[0], wavelength[-1])
        for i, (start, stop) in enumerate(masked_ranges(wavelength, used)):
            axis.axvspan(start, stop, color=COLOURS[4], alpha=0.25, lw=0, label=None if i else "not used")
    _legend_below_lines(flux)
    residual.legend(fontsize=7, loc="upper right")
    _wavelength_axis(residual, result.medium)
    return figure


def _fitted_values(result: FitResult) -> str:
    """Return the values that a spectrum tells, with their errors, in lines of six."""
    values = [(n, v, result.errors[n]) for n, v in result.labels.items() if n not in result.fixed]
    values += [("rv", result.rv, result.rv_error), ("vsini", result.vsini, result.vsini_error)]
    names = {"rv": "$v_\\mathrm{rad}$", "vsini": "$v\\,\\sin i$"}
    units = {n: "km/s" if n in names else unit_of(n) for n, _, _ in values}
    # Abundances and log g are in dex, as every reader knows; the line has no room for it.
    units = {n: f" {unit}" if unit in ("K", "km/s") else "" for n, unit in units.items()}
    words = [
        f"{names.get(n) or symbol_of(n)} {v:.{0 if n == 'teff' else 2}f}±{e:.{0 if n == 'teff' else 2}f}{units[n]}"
        for n, v, e in values
        if f"unconstrained:{n}" not in result.flags and np.isfinite(v)
    ]
    lines = ["   ".join(words[i : i + 6]) for i in range(0, len(words), 6)]
    return "\n".join([result.name, *lines])


def masked_ranges(wavelength: np.ndarray, used: np.ndarray) -> list[tuple[float, float]]:
    """Return the wavelength ranges of runs of masked pixels."""
    edges = np.diff(np.concatenate([[0], (~used).astype(int), [0]]))
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1
    return [(float(wavelength[a]), float(wavelength[b])) for a, b in zip(starts, stops, strict=True)]


def corner(posterior: Posterior) -> Figure:
    """Draws of every parameter and of every pair, with their 16, 50 and 84 % quantiles (dashed) and the best fit.

    Raises:
        MissingExtraError: if the package corner is not installed.
    """
    try:
        from corner import corner as draw
    except ImportError as error:
        raise MissingExtraError(f'corner is missing ({error}); run: pip install "starpayne[sampling]"') from error
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    motions = {"rv": "radial velocity", "vsini": "$v\\,\\sin i$", "broadening": "broadening"}
    names = [f"{motions[n]} (km s$^{{-1}}$)" if n in motions else axis_name(n) for n in posterior.names]
    result = posterior.result
    best = [getattr(result, n) if n in motions else result.labels[n] for n in posterior.names]
    size = 1.5 + 2.1 * len(names)
    # corner places its panels itself, which a layout engine would undo.
    figure = Figure(figsize=(size, size), dpi=150)
    FigureCanvasAgg(figure)
    single = len(names) == 1
    draw(
        posterior.flat, fig=figure, labels=names, truths=None if single else best, truth_color=COLOURS[1],
        quantiles=[0.16, 0.5, 0.84], color=COLOURS[0], smooth=1.0, max_n_ticks=4, label_kwargs={"fontsize": 12},
        hist_kwargs={"linewidth": 1.2},
    )  # fmt: skip
    if single:
        # corner 2.3 cannot mark the truth in a figure of one panel.
        figure.axes[0].axvline(best[0], color=COLOURS[1])
    for axis in figure.axes:
        axis.tick_params(labelsize=9)
    handles = [
        Line2D([], [], color=COLOURS[0], ls="--", label="16, 50, 84 %"),
        Line2D([], [], color=COLOURS[1], marker="s", label="best fit"),
    ]
    # A single panel has no empty corner: there the legend lies over it.
    figure.legend(handles=handles, loc="upper right", fontsize=7 if single else 12, frameon=False)
    return figure
