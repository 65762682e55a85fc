"""A table of labels with any number of rows, read block by block: Parquet, CSV or ECSV."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from starpayne.errors import LabelError, MissingExtraError, did_you_mean, one_line

SUFFIXES = (".parquet", ".csv", ".ecsv")
KEPT = ("file", "id", "name", "star", "object")
"""Columns that say which star a row is; so does one whose name ends in ``_id``."""

LONGEST_ID = 256
"""Bytes of a text that says which star a row is."""

ROWS_READ = 8192


class Block(NamedTuple):
    """Neighbouring rows: labels (n, n_labels) float64, NaN where there is no value; and texts, by column."""

    labels: np.ndarray
    ids: dict[str, list[str]]


@dataclass(frozen=True)
class LabelTable:
    """The columns of a table that a model needs, and those that say which star a row is.

    Args:
        path: the file.
        names: the label columns, in the model's order.
        ids: the columns that are kept as text.
        n: rows.
        widths: for each of ``ids``, the bytes of its longest text.
        digest: SHA-256 of the file.
    """

    path: Path
    names: tuple[str, ...]
    ids: tuple[str, ...]
    n: int
    widths: tuple[int, ...]
    digest: str

    @classmethod
    def open(cls, path: str | Path, names: Sequence[str]) -> LabelTable:
        """Look through a table once, holding none of it.

        Args:
            path: a .parquet, .csv or .ecsv file with a column for each label.
            names: of the labels.

        Raises:
            LabelError: the file is missing, not such a table, has no rows, lacks a label or has a column twice, or a
                value is not a number.
            MissingExtraError: Parquet without pyarrow.
        """
        path = Path(path)
        if path.suffix.lower() not in SUFFIXES:
            raise LabelError(f"{path.name}: tables of labels are read as {', '.join(SUFFIXES)}; the suffix decides")
        if not path.is_file():
            raise LabelError(f"no table of labels at {path}")
        columns = _columns(path)
        repeated = sorted({name for name in columns if columns.count(name) > 1})
        if repeated:
            raise LabelError(f"{path} has the column {one_line(repeated[0])!r} more than once")
        missing = [name for name in names if name not in columns]
        if missing:
            hint = did_you_mean(missing[0], columns)
            raise LabelError(
                f"{path} lacks the label columns {', '.join(missing)}{one_line(hint)} (it has {_listed(columns)})"
            )
        ids = tuple(c for c in columns if c not in names and (c.lower() in KEPT or c.lower().endswith("_id")))
        n, widths = 0, [1] * len(ids)
        for block in _pieces(path, tuple(names), ids):
            for i, name in enumerate(ids):
                widths[i] = max(widths[i], *(len(text.encode()) for text in block.ids[name]))
                if widths[i] > LONGEST_ID:
                    raise LabelError(f"{path}: a text in the column {name} has more than {LONGEST_ID} bytes")
            n += len(block.labels)
        if n == 0:
            raise LabelError(f"{path} has no rows")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(path, tuple(names), ids, n, tuple(widths), digest)

    def blocks(self, size: int) -> Iterator[Block]:
        """Go through the rows, ``size`` at a time; the last block may have fewer."""
        labels, ids = np.empty((0, len(self.names))), {name: [] for name in self.ids}
        for piece in _pieces(self.path, self.names, self.ids):
            labels = np.concatenate([labels, piece.labels])
            for name in ids:
                ids[name] = ids[name] + piece.ids[name]
            while len(labels) >= size:
                yield Block(labels[:size], {name: texts[:size] for name, texts in ids.items()})
                labels, ids = labels[size:], {name: texts[size:] for name, texts in ids.items()}
        if len(labels):
            yield Block(labels, ids)


def _pieces(path: Path, names: tuple[str, ...], ids: tuple[str, ...]) -> Iterator[Block]:
    return (_parquet_pieces if path.suffix.lower() == ".parquet" else _text_pieces)(path, names, ids)


def _columns(path: Path) -> list[str]:
    if path.suffix.lower() != ".parquet":
        return next(_rows(path), (0, []))[1]
    parquet, error = _pyarrow()
    try:
        with parquet.ParquetFile(path) as file:
            return list(file.schema_arrow.names)
    except (error, OSError) as problem:
        raise LabelError(one_line(f"{path} cannot be read as Parquet: {problem}")) from problem


def _parquet_pieces(path: Path, names: tuple[str, ...], ids: tuple[str, ...]) -> Iterator[Block]:
    parquet, error = _pyarrow()
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=ROWS_READ, columns=[*names, *ids]):
                columns = {name: batch.column(batch.schema.get_field_index(name)) for name in (*names, *ids)}
                labels = np.stack([_numbers(path, name, columns[name]) for name in names], axis=-1)
                yield Block(labels, {i: ["" if v is None else str(v) for v in columns[i].to_pylist()] for i in ids})
    except (error, OSError) as problem:
        raise LabelError(one_line(f"{path} cannot be read as Parquet: {problem}")) from problem


def _numbers(path: Path, name: str, column: Any) -> np.ndarray:
    import pyarrow

    kind = column.type
    if not (pyarrow.types.is_floating(kind) or pyarrow.types.is_integer(kind) or pyarrow.types.is_null(kind)):
        raise LabelError(f"{path}: the column {name} holds {kind}, not numbers")
    return np.asarray(column.cast(pyarrow.float64(), safe=False).to_numpy(zero_copy_only=False), np.float64)


def _text_pieces(path: Path, names: tuple[str, ...], ids: tuple[str, ...]) -> Iterator[Block]:
    rows = _rows(path)
    header = next(rows)[1]
    places, kept = [header.index(name) for name in names], [header.index(name) for name in ids]
    labels, texts = [], []
    for line, row in rows:
        if len(row) != len(header):
            raise LabelError(f"{path}, line {line}: {len(row)} values for {len(header)} columns")
        try:
            labels.append([float(row[i] or "nan") for i in places])
        except ValueError:
            i = next(i for i in places if not _is_number(row[i]))
            raise LabelError(one_line(f"{path}, line {line}: {header[i]} = {row[i]!r} is not a number")) from None
        texts.append([row[i] for i in kept])
        if len(labels) == ROWS_READ:
            yield _block(labels, texts, names, ids)
            labels, texts = [], []
    if labels:
        yield _block(labels, texts, names, ids)


def _block(labels: list[list[float]], texts: list[list[str]], names: tuple[str, ...], ids: tuple[str, ...]) -> Block:
    values = np.array(labels, np.float64).reshape(len(labels), len(names))
    return Block(values, {name: [row[i] for row in texts] for i, name in enumerate(ids)})


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Return line number and values of the header and every row; ECSV describes itself in comments before them."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            delimiter = "," if path.suffix.lower() == ".csv" else " "
            number = 0
            for line in file:
                number += 1
                if not line.startswith("#"):
                    break
                if line.startswith("# delimiter:"):
                    delimiter = "," if "," in line else " "
            else:
                raise LabelError(f"{path} has no header that names its columns")
            yield number, next(csv.reader([line], delimiter=delimiter, strict=True))
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            for row in reader:
                if row:
                    yield number + reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise LabelError(one_line(f"{path} cannot be read as a table: {problem}")) from problem


def _is_number(text: str) -> bool:
    try:
        float(text or "nan")
    except ValueError:
        return False
    return True


def _listed(columns: list[str]) -> str:
    return one_line(", ".join(columns[:20]) + (", …" if len(columns) > 20 else ""))


def _pyarrow() -> tuple[Any, type[Exception]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(
            'Parquet tables need pyarrow: pip install "starpayne[parquet]", or give a .csv or .ecsv'
        ) from error
    return pyarrow.parquet, pyarrow.ArrowException
