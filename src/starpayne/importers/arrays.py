"""NumPy arrays of all spectra, and a table of labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from starpayne.errors import GridError
from starpayne.files import NUMPY_PROBLEMS
from starpayne.importers.formats import ForeignGrid, ForeignSpectrum, Format, ImportOptions, stated_medium
from starpayne.importers.tables import labels_by_row, table_beside


def recognises(source: Path) -> bool:
    return (source / "flux.npy").is_file() and (source / "wavelength.npy").is_file()


def read(source: Path, options: ImportOptions) -> ForeignGrid:
    """Read ``flux.npy`` (n, m), ``wavelength.npy`` (m,) in Å, perhaps ``continuum.npy`` (n, m), and a table of labels.

    The arrays stay on disk until a row is asked for. With a continuum, fluxes whose maximum is about 1 are taken for
    divided by it, others for absolute.

    Raises:
        GridError: for missing or damaged files, or shapes that do not agree.
    """
    medium = stated_medium(options, None, str(source))
    wavelength = np.asarray(mapped(source / "wavelength.npy", 1), np.float64)
    flux = mapped(source / "flux.npy", 2)
    continuum = mapped(source / "continuum.npy", 2) if (source / "continuum.npy").exists() else None
    for name, array in (("flux", flux), ("continuum", continuum)):
        if array is not None and array.shape != (len(flux), len(wavelength)):
            raise GridError(f"{source}: {name} has shape {array.shape}, and there are {len(wavelength)} wavelengths")
    table = table_beside(source, options.labels)

    def row(i: int) -> ForeignSpectrum:
        level = None if continuum is None else np.asarray(continuum[i], np.float64)
        return ForeignSpectrum(wavelength, np.asarray(flux[i], np.float64), level)

    return ForeignGrid(
        names=table.names,
        labels=labels_by_row(table, len(flux), str(source / "flux.npy")),
        files=tuple(f"spectrum {i}" for i in range(len(flux))),
        medium=medium,
        row=row,
        absolute=None,
        provenance={"engine": "not said", "table": table.path.name},
    )


def mapped(path: Path, dimensions: int) -> np.ndarray:
    """Return a NumPy array on disk.

    Raises:
        GridError: if it is missing, damaged, holds no numbers, or has other dimensions.
    """
    if not path.is_file():
        raise GridError(f"{path} is missing")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except NUMPY_PROBLEMS as error:
        raise GridError(f"{path} cannot be read: {error}") from error
    if not isinstance(array, np.ndarray) or array.ndim != dimensions or array.dtype.kind not in "fiu":
        raise GridError(f"{path} is no array of numbers with {dimensions} dimensions")
    return array


FORMAT = Format(
    "arrays", "grid", "flux.npy, wavelength.npy, perhaps continuum.npy, and a table of labels", recognises, read
)
