"""Tables of labels: a CSV or ECSV file with a row for each spectrum."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Float64

from starpayne.errors import GridError
from starpayne.importers.names import FILE, canonical_labels

MAX_TABLE = 256 * 2**20
NAMES = ("labels.csv", "labels.ecsv", "spectra_parameters.csv")
"""Tables that are found beside the spectra; the last is TSFitPy's."""


@dataclass(frozen=True)
class LabelTable:
    """Labels by canonical names.

    Args:
        path: the file.
        names: of the labels.
        values: (n, n_labels) float64, NaN where a cell is empty.
        files: (n,) which spectrum a row belongs to, or None for one row per spectrum in their order.
    """

    path: Path
    names: tuple[str, ...]
    values: Float64[np.ndarray, "n labels"]
    files: tuple[str, ...] | None


def read_table(path: Path) -> LabelTable:
    """Read a table with a line of column names, separated by commas, semicolons or blanks; # begins a comment.

    Columns without a number in them are passed over.

    Raises:
        GridError: if it is missing, too large, no text, has lines of different length or no label.
    """
    if not path.is_file():
        raise GridError(f"no table of labels at {path}")
    if path.stat().st_size > MAX_TABLE:
        raise GridError(f"{path} is larger than {MAX_TABLE // 2**20} MB, which no table of labels needs")
    try:
        lines = [x for x in path.read_text(encoding="utf-8-sig").splitlines() if x.strip() and not x.startswith("#")]
        separator = next((s for s in ",;\t" if s in lines[0]), " ") if lines else ","
        rows = list(csv.reader(lines, delimiter=separator, skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise GridError(f"{path} cannot be read as a table of labels: {error}") from error
    if separator == " ":
        rows = [[cell for cell in row if cell] for row in rows]
    if len(rows) < 2:
        raise GridError(f"{path} holds no labels: it needs a line of column names and one for each spectrum")
    head = [cell.strip() for cell in rows[0]]
    for i, row in enumerate(rows[1:], start=1):
        if len(row) != len(head):
            raise GridError(f"{path}: row {i} has {len(row)} cells, and there are {len(head)} columns")
    columns = dict(zip(head, zip(*rows[1:], strict=True), strict=True))
    if len(columns) != len(head):
        raise GridError(f"{path}: two columns have the same name")
    file = next((name for known in FILE for name in head if name.lower() == known), None)
    labels = {name: _numbers(cells) for name, cells in columns.items() if name != file}
    labels = {name: numbers for name, numbers in labels.items() if numbers is not None}
    moving = [name for name in labels if name.lower() == "rv" and np.any(labels[name] != 0)]
    if moving:
        raise GridError(f"{path}: the radial velocity {moving[0]} is not zero; spectra of a grid are at rest")
    labels = {name: numbers for name, numbers in labels.items() if name.lower() != "rv"}
    if not labels:
        raise GridError(f"{path} has no column of numbers: {', '.join(head)}")
    names, values = canonical_labels(list(labels), np.stack(list(labels.values()), axis=1), str(path))
    files = None if file is None else tuple(cell.strip() for cell in columns[file])
    return LabelTable(path, names, values, files)


def table_beside(folder: Path, stated: Path | None) -> LabelTable:
    """Return the table that the user names, or the one that lies among the spectra.

    Raises:
        GridError: if there is none.
    """
    found = stated or next((folder / name for name in NAMES if (folder / name).is_file()), None)
    if found is None:
        raise GridError(
            f"{folder} has spectra and no labels: give --labels TABLE, a CSV file with a column 'file' and one for "
            f"each label (or put it there as {NAMES[0]})"
        )
    return read_table(found)


def labels_by_row(table: LabelTable, n: int, source: str) -> Float64[np.ndarray, "n labels"]:
    """Return the labels (n, n_labels) of spectra that have no names of their own.

    Raises:
        GridError: if the table has another number of rows.
    """
    if len(table.values) != n:
        raise GridError(f"{table.path} has {len(table.values)} rows, and {source} has {n} spectra")
    return table.values


def match_files(
    table: LabelTable, folder: Path, found: Sequence[Path]
) -> tuple[list[Path], Float64[np.ndarray, "n labels"]]:
    """Return the file of each row of a table, and the labels (n, n_labels).

    A file that the table names and that is not there stays in, to fail with its reason; files that no row names are
    left out.

    Args:
        folder: what the names are relative to; none may lead out of it.
        found: the spectra in it.

    Raises:
        GridError: if a name leads out of the folder or is given twice, or no names are given and the numbers differ.
    """
    if table.files is None:
        return sorted(found, key=natural), labels_by_row(table, len(found), str(folder))
    if len(set(table.files)) != len(table.files):
        repeated = next(name for name in table.files if table.files.count(name) > 1)
        raise GridError(f"{table.path} names the spectrum {repeated!r} twice")
    known = {path.relative_to(folder).as_posix(): path for path in found}
    # A table may name files without their folder or ending, where that names one of them.
    for path in found:
        known.setdefault(path.name, path)
        known.setdefault(path.stem, path)
    paths = []
    for name in table.files:
        inner = PurePosixPath(name.replace("\\", "/"))
        if inner.is_absolute() or ".." in inner.parts:
            raise GridError(f"{table.path}: the file {name!r} lies outside {folder}")
        paths.append(known.get(inner.as_posix(), folder / inner))
    return paths, table.values


def natural(path: Path) -> list[tuple[int, str]]:
    """Sort names with numbers as people do: 2.fits before 10.fits."""
    words = re.findall(r"\d+|\D+", path.as_posix())
    return [(int(word), "") if word.isdecimal() and len(word) < 18 else (-1, word) for word in words]


def _numbers(cells: Sequence[str]) -> np.ndarray | None:
    """Return a column's numbers, NaN where a cell is empty; None if any is something else, or all are empty."""
    values = []
    for cell in (cell.strip().strip('"') for cell in cells):
        try:
            values.append(float(cell) if cell and cell not in ("--", "nan", "NaN") else np.nan)
        except ValueError:
            return None
    column = np.array(values, dtype=np.float64)
    return None if np.all(np.isnan(column)) else column
