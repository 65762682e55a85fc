"""The tables of a forecast of what a spectrum tells: ECSV, CSV and JSON."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from starpayne.files import write_json
from starpayne.inside.sensitivity import ERRORS, Sensitivity
from starpayne.labels import unit_of

MOTIONS = ("rv", "vsini", "broadening")


def unit(name: str) -> str:
    """Return the unit of a label, or of a velocity, as astropy knows it; empty for none."""
    return "km/s" if name in MOTIONS else unit_of(name).partition("(")[0]


def write_tables(found: Sensitivity, folder: Path) -> None:
    """Write ``precision``, ``windows``, ``best_windows`` and ``derivatives`` (``.ecsv`` and ``.csv``), and
    ``sensitivity.json``, into a folder that exists."""
    write_json(folder / "sensitivity.json", found.to_dict())
    facts = {"snr": found.snr, "resolution": found.resolution, "medium": found.medium, "star": dict(found.star)}
    _write(folder / "precision", *_precision(found), facts | {"errors": dict(ERRORS)})
    _write(folder / "windows", *_windows(found), facts)
    _write(folder / "best_windows", *_best(found), facts)
    _write(folder / "derivatives", *_derivatives(found), facts)


def _precision(found: Sensitivity) -> tuple[dict[str, Any], dict[str, str]]:
    columns: dict[str, Any] = {
        "parameter": list(found.names),
        "value": [found.star.get(name, 0.0) for name in found.names],
        "unit": [unit(name) or "1" for name in found.names],
        **{f"error_{kind}": values for kind, values in found.errors.items()},
        "windows_for_half": [found.windows_for(name, 0.5) for name in found.names],
        "windows_for_nine_tenths": [found.windows_for(name, 0.9) for name in found.names],
        "constrained": [f"unconstrained:{name}" not in found.flags for name in found.names],
    }
    return columns, {}


def _windows(found: Sensitivity) -> tuple[dict[str, Any], dict[str, str]]:
    columns: dict[str, Any] = {"low": found.windows[:-1], "high": found.windows[1:]}
    for i, name in enumerate(found.names):
        columns[f"share_{name}"], columns[f"share_alone_{name}"] = found.share[i], found.share_alone[i]
    return columns, {"low": "Angstrom", "high": "Angstrom"}


def _best(found: Sensitivity) -> tuple[dict[str, Any], dict[str, str]]:
    everything = dict(zip(found.names, found.errors["fit"], strict=True))
    rows = [
        (name, rank + 1, found.windows[w], found.windows[w + 1], error, error / everything[name])
        for name, best in found.best.items()
        for rank, (w, error) in enumerate(zip(best.order, best.errors, strict=True))
    ]  # fmt: skip
    titles = ("parameter", "rank", "low", "high", "error_so_far", "over_error_of_all")
    columns: dict[str, Any] = {title: [row[i] for row in rows] for i, title in enumerate(titles)}
    return columns, {"low": "Angstrom", "high": "Angstrom"}


def _derivatives(found: Sensitivity) -> tuple[dict[str, Any], dict[str, str]]:
    columns: dict[str, Any] = {
        "wavelength": found.wavelength, "flux": found.flux, "used": found.used,
        "emulator_error": found.emulator_error,
    }  # fmt: skip
    units = {"wavelength": "Angstrom"}
    for i, name in enumerate(found.names):
        for kind, values in (("d", found.derivatives), ("unique", found.unique)):
            columns[f"{kind}_{name}"] = values[i]
            if unit(name):
                units[f"{kind}_{name}"] = f"1/({unit(name)})"
    return columns, units


def _write(stem: Path, columns: dict[str, Any], units: dict[str, str], facts: dict[str, Any]) -> None:
    from astropy.table import Table

    table: Any = Table({name: np.asarray(values) for name, values in columns.items()})
    for name, text in units.items():
        table[name].unit = text
    table.meta = {"CREATOR": f"starpayne {version('starpayne')}", **facts}
    table.write(stem.with_suffix(".ecsv"), format="ascii.ecsv")
    table.write(stem.with_suffix(".csv"), format="ascii.csv")
