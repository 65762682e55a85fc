"""Figures of what a spectrum tells of each label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from starpayne.inside.sensitivity import Sensitivity
from starpayne.inside.sensitivity_files import unit
from starpayne.labels import symbol_of
from starpayne.plots import COLOURS, GREY, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOTIONS = {"rv": "$v_\\mathrm{rad}$", "vsini": "$v\\,\\sin i$", "broadening": "broadening"}
KINDS = {
    "fit": "as a fit states it",
    "photons": "photon noise alone",
    "known_continuum": "continuum known",
    "photons_known_continuum": "photon noise alone, continuum known",
    "alone": "all other parameters known",
}
FEW = 6
"""Labels in one figure of derivatives or windows, where the user names none."""


def symbol(name: str) -> str:
    """Return the symbol of a label or velocity."""
    return MOTIONS.get(name) or symbol_of(name)


def unit_text(name: str) -> str:
    """Return a unit for print."""
    return {"km/s": "km s$^{-1}$"}.get(unit(name), unit(name))


def derivative_name(name: str) -> str:
    """Return ∂flux/∂label with its unit, for an axis."""
    inverse = {"km/s": "s km$^{-1}$", "": ""}.get(unit(name), f"{unit(name)}$^{{-1}}$")
    return f"∂flux/∂{symbol(name)}" + (f"\n({inverse})" if inverse else "")


def derivative_spectra(found: Sensitivity, names: Sequence[str]) -> Figure:
    """The spectrum; below it the derivative by each label, and what its best imitation by all others leaves of it."""
    figure, axes = new_figure(1 + len(names), 1, figsize=(9, 1.3 * (1 + len(names)) + 0.5))
    wavelength = found.wavelength
    axes[0, 0].plot(wavelength, np.where(found.used, found.flux, np.nan), color="black", lw=0.7)
    axes[0, 0].set_ylabel("flux /\ncontinuum", fontsize=8)
    axes[0, 0].set_title(_title(found), fontsize=8, loc="left")
    for name, axis in zip(names, axes[1:, 0], strict=True):
        i = found.names.index(name)
        axis.plot(wavelength, np.where(found.used, found.derivatives[i], np.nan), color=COLOURS[0], lw=0.8,
                  label="derivative")  # fmt: skip
        axis.plot(wavelength, np.where(found.used, found.unique[i], np.nan), color=COLOURS[1], lw=0.7,
                  label="less its best imitation by all other parameters")  # fmt: skip
        axis.axhline(0, color=GREY, lw=0.4)
        axis.set_ylabel(derivative_name(name), fontsize=7)
    if len(names):
        handles, texts = axes[1, 0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside upper right", fontsize=7, ncols=2, frameon=False)
    _share_wavelengths(axes[:, 0], found)
    return figure


def precision(found: Sensitivity) -> Figure:
    """Expected error of each parameter, by what is known; in units of each on an axis of its own."""
    names = list(found.names)
    columns = min(5, len(names))
    rows = -(-len(names) // columns)
    figure, axes = new_figure(rows, columns, figsize=(1.9 * columns, 1.7 * rows + 0.8))
    for i, (name, axis) in enumerate(zip(names, axes.flat, strict=False)):
        values = [found.errors[kind][i] for kind in KINDS]
        axis.barh(range(len(values)), values, color=COLOURS[: len(values)])
        axis.invert_yaxis()
        axis.set_yticks([])
        axis.tick_params(labelsize=6)
        axis.set_xlabel(f"σ({symbol(name)})" + (f" ({unit_text(name)})" if unit(name) else ""), fontsize=7)
        if f"unconstrained:{name}" in found.flags:
            axis.set_title("not constrained", fontsize=6)
    for axis in list(axes.flat)[len(names) :]:
        axis.set_visible(False)
    from matplotlib.patches import Patch

    handles = [Patch(color=colour, label=text) for colour, text in zip(COLOURS, KINDS.values(), strict=False)]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, fontsize=7, frameon=False)
    return figure


def correlations(found: Sensitivity) -> Figure:
    """Correlation of the errors of each pair of parameters, as numbers too."""
    n = len(found.names)
    figure, axes = new_figure(figsize=(1.6 + 0.42 * n, 1.2 + 0.42 * n))
    axis = axes[0, 0]
    axis.grid(visible=False)
    image = axis.imshow(found.correlation, cmap="RdBu_r", vmin=-1, vmax=1)
    for i in range(n):
        for j in range(n):
            value = found.correlation[i, j]
            colour = "white" if abs(value) > 0.7 else "black"
            axis.text(
                j,
                i,
                f"{round(value, 1) + 0.0:.1f}".replace("-", "−"),
                ha="center",
                va="center",
                fontsize=6,
                color=colour,
            )
    names = [symbol(name) for name in found.names]
    axis.set_xticks(range(n), names, rotation=90, fontsize=7)
    axis.set_yticks(range(n), names, fontsize=7)
    figure.colorbar(image, ax=axis, label="correlation of the errors", shrink=0.7)
    return figure


def information(found: Sensitivity) -> Figure:
    """The spectrum, and from which windows what is known of each parameter comes: others known, and others free."""
    from matplotlib.colors import PowerNorm

    n = len(found.names)
    high = max(1.5, 0.2 * n)
    figure, axes = new_figure(3, 1, figsize=(9, 2.2 + 2 * high), heights=(1.3, high, high))
    axes[0, 0].plot(found.wavelength, np.where(found.used, found.flux, np.nan), color="black", lw=0.7)
    axes[0, 0].set_ylabel("flux /\ncontinuum", fontsize=8)
    axes[0, 0].set_title(_title(found), fontsize=8, loc="left")
    kinds = ((found.share_alone, "all other parameters known"), (found.share, "all other parameters free"))
    for axis, (share, title) in zip(axes[1:, 0], kinds, strict=True):
        axis.grid(visible=False)
        # By the square root: one window can hold most of what is known of one label, and a hundredth of another.
        norm = PowerNorm(0.5, vmin=0, vmax=100)
        image = axis.pcolormesh(found.windows, np.arange(n + 1), 100 * share, cmap="cividis", norm=norm)
        axis.set_yticks(np.arange(n) + 0.5, [symbol(name) for name in found.names])
        axis.invert_yaxis()
        axis.set_title(title, fontsize=8, loc="left")
        figure.colorbar(image, ax=axis, label="share of information (%)", ticks=[1, 5, 20, 50, 100])
    _share_wavelengths(axes[:, 0], found)
    return figure


def best(found: Sensitivity, names: Sequence[str]) -> Figure:
    """Error from the best one, two, … windows over that from all; and where these windows lie."""
    figure, axes = new_figure(1, 2, figsize=(10, 3.8), widths=(1, 1.8))
    curve, place = axes[0]
    marks = "os^vDP"
    for k, name in enumerate(names):
        chosen, everything = found.best[name], found.errors["fit"][found.names.index(name)]
        number = np.arange(1, len(chosen.order) + 1)
        colour = COLOURS[k % len(COLOURS)]
        curve.plot(number, np.array(chosen.errors) / everything, marks[k % len(marks)] + "-", ms=3.5, lw=1,
                   color=colour, label=symbol(name))  # fmt: skip
        centres = (found.windows[list(chosen.order)] + found.windows[[w + 1 for w in chosen.order]]) / 2
        place.plot(centres, np.full(len(centres), k), "o", ms=12, mfc="white", color=colour)
        for rank, centre in enumerate(centres):
            place.text(centre, k, str(rank + 1), ha="center", va="center", fontsize=6)
    curve.axhline(1, color=GREY, lw=0.6, ls="--")
    curve.set(xlabel="number of windows, the best first", ylabel="error / error from all windows", yscale="log")
    curve.legend(fontsize=7, ncols=2)
    place.set_yticks(range(len(names)), [symbol(name) for name in names])
    place.set_ylim(len(names) - 0.5, -0.5)
    place.set_xlim(found.windows[0], found.windows[-1])
    place.set_xlabel(f"wavelength in {found.medium} (Å)")
    place.set_title(
        f"windows of {found.windows[1] - found.windows[0]:.2f} Å; 1 is chosen first", fontsize=8, loc="left"
    )
    return figure


def figures(found: Sensitivity, names: Sequence[str] | None = None) -> dict[str, Figure]:
    """Return every figure by its name; ``names`` are the parameters of derivatives and best windows, by default the
    best-told few."""
    if names is None:
        told = [name for name in found.best if f"unconstrained:{name}" not in found.flags]
        names = (told or list(found.best))[:FEW]
    shown = [name for name in names if name in found.best]
    return {
        "derivatives": derivative_spectra(found, names), "precision": precision(found),
        "correlations": correlations(found), "information": information(found),
        **({"best_windows": best(found, shown)} if shown else {}),
    }  # fmt: skip


def _title(found: Sensitivity) -> str:
    few = list(found.star.items())[:3]
    star = ", ".join(f"{symbol(k)} {v:g}".replace("-", "−") for k, v in few)
    return f"{star}; R = {found.resolution:,.0f}, S/N {found.snr:g} per pixel"


def _share_wavelengths(axes: Sequence[Any] | np.ndarray, found: Sensitivity) -> None:
    used = found.wavelength[found.used]
    for axis in axes:
        axis.set_xlim(used[0], used[-1])
        axis.tick_params(labelsize=7)
    for axis in axes[:-1]:
        axis.tick_params(labelbottom=False)
    axes[-1].set_xlabel(f"wavelength in {found.medium} (Å)")
