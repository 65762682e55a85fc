"""The atlas of attention on disk: tables, figures, and a page that says what is and is not shown."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from starpayne.files import write_bytes, write_json
from starpayne.inside.atlas import Atlas
from starpayne.inside.attention_figures import element_name, figures
from starpayne.inside.likeness import ABOVE, ENOUGH, LEAST, STRONG, ElementTest
from starpayne.report import Report

SIGNIFICANT = 0.05

CAPTIONS = {
    "attention": "Mean spectrum, and mean attention weight of each layer and head.",
    "tokens": "Left: how much each label moves each token. Right: what the spectrum loses without the token.",
    "likeness": "Likeness of attention between all pairs of wavelengths; above, the lines of each element.",
    "elements": "Mean likeness between lines of one element, and p-values corrected for the number of elements.",
}


def verdict(results: Sequence[ElementTest]) -> str:
    """Return a paragraph: what the tests show, and what they do not."""
    tested = [r for r in results if np.isfinite(r.p_elsewhere)]
    if not tested:
        return (
            f"No element has {ENOUGH} lines of its own in this range, so the claim that attention is alike in lines of "
            "one element (arXiv:2407.05751) cannot be tested with this model."
        )
    both = [r for r in tested if max(r.corrected_elsewhere, r.corrected_others) < SIGNIFICANT]
    place = [r for r in tested if r.corrected_elsewhere < SIGNIFICANT and r not in both]
    neither = [r for r in tested if r not in both and r not in place]

    def named(group: Sequence[ElementTest]) -> str:
        return ", ".join(f"{element_name(r.element)} ({r.n_lines} lines)" for r in group)

    parts = [
        f"Tested at {SIGNIFICANT:g}, corrected for {len(tested)} elements: is attention more alike between the lines "
        "of one element than between places elsewhere in the same pattern, and than between lines of like depth "
        "whatever their element (the claim of arXiv:2407.05751)?",
        f"Shown for {named(both)}." if both else "Shown for no element.",
    ]
    if place:
        parts.append(f"For {named(place)} the first holds but not the second: attention knows lines, if not elements.")
    if neither:
        parts.append(f"Not shown for {named(neither)}.")
    if untested := [element_name(r.element) for r in results if r not in tested]:
        parts.append(f"Fewer than {ENOUGH} lines, not tested: {', '.join(untested)}.")
    parts.append(
        "Not shown for any: that the network needs this likeness, or that it stands for physics. Where the lines are "
        "was found from derivatives of the same network; lines of one element share excitation and strength as well as "
        "abundance; and this is the mean over stars of one grid and one range of wavelengths."
    )
    return " ".join(parts)


def write_atlas(atlas: Atlas, results: Sequence[ElementTest], folder: Path) -> None:
    """Write ``attention.json``, ``elements`` and ``tokens`` (``.ecsv``, ``.csv``), ``atlas.npz``, the figures and
    ``report.html`` into a folder that exists."""
    write_json(folder / "attention.json", facts(atlas, results))
    columns: dict[str, Any] = {"element": [r.element for r in results], "n_lines": [r.n_lines for r in results]}
    for name in ("likeness", "elsewhere", "others", "p_elsewhere", "corrected_elsewhere", "p_others",
                 "corrected_others"):  # fmt: skip
        columns[name] = [getattr(r, name) for r in results]
    _write(folder / "elements", columns)
    by_label = {f"moved_by_{name}": atlas.gradient[:, i] for i, name in enumerate(atlas.labels)}
    number = np.arange(len(atlas.gradient)) + 1
    _write(folder / "tokens", {"token": number, "rms_change_without_it": atlas.ablation_total, **by_label})
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, wavelength=atlas.wavelength, flux=atlas.flux, attention=atlas.attention.astype(np.float32),
        ablation=atlas.ablation, gradient=atlas.gradient, response=atlas.response,
    )  # fmt: skip
    write_bytes(folder / "atlas.npz", buffer.getvalue())
    drawn = figures(atlas, results)
    for name, figure in drawn.items():
        figure.savefig(folder / f"{name}.png")
    report = Report(
        "Attention atlas",
        f"Mean over {atlas.n_stars} stars ({atlas.split}), {atlas.wavelength[0]:.1f} to {atlas.wavelength[-1]:.1f} Å "
        f"({atlas.medium}).",
    )
    report.heading("Is attention alike in the lines of one element?")
    report.text(verdict(results))
    report.table(
        ["element", "lines", "likeness", "elsewhere", "other elements", "p elsewhere", "p other names"],
        [
            [element_name(r.element), r.n_lines, *(_text(x) for x in (r.likeness, r.elsewhere, r.others)),
             _text(r.corrected_elsewhere, ".2g"), _text(r.corrected_others, ".2g")]
            for r in results
        ],
    )  # fmt: skip
    report.text(
        "Likeness is the correlation of the attention weights of two wavelengths over all layers, heads and tokens, "
        "less their mean over wavelengths. p-values are corrected by Holm's method. The lines of an element are the "
        f"peaks of |∂flux/∂[X/Fe]| above {STRONG:g} of its largest and {LEAST:g} per dex, down to half their height, "
        f"where it is {ABOVE:g} times that of any other element; Fe and rest is what [Fe/H] does beyond these. "
        "Elsewhere: the pattern of the lines shifted around the spectrum, which keeps neighbouring pixels together. "
        "Other names: lines of like depth exchange elements, likeness being free of its mean at each distance."
    )
    report.heading("Attention, tokens, likeness")
    for name, figure in drawn.items():
        report.figure(figure, CAPTIONS[name])
    large = [f"{x:.1f}" for x in atlas.spread.mean(axis=1)]
    report.text(
        f"How much the weights vary from star to star, over how much along the spectrum, by layer: {', '.join(large)}. "
        "Where that is above one, the mean map is not that of any star."
    )
    report.write(folder / "report.html")


def facts(atlas: Atlas, results: Sequence[ElementTest]) -> dict[str, Any]:
    """Return plain JSON data."""
    numbers = ("likeness", "elsewhere", "others", "p_elsewhere", "corrected_elsewhere", "p_others", "corrected_others")
    return {
        "n_stars": atlas.n_stars, "split": atlas.split, "medium": atlas.medium,
        "low": float(atlas.wavelength[0]), "high": float(atlas.wavelength[-1]),
        "layers": atlas.attention.shape[0], "heads": atlas.attention.shape[1], "tokens": atlas.attention.shape[3],
        "elements": {
            r.element: {"n_lines": r.n_lines, **{k: _number(getattr(r, k)) for k in numbers}} for r in results
        },
        "verdict": verdict(results),
        "spread_over_stars": atlas.spread.tolist(),
        "rms_change_without_token": atlas.ablation_total.tolist(),
        "token_moved_by": dict(zip(atlas.labels, atlas.gradient.T.tolist(), strict=True)),
    }  # fmt: skip


def _write(stem: Path, columns: dict[str, Any]) -> None:
    from astropy.table import Table

    table: Any = Table(columns)
    table.meta = {"CREATOR": f"starpayne {version('starpayne')}"}
    table.write(stem.with_suffix(".ecsv"), format="ascii.ecsv")
    table.write(stem.with_suffix(".csv"), format="ascii.csv")


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _text(value: float, form: str = ".2f") -> str:
    return format(value, form).replace("-", "−") if np.isfinite(value) else "–"
