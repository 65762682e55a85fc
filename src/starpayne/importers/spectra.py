"""A folder of spectra that any spectroscopist writes: FITS or text files, and a table of labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from starpayne.errors import GridError, StarpayneError
from starpayne.importers.formats import ForeignGrid, ForeignSpectrum, Format, ImportOptions, stated_medium
from starpayne.importers.tables import NAMES, match_files, natural, table_beside
from starpayne.spectrum_files import Columns, read_columns

ENDINGS = (".fits", ".fit", ".fits.gz", ".txt", ".dat", ".csv", ".ascii", ".asc", ".tsv", ".txt.gz", ".dat.gz")
UNIT = {"angstrom": 1.0, "nm": 10.0, "micron": 1e4}


def spectra_in(source: Path, labels: Path | None) -> list[Path]:
    """Return the files of a folder and its subfolders that may be spectra, in the order of their names."""
    tables = {(source / name).resolve() for name in NAMES} | ({labels.resolve()} if labels else set())
    files = (p for p in source.rglob("*") if p.name.lower().endswith(ENDINGS) and p.is_file())
    return sorted((path for path in files if path.resolve() not in tables), key=natural)


def recognises(source: Path) -> bool:
    return source.is_dir() and bool(spectra_in(source, None))


def read(source: Path, options: ImportOptions) -> ForeignGrid:
    """Read a folder of one-dimensional FITS or text spectra, and a table of their labels.

    Columns are wavelength and flux, and an error that is not used. Fluxes whose maximum is about 1 are taken for
    normalised; others get a pseudo-continuum.

    Raises:
        GridError: if there are no spectra, no labels, or nobody says the medium.
    """
    if not source.is_dir():
        raise GridError(f"no folder at {source}")
    table = table_beside(source, options.labels)
    files, labels = match_files(table, source, spectra_in(source, table.path))
    first = next((columns for path in files if (columns := _first_columns(path)) is not None), None)
    stated = None if first is None else first.medium
    medium = stated_medium(options, stated, str(source))

    def row(i: int) -> ForeignSpectrum:
        columns = read_columns(files[i])
        if columns.medium not in (None, medium):
            raise GridError(f"its wavelengths are in {columns.medium}, those of the others in {medium}")
        return ForeignSpectrum(in_angstrom(columns), np.asarray(columns.flux, np.float64))

    return ForeignGrid(
        names=table.names,
        labels=labels,
        files=tuple(path.name for path in files),
        medium=medium,
        row=row,
        absolute=None,
        resolution=None,
        provenance={"engine": "not said", "table": table.path.name},
    )


def in_angstrom(columns: Columns) -> np.ndarray:
    """Return wavelengths in Å: by the unit that a file states, or as they are where it states none."""
    return np.asarray(columns.wavelength, np.float64) * UNIT.get(columns.unit or "angstrom", 1.0)


def _first_columns(path: Path) -> Columns | None:
    try:
        return read_columns(path)
    except StarpayneError:
        return None


FORMAT = Format("spectra", "grid", "a folder of FITS or text spectra and a table of labels", recognises, read)
