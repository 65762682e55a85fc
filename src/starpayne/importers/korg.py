"""Korg: spectra that were saved from Julia as text or HDF5 (Wheeler et al. 2023, AJ 165, 68)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from starpayne.errors import GridError
from starpayne.importers.formats import ForeignGrid, ForeignSpectrum, Format, ImportOptions, stated_medium
from starpayne.importers.hdf5files import dataset, has, is_hdf5, member, numbers, opened, texts
from starpayne.importers.names import canonical_labels
from starpayne.importers.spectra import spectra_in
from starpayne.importers.tables import labels_by_row, match_files, read_table, table_beside
from starpayne.importers.text import read_numbers

WAVELENGTHS = ("wavelengths", "wavelength", "wl")
CONTINUA = ("cntm", "continuum")
PROVENANCE = {
    "engine": "Korg",
    "cite": "Wheeler et al. 2023, AJ 165, 68; Wheeler et al. 2024, AJ 167, 83",
    "atmosphere": "not said",
}
JLD2 = (
    "{path} is a JLD2 file, which only Julia reads; save text or HDF5 from Korg instead, such as "
    '`using DelimitedFiles; writedlm("1.txt", hcat(sol.wavelengths, sol.flux, sol.cntm))` for each spectrum'
)


def recognises(source: Path) -> bool:
    if not is_hdf5(source):
        return False
    with opened(source) as file:
        named = has(file, "flux") and any(has(file, name) for name in WAVELENGTHS)
        return named and hasattr(member(file, "flux"), "shape")


def read(source: Path, options: ImportOptions) -> ForeignGrid:
    """Read one HDF5 file, or a folder of text files and a table of labels.

    HDF5: ``wavelengths`` (m,) in Å, ``flux`` (n, m), perhaps ``cntm`` (n, m), and ``labels`` (n, k) whose names are in
    ``label_names``, or a group ``labels`` with one array (n,) for each, or the user's table; arrays may be transposed,
    as Julia writes them. Text: columns of wavelength, flux and perhaps continuum.

    The flux may be divided by the continuum (``synth``) or not (``synthesize``); versions of Korg differ in whether it
    is per cm or per Å, which its brightness tells.

    Raises:
        GridError: for a JLD2 file, or what is missing or of other shapes.
    """
    medium = stated_medium(options, options.medium or "vacuum", "Korg")
    if source.suffix == ".jld2":
        raise GridError(JLD2.format(path=source))
    if source.is_dir():
        return _read_texts(source, options, medium)
    return _read_hdf5(source, options, medium)


def _read_texts(source: Path, options: ImportOptions, medium: str) -> ForeignGrid:
    table = table_beside(source, options.labels)
    files, labels = match_files(table, source, spectra_in(source, table.path))

    def row(i: int) -> ForeignSpectrum:
        values = read_numbers(files[i], (2, 3))
        return ForeignSpectrum(values[:, 0], values[:, 1], values[:, 2] if values.shape[1] == 3 else None)

    return ForeignGrid(
        names=table.names, labels=labels, files=tuple(path.name for path in files), medium=medium, row=row,
        absolute=None,
        physics=("lte",), provenance=PROVENANCE,
    )  # fmt: skip


def _read_hdf5(source: Path, options: ImportOptions, medium: str) -> ForeignGrid:
    with opened(source) as file:
        name = next((name for name in WAVELENGTHS if has(file, name)), WAVELENGTHS[0])
        wavelength = numbers(file, name, 1)
        level = next((name for name in CONTINUA if has(file, name)), None)
        n, transposed = _layout(file, "flux", len(wavelength), source)
        if level and _layout(file, level, len(wavelength), source) != (n, transposed):
            raise GridError(f"{source.name}: flux and {level} have different shapes")
        names, labels = _labels(file, n, source, options)

    def row(i: int) -> ForeignSpectrum:
        with opened(source) as file:
            continuum = None if level is None else _row(file, level, i, transposed)
            return ForeignSpectrum(wavelength, _row(file, "flux", i, transposed), continuum)

    return ForeignGrid(
        names=names, labels=labels, files=tuple(f"spectrum {i}" for i in range(n)), medium=medium, row=row,
        absolute=None, physics=("lte",), provenance=PROVENANCE,
    )  # fmt: skip


def _layout(file: Any, name: str, width: int, source: Path) -> tuple[int, bool]:
    """Return the number of spectra in an array, and whether they are its columns."""
    found = dataset(file, name)
    if found.ndim != 2 or found.dtype.kind not in "fiu" or width not in found.shape or found.size == 0:
        raise GridError(f"{source.name}: {name} has shape {found.shape}, and there are {width} wavelengths")
    # A square array is taken as it is named: one row for each spectrum.
    transposed = found.shape[1] != width
    return int(found.shape[1 if transposed else 0]), transposed


def _row(file: Any, name: str, i: int, transposed: bool) -> np.ndarray:
    found = dataset(file, name)
    return np.asarray(found[:, i] if transposed else found[i], dtype=np.float64)


def _labels(file: Any, n: int, source: Path, options: ImportOptions) -> tuple[tuple[str, ...], np.ndarray]:
    if options.labels is not None:
        table = read_table(options.labels)
        return table.names, labels_by_row(table, n, source.name)
    if not has(file, "labels"):
        raise GridError(f"{source.name} has no labels; give --labels TABLE, a CSV file with a row for each spectrum")
    if hasattr(member(file, "labels"), "keys"):
        group = member(file, "labels")
        names = sorted(str(name) for name in group)
        columns = [numbers(group, name, 1) for name in names]
        if not names or any(len(column) != n for column in columns):
            raise GridError(f"{source.name}: the group 'labels' needs arrays of {n} values")
        return canonical_labels(names, np.stack(columns, axis=1), source.name)
    values = numbers(file, "labels", 2)
    if has(file, "label_names"):
        names = texts(dataset(file, "label_names")[()])
    else:
        attributes = member(file, "labels").attrs
        names = texts(attributes["names"]) if "names" in attributes else []
    if values.shape != (n, len(names)) and values.T.shape == (n, len(names)):
        values = np.ascontiguousarray(values.T)
    if values.shape != (n, len(names)):
        raise GridError(
            f"{source.name}: labels have shape {values.shape}; {n} spectra and {len(names)} names in 'label_names'"
        )
    return canonical_labels(names, values, source.name)


FORMAT = Format("korg", "grid", "Korg's spectra as HDF5, or as text files with a table of labels", recognises, read)
