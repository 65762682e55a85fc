"""Fit the observed stars of the data folder: without a guess, and with a mask and zero points learned from the Sun.

``STARPAYNE_DATA=… python benchmarks/real_stars.py MODEL``: the solar atlas teaches the mask; the HARPS Sun and Procyon
(6554 K, 4.00, +0.01) are the tests. Teff, log g, [Fe/H] and vmic are free, with solar ratios; then all labels.
Every threshold is in the table, with factors of line depths and without: none was chosen by these stars.
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from yardstick import data_folder, record

from starpayne import bundle, plots
from starpayne.fitting import FitOptions, FitResult, fit, learn_mask
from starpayne.spectra import ObservedSpectrum

TRUTH = {"sun": (5772.0, 4.44, 0.0), "procyon": (6554.0, 4.00, 0.01)}
RESOLUTION = {"atlas": 47_000.0, "harps": 100_000.0}
"""HARPS has 115,000; that is above half the sampling of the model."""

FREE = ("teff", "logg", "feh", "vmic")


def facts(result: FitResult, truth: tuple[float, ...]) -> dict[str, Any]:
    keep = ("rv", "vsini", "reduced_chi2", "jitter", "n_pixels")
    data = result.to_dict()
    return {
        "labels": {n: f"{result.labels[n]:.3f} ± {result.errors[n]:.3f}" for n in FREE},
        "off": [round(result.labels[n] - value, 3) for n, value in zip(FREE, truth, strict=False)],
        **{k: data[k] for k in keep},
        "flags": [flag for flag in result.flags if not flag.startswith("unconstrained")],
    }


def main() -> None:
    model, folder = bundle.load(Path(sys.argv[1])), data_folder()
    names = model.emulator.space.names
    atlas = ObservedSpectrum.read(folder / "sun_atlas" / "ATLAS.Sun_47000.txt.gz", unit="nm", medium="air")
    harps = {
        "sun": ObservedSpectrum.read(folder / "real_stars" / "Sun_HARPS.fits", medium="air"),
        "procyon": ObservedSpectrum.read(folder / "real_stars" / "HARPS.GBOG_Procyon.fits", medium="air"),
    }
    known = {name: 0.0 for name in names if name != "vmic"} | {"teff": 5772.0, "logg": 4.44}
    table: dict[str, Any] = {}
    for kind, fix in (("4 labels free", {n: 0.0 for n in names if n not in FREE}), ("all labels free", {})):
        options = FitOptions(fix=fix)
        rows = {"no mask, atlas": facts(fit(atlas, model, RESOLUTION["atlas"], options), TRUTH["sun"])}
        for star, spectrum in harps.items():
            rows[f"no mask, {star}"] = facts(fit(spectrum, model, RESOLUTION["harps"], options), TRUTH[star])
        for threshold, depths in itertools.product((0.03, 0.05, 0.08), (False, True)):
            mask = learn_mask(atlas, model, RESOLUTION["atlas"], known, options, threshold, depths)
            what = f"threshold {threshold}{', depths' if depths else ''}"
            rows[what] = {
                "misfit": [round(mask.source[f"misfit_{when}"], 4) for when in ("before", "after")],
                "masked": mask.source["fraction_masked"],
                "zero_points": {n: round(mask.zero_points[n], 3) for n in FREE if n in mask.zero_points},
            }
            for star, spectrum in harps.items():
                result = fit(spectrum, model, RESOLUTION["harps"], replace(options, line_mask=mask))
                rows[f"{what}, {star}"] = facts(result, TRUTH[star])
                if threshold == 0.05 and depths:
                    plots.fitted_spectrum(result).savefig(Path(sys.argv[1]).parent / f"{star}_{kind[0]}.png")
        table[kind] = rows
    record("real_stars", {"model": Path(sys.argv[1]).name, "validation_mae": model.validation["mae"], "fits": table})


if __name__ == "__main__":
    main()
