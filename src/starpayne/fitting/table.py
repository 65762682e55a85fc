"""The table of a survey: one row per star."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from starpayne.errors import SpectrumError

FORMATS = {".csv": "ascii.csv", ".ecsv": "ascii.ecsv", ".fits": "fits"}
SINGLE = (
    "rv", "rv_error", "vsini", "vsini_error", "broadening", "broadening_error",
    "chi2", "reduced_chi2", "n_pixels", "snr",
)  # fmt: skip


def check_table(path: Path) -> None:
    """Raise SpectrumError if no table can be written under this name."""
    if path.suffix.lower() not in FORMATS:
        raise SpectrumError(f"{path.name}: tables are written as {', '.join(FORMATS)}; the suffix decides")


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the rows of ``FitResult.to_dict()``: NAME and NAME_error per label, velocities in km/s, χ² and flags.

    Numbers that do not exist are NaN.
    """
    from astropy.table import Table

    check_table(path)
    columns: dict[str, list[Any]] = {"file": [row["file"] for row in rows]}
    for name in rows[0]["labels"]:
        columns[name] = [_number(row["labels"][name]["value"]) for row in rows]
        columns[f"{name}_error"] = [_number(row["labels"][name]["error"]) for row in rows]
    for name in SINGLE:
        columns[name] = [_number(row.get(name)) for row in rows]
    columns["flags"] = [" ".join(row["flags"]) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    Table(columns).write(path, format=FORMATS[path.suffix.lower()], overwrite=True)


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
