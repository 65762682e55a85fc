"""The table of a survey: one row per star."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from starpayne.errors import SpectrumError
from starpayne.labels import unit_of

FORMATS = {".csv": "ascii.csv", ".ecsv": "ascii.ecsv", ".fits": "fits", ".parquet": "parquet"}
SINGLE = (
    "rv", "rv_error", "rv_raw_error", "vsini", "vsini_error", "vsini_raw_error", "broadening", "broadening_error",
    "broadening_raw_error", "chi2", "reduced_chi2", "jitter", "coverage", "snr",
)  # fmt: skip


MOTIONS = ("rv", "vsini", "broadening")


def check_table(path: Path) -> None:
    """Raise SpectrumError if no table can be written under this name."""
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise SpectrumError(f"{path.name}: tables are written as {', '.join(FORMATS)}; the suffix decides")
    if suffix == ".parquet":
        _pyarrow()


def write_table(path: Path, parts: Iterable[Sequence[Mapping[str, Any]]]) -> None:
    """Write the rows of ``FitResult.to_dict()``, given in one or more parts, of which one at a time is in memory.

    For each label NAME, NAME_error (with jitter) and NAME_raw_error (the stated errors and the emulator's alone), then
    velocities in km/s and χ². Where a posterior was sampled, NAME_median, NAME_low and NAME_high (68.3 %) follow; then
    the names of fixed labels and the flags, both separated by spaces, and why a spectrum could not be fitted. Numbers
    that do not exist are NaN.
    """
    check_table(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".partial")
    columns = (_columns(rows) for rows in parts)
    if path.suffix.lower() == ".parquet":
        _write_parquet(draft, columns)
    else:
        _write_astropy(draft, FORMATS[path.suffix.lower()], columns)
    draft.replace(path)


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    columns: dict[str, list[Any]] = {"file": [row["file"] for row in rows]}
    for name in rows[0]["labels"]:
        columns[name] = [_number(row["labels"][name]["value"]) for row in rows]
        columns[f"{name}_error"] = [_number(row["labels"][name]["error"]) for row in rows]
        columns[f"{name}_raw_error"] = [_number(row["labels"][name].get("raw_error")) for row in rows]
    for name in SINGLE:
        columns[name] = [_number(row.get(name)) for row in rows]
    sampled = [row["posterior"]["parameters"] for row in rows if "posterior" in row]
    for name in sampled[0] if sampled else ():
        for what in ("median", "low", "high"):
            columns[f"{name}_{what}"] = [
                _number(row.get("posterior", {}).get("parameters", {}).get(name, {}).get(what)) for row in rows
            ]
    columns["n_pixels"] = [int(row.get("n_pixels") or 0) for row in rows]
    columns["fixed"] = [" ".join(row.get("fixed", ())) for row in rows]
    columns["flags"] = [" ".join(row["flags"]) for row in rows]
    columns["message"] = [str(row.get("message", "")) for row in rows]
    return {name: np.array(values) for name, values in columns.items()}


def _write_parquet(path: Path, parts: Iterable[Mapping[str, np.ndarray]]) -> None:
    pyarrow, parquet = _pyarrow()
    writer = None
    try:
        for columns in parts:
            table = pyarrow.table(dict(columns))
            writer = writer or parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _write_astropy(path: Path, form: str, parts: Iterable[Mapping[str, np.ndarray]]) -> None:
    from astropy.table import Table

    pieces: dict[str, list[np.ndarray]] = {}
    for columns in parts:
        for name, values in columns.items():
            pieces.setdefault(name, []).append(values)
    table: Any = Table({name: np.concatenate(values) for name, values in pieces.items()})
    for name in table.colnames:
        base = name.removesuffix("_error").removesuffix("_raw")
        for end in ("_median", "_low", "_high"):
            base = base.removesuffix(end)
        unit = "km/s" if base in MOTIONS else unit_of(base).partition("(")[0]
        # FITS has no dex.
        table[name].unit = None if unit in ("", "dex") and form == "fits" else unit or None
    table.meta["CREATOR"] = f"starpayne {version('starpayne')}"
    table.write(path, format=form, overwrite=True)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise SpectrumError(
            'Parquet tables need pyarrow: pip install "starpayne[parquet]", or write .ecsv or .fits'
        ) from error
    return pyarrow, pyarrow.parquet


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
