"""Many spectra: files with one each, or one file with a row for each star (FITS or Parquet).

A row has its flux, and its wavelengths, errors or inverse variances, as arrays: in vector columns of a FITS table, in
two-dimensional FITS images named so, or in list columns of a Parquet file. Wavelengths that all stars share may be one
row of an image or HDU of their own, or stand in the header of the image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from starpayne.errors import MissingExtraError, SpectrumError, did_you_mean, one_line
from starpayne.spectra import UNITS, ObservedSpectrum
from starpayne.spectrum_files import (
    ERROR_NAMES,
    FLUX_NAMES,
    IVAR_NAMES,
    WAVELENGTH_NAMES,
    choose,
    first_line,
    image_axis,
    stated_medium,
)

IDS = ("file", "id", "name", "star", "object", "targetid")
"""Columns that say which star a row is; so does one whose name ends in ``_id``."""

ROW_BY_ROW = (WAVELENGTH_NAMES, ERROR_NAMES, IVAR_NAMES)
"""Images that have a row for each star if they have several."""

ROWS_READ = 64


@runtime_checkable
class Spectra(Protocol):
    """Any number of spectra, read one at a time, each with the name that its row in a table of results gets."""

    def __len__(self) -> int: ...

    def name(self, i: int) -> str: ...

    def read(self, i: int) -> ObservedSpectrum: ...

    @property
    def identity(self) -> list[Any]:
        """What tells these spectra from others; JSON data."""
        ...


def open_spectra(paths: Sequence[str | Path], unit: str | None = None, medium: str | None = None) -> Spectra:
    """Return the spectra of some files, or of one file that holds many.

    Args:
        paths: text or FITS files with one spectrum each; or one FITS or Parquet file with a row for each star.
        unit, medium: as of :meth:`starpayne.spectra.ObservedSpectrum.read`.

    Raises:
        SpectrumError: a table of spectra beside other files, or one without flux or wavelengths.
        MissingExtraError: Parquet without pyarrow.
    """
    files = [Path(path) for path in paths]
    if unit is not None and unit not in UNITS:
        raise SpectrumError(f"unit {unit!r} is not known{did_you_mean(unit, UNITS)}; choose one of {', '.join(UNITS)}")
    tables = [path for path in files if path.suffix.lower() == ".parquet"]
    if tables and len(files) > 1:
        raise SpectrumError(f"{tables[0].name} holds many spectra: give it alone, not beside other files")
    if len(files) == 1:
        rows = _ParquetRows(files[0]) if tables else _FitsRows.found(files[0])
        if rows is not None:
            return _Table(rows, unit, medium)
    return _Files(files, unit, medium)


class _Files:
    """One spectrum in each of some files."""

    def __init__(self, paths: Sequence[Path], unit: str | None, medium: str | None) -> None:
        self._paths, self._unit, self._medium = paths, unit, medium

    def __len__(self) -> int:
        return len(self._paths)

    def name(self, i: int) -> str:
        return str(self._paths[i])

    def read(self, i: int) -> ObservedSpectrum:
        return ObservedSpectrum.read(self._paths[i], unit=self._unit, medium=self._medium)

    @property
    def identity(self) -> list[Any]:
        return [self._unit, self._medium, [str(path) for path in self._paths]]


class _Rows(ABC):
    """The rows of a file: arrays by the names of their columns."""

    path: Path
    n: int
    ids: Sequence[Any] | None

    @abstractmethod
    def row(self, i: int) -> tuple[list[str], list[np.ndarray], list[str | None], str | None]:
        """Return names, arrays and units of the columns that are arrays, and the medium where the file states it."""


class _Table:
    """The spectra of a file with a row for each star."""

    def __init__(self, rows: _Rows, unit: str | None, medium: str | None) -> None:
        self._rows, self._unit, self._medium = rows, unit, medium
        names, arrays, units, _ = rows.row(0)
        if not names:
            raise SpectrumError(f"{rows.path.name} has no column of arrays: each row needs its wavelengths and fluxes")
        choose(rows.path, names, arrays, units)

    def __len__(self) -> int:
        return self._rows.n

    def name(self, i: int) -> str:
        ids = self._rows.ids
        return f"{self._rows.path.name}#{i}" if ids is None else _text(ids[i])

    def read(self, i: int) -> ObservedSpectrum:
        names, arrays, units, medium = self._rows.row(i)
        columns = choose(self._rows.path, names, arrays, units)
        stated = columns.medium or medium
        for what, array in (("flux", columns.flux), ("error", columns.error)):
            if array is not None and len(array) != len(columns.wavelength):
                raise SpectrumError(f"{what} has {len(array)} pixels, wavelength {len(columns.wavelength)}")
        return ObservedSpectrum.from_columns(
            columns.wavelength, columns.flux, columns.error, self._unit or columns.unit, self.name(i),
            stated=stated, medium=self._medium,
        )  # fmt: skip

    @property
    def identity(self) -> list[Any]:
        facts = self._rows.path.stat()
        return [self._unit, self._medium, str(self._rows.path), facts.st_size, facts.st_mtime_ns]


class _FitsRows(_Rows):
    """Vector columns of a table, or images with a row for each star."""

    @classmethod
    def found(cls, path: Path) -> _FitsRows | None:
        """Return the rows of a file, or None where it is no FITS file with several spectra."""
        try:
            with path.open("rb") as file:
                if file.read(9) != b"SIMPLE  =":
                    return None
        except OSError:
            return None
        from astropy.io import fits

        try:
            # Mapped: a survey does not fit into memory. It stays open for as long as its rows are read.
            hdus = fits.open(path, memmap=True)
            rows = cls(path, hdus)
        except SpectrumError:
            raise
        except Exception as problem:  # astropy raises whatever a damaged header leads it to
            raise SpectrumError(f"{path.name} is a damaged FITS file: {first_line(problem)}") from problem
        return rows if rows.n > 1 else None

    def __init__(self, path: Path, hdus: Any) -> None:
        self.path, self.n, self.ids = path, 0, None
        self._arrays: dict[str, Any] = {}
        self._units: dict[str, str | None] = {}
        self._medium: str | None = None
        for hdu in hdus:
            if getattr(hdu, "columns", None) is not None:
                flux = [c.name for c in hdu.columns if _known(c.name, FLUX_NAMES) and _width(c) > 1]
                if flux and not self.n:
                    self._from_table(hdu)
            elif hdu.header.get("NAXIS") == 2 and not self.n and (_known(hdu.name, FLUX_NAMES) or _is_plate(hdu)):
                self._from_images(hdu, hdus)
        if self.n:
            self._find_ids(hdus)

    def _from_table(self, hdu: Any) -> None:
        self.n = int(hdu.header["NAXIS2"])
        for column in hdu.columns:
            if _width(column) > 1 and column.format.lstrip("0123456789")[:1] in "EDJIKB":
                self._arrays[column.name], self._units[column.name] = hdu.data[column.name], column.unit
        self._medium = stated_medium(hdu.header, "")

    def _from_images(self, flux: Any, hdus: Any) -> None:
        self.n = int(flux.header["NAXIS2"])
        self._medium = stated_medium(flux.header, str(flux.header.get("CTYPE1", "")).strip().upper())
        self._arrays["flux"], self._units["flux"] = flux.data, None
        for hdu in hdus:
            if hdu is not flux and getattr(hdu, "columns", None) is None and hdu.header.get("NAXIS", 0) in (1, 2):
                rows = hdu.header["NAXIS2"] if hdu.header["NAXIS"] == 2 else self.n
                if rows != self.n and any(_known(hdu.name, names) for names in ROW_BY_ROW):
                    raise SpectrumError(f"{self.path.name}: {hdu.name} has {rows} rows, {flux.name} {self.n}")
                self._arrays[hdu.name.lower()], self._units[hdu.name.lower()] = hdu.data, hdu.header.get("BUNIT")
        if not any(_known(name, (*WAVELENGTH_NAMES, "loglam")) for name in self._arrays) and "CRVAL1" in flux.header:
            axis, unit = image_axis(flux.header, int(flux.header["NAXIS1"]))
            self._arrays["wavelength"], self._units["wavelength"] = axis, unit

    def _find_ids(self, hdus: Any) -> None:
        for hdu in hdus:
            if getattr(hdu, "columns", None) is None or int(hdu.header["NAXIS2"]) != self.n:
                continue
            for column in hdu.columns:
                if _says_which(column.name) and (column.format.endswith("A") or _width(column) == 1):
                    self.ids = hdu.data[column.name]
                    return

    def row(self, i: int) -> tuple[list[str], list[np.ndarray], list[str | None], str | None]:
        arrays = [np.asarray(a[i] if np.ndim(a) == 2 else a, np.float64) for a in self._arrays.values()]
        return list(self._arrays), arrays, list(self._units.values()), self._medium


class _ParquetRows(_Rows):
    """List columns of a Parquet file, read in order; what goes back begins anew."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise MissingExtraError(
                'Parquet tables need pyarrow: pip install "starpayne[parquet]", or give a FITS table'
            ) from error
        if not path.is_file():
            raise SpectrumError(f"no file at {path}")
        try:
            self._file = pyarrow.parquet.ParquetFile(path)
        except (pyarrow.ArrowException, OSError) as problem:
            raise SpectrumError(one_line(f"{path} cannot be read as Parquet: {problem}")) from problem
        self._problems: tuple[type[Exception], ...] = (pyarrow.ArrowException, OSError)
        schema = self._file.schema_arrow
        self._names = [f.name for f in schema if pyarrow.types.is_nested(f.type) and _is_list(pyarrow, f.type)]
        self._id = next((f.name for f in schema if _says_which(f.name) and f.name not in self._names), None)
        self.n = self._file.metadata.num_rows
        if self.n == 0:
            raise SpectrumError(f"{path.name} has no rows")
        self._first, self._batch = 0, None
        self._batches: Iterator[Any] = iter(())

    @cached_property
    def ids(self) -> Sequence[Any] | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        return None if self._id is None else self._file.read(columns=[self._id]).column(0).to_pylist()

    def row(self, i: int) -> tuple[list[str], list[np.ndarray], list[str | None], str | None]:
        try:
            batch = self._holding(i)
            values = [batch.column(name)[i - self._first].values for name in self._names]
            arrays = [
                np.zeros(0) if v is None else np.asarray(v.to_numpy(zero_copy_only=False), np.float64) for v in values
            ]
        except (*self._problems, ValueError, TypeError) as problem:
            raise SpectrumError(one_line(f"{self.path.name}#{i} cannot be read: {problem}")) from problem
        return self._names, arrays, [None] * len(arrays), None

    def _holding(self, i: int) -> Any:
        """Return the batch of rows with row i."""
        if self._batch is None or i < self._first:
            group, self._first = self._group_of(i)
            groups = list(range(group, self._file.num_row_groups))
            self._batches = self._file.iter_batches(ROWS_READ, row_groups=groups, columns=self._names)
            self._batch = next(self._batches)
        while i >= self._first + self._batch.num_rows:
            self._first += self._batch.num_rows
            self._batch = next(self._batches)
        return self._batch

    def _group_of(self, i: int) -> tuple[int, int]:
        first = 0
        for group in range(self._file.num_row_groups):
            rows = self._file.metadata.row_group(group).num_rows
            if i < first + rows:
                return group, first
            first += rows
        raise IndexError(i)


def _is_list(pyarrow: Any, kind: Any) -> bool:
    kinds = pyarrow.types
    return kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind)


def _known(name: str, beginnings: Sequence[str]) -> bool:
    return name.lower().startswith(tuple(beginnings))


def _says_which(name: str) -> bool:
    return name.lower() in IDS or name.lower().endswith("_id")


def _width(column: Any) -> int:
    """Return how many numbers a FITS column has in each row."""
    digits = column.format[: len(column.format) - len(column.format.lstrip("0123456789"))]
    return int(digits or 1)


def _is_plate(hdu: Any) -> bool:
    """Return whether an image without a name has a spectrum in each of its rows."""
    header = hdu.header
    return hdu.name in ("", "PRIMARY") and "CRVAL1" in header and ("CD1_1" in header or "CDELT1" in header)


def _text(value: Any) -> str:
    return (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)).strip()
