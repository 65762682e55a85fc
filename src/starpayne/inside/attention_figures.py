"""Figures of an attention atlas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from starpayne.inside.atlas import IRON, Atlas
from starpayne.inside.likeness import ElementTest, likeness, lines
from starpayne.labels import symbol_of
from starpayne.plots import COLOURS, GREY, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def maps(atlas: Atlas) -> Figure:
    """The mean spectrum, and below it the mean attention of each layer and head: wavelength × token."""
    depth, heads, _, tokens = atlas.attention.shape
    figure, axes = new_figure(1 + depth * heads, 1, figsize=(9, 1.4 + 1.05 * depth * heads))
    axes[0, 0].plot(atlas.wavelength, atlas.flux, color="black", lw=0.6)
    axes[0, 0].set_ylabel("mean flux", fontsize=7)
    top = float(atlas.attention.max())
    image = None
    for k, axis in enumerate(axes[1:, 0]):
        layer, head = divmod(k, heads)
        axis.grid(visible=False)
        image = axis.pcolormesh(
            atlas.wavelength, np.arange(tokens) + 1, atlas.attention[layer, head].T, cmap="cividis", vmin=0, vmax=top,
            rasterized=True,
        )  # fmt: skip
        axis.set_ylabel("token", fontsize=7)
        axis.text(1.005, 0.5, f"layer {layer + 1}\nhead {head + 1}", transform=axis.transAxes, fontsize=6, va="center")
    for axis in axes[:, 0]:
        axis.tick_params(labelsize=6, labelbottom=axis is axes[-1, 0])
        axis.set_xlim(atlas.wavelength[0], atlas.wavelength[-1])
    axes[-1, 0].set_xlabel(f"wavelength in {atlas.medium} (Å)", fontsize=8)
    figure.colorbar(image, ax=list(axes[1:, 0]), label="mean attention weight", location="right", pad=0.06)
    return figure


def tokens(atlas: Atlas) -> Figure:
    """Which labels move each token, and which wavelengths miss it."""
    figure, axes = new_figure(1, 2, figsize=(11, 4.2), widths=(1, 1.3))
    left, right = axes[0]
    n_tokens = len(atlas.gradient)
    for axis in (left, right):
        axis.grid(visible=False)
        axis.set_ylabel("token")
    image = left.imshow(atlas.gradient, cmap="cividis", aspect="auto", vmin=0)
    left.set_xticks(range(len(atlas.labels)), [symbol_of(name) for name in atlas.labels], rotation=90, fontsize=7)
    left.set_yticks(range(n_tokens), [str(t + 1) for t in range(n_tokens)], fontsize=7)
    figure.colorbar(image, ax=left, label="|∂token/∂label| / |token|, label scaled to its range")
    image = right.pcolormesh(
        atlas.wavelength, np.arange(n_tokens) + 1, 100 * atlas.ablation, cmap="cividis", vmin=0,
        vmax=100 * float(np.percentile(atlas.ablation, 99.5)), rasterized=True,
    )  # fmt: skip
    right.invert_yaxis()
    right.set_xlabel(f"wavelength in {atlas.medium} (Å)")
    figure.colorbar(image, ax=right, label="rms change of the flux without the token (%)", extend="max")
    return figure


def likeness_matrix(atlas: Atlas) -> Figure:
    """How alike the attention of each pair of wavelengths is, with the lines of the elements beside it."""
    figure, axes = new_figure(2, 1, figsize=(7, 8), heights=(1, 4.5))
    found = lines(atlas.wavelength, atlas.response)
    names = [e for e in range(len(atlas.elements)) if any(line.element == e for line in found)]
    for k, e in enumerate(names):
        for line in found:
            if line.element == e:
                for first, last in line.runs:
                    ends = atlas.wavelength[[first, last]]
                    axes[0, 0].plot(ends, [k, k], color=COLOURS[k % len(COLOURS)], lw=4, solid_capstyle="butt")
    axes[0, 0].set_yticks(range(len(names)), [element_name(atlas.elements[e]) for e in names], fontsize=6)
    axes[0, 0].set_ylabel("lines of")
    axes[0, 0].tick_params(labelbottom=False)
    axis = axes[1, 0]
    axis.grid(visible=False)
    low, high = float(atlas.wavelength[0]), float(atlas.wavelength[-1])
    image = axis.imshow(
        likeness(atlas.attention), cmap="RdBu_r", vmin=-1, vmax=1, extent=(low, high, high, low), aspect="auto"
    )
    axis.set_xlabel(f"wavelength in {atlas.medium} (Å)")
    axis.set_ylabel(f"wavelength in {atlas.medium} (Å)")
    for panel in axes[:, 0]:
        panel.set_xlim(low, high)
    figure.colorbar(image, ax=axis, label="likeness of attention", location="bottom", shrink=0.7)
    return figure


def elements(results: Sequence[ElementTest]) -> Figure:
    """Mean likeness between the lines of each element, beside what the two tests hold it against."""
    shown = [r for r in results if np.isfinite(r.p_elsewhere)]
    figure, axes = new_figure(figsize=(7, 0.9 + 0.42 * max(len(shown), 2)))
    axis = axes[0, 0]
    for k, r in enumerate(shown):
        axis.plot(r.likeness, k, "o", color=COLOURS[0], ms=7, label=None if k else "between its own lines")
        axis.plot(r.others, k, "s", color=COLOURS[1], ms=6, label=None if k else "between its lines and others'")
        axis.plot(r.elsewhere, k, "x", color=GREY, ms=6, label=None if k else "same pattern elsewhere (mean)")
        text = f"p = {r.corrected_elsewhere:.1g} (elsewhere), {r.corrected_others:.1g} (other names)"
        axis.text(1.02, k, text, fontsize=7, va="center", transform=axis.get_yaxis_transform())
    axis.set_yticks(range(len(shown)), [f"{element_name(r.element)} ({r.n_lines})" for r in shown])
    axis.set_ylim(len(shown) - 0.5, -0.5)
    axis.set_ylabel("element (lines)")
    axis.set_xlabel("mean likeness of attention (correlation)")
    figure.legend(loc="outside upper left", ncols=3, fontsize=7, frameon=False)
    return figure


def element_name(element: str) -> str:
    """Return the symbol of an element, for print."""
    return "Fe and rest" if element == IRON else element.capitalize()


def figures(atlas: Atlas, results: Sequence[ElementTest]) -> dict[str, Figure]:
    """Return every figure by its name."""
    return {
        "attention": maps(atlas), "tokens": tokens(atlas), "likeness": likeness_matrix(atlas),
        **({"elements": elements(results)} if any(np.isfinite(r.p_elsewhere) for r in results) else {}),
    }  # fmt: skip
