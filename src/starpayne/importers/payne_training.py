"""The Payne's training sets: an .npz of labels and spectra (Ting et al. 2019, ApJ 879, 69)."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from starpayne.errors import GridError
from starpayne.files import NUMPY_PROBLEMS
from starpayne.importers.formats import ForeignGrid, ForeignSpectrum, Format, ImportOptions, stated_medium
from starpayne.importers.names import canonical_labels
from starpayne.importers.payne_network import APOGEE_LABELS
from starpayne.importers.tables import labels_by_row, read_table

WAVELENGTHS = ("apogee_wavelength.npz", "wavelength.npz")
MAX_BYTES = 4 * 2**30


def recognises(source: Path) -> bool:
    return source.suffix == ".npz" and {"labels", "spectra"} <= _shapes(source).keys()


def read(source: Path, options: ImportOptions) -> ForeignGrid:
    """Read ``labels`` (k, n) or (n, k) and ``spectra`` (n, m) of normalised flux.

    The wavelengths are the array ``wavelength`` of the same file, or of apogee_wavelength.npz (wavelength.npz) beside
    it. 25 labels without names are those of The Payne for APOGEE (in vacuum, at a resolution of 22,500); others need
    ``label_names`` in the file, or the user's table. Abundances [X/H] become [X/Fe].

    Raises:
        GridError: for missing or damaged arrays, or shapes that do not agree.
    """
    shapes = _shapes(source)
    if not {"labels", "spectra"} <= shapes.keys():
        raise GridError(f"{source.name} has no arrays 'labels' and 'spectra' ({', '.join(sorted(shapes)) or 'none'})")
    spectra = _array(source, "spectra", shapes, 2)
    n, width = spectra.shape
    place = (
        source
        if "wavelength" in shapes
        else next((p for w in WAVELENGTHS if (p := source.with_name(w)).is_file()), None)
    )
    if place is None:
        raise GridError(f"{source.name} has no wavelengths: put {WAVELENGTHS[0]} with an array 'wavelength' beside it")
    wavelength = np.asarray(_array(place, "wavelength", _shapes(place), 1), np.float64)
    if len(wavelength) != width:
        raise GridError(f"{source.name}: spectra of {width} pixels, and {place.name} has {len(wavelength)} wavelengths")
    apogee = place.name == WAVELENGTHS[0]
    medium = stated_medium(options, "vacuum" if apogee else None, source.name)
    names, labels = _labels(source, shapes, n, options)
    return ForeignGrid(
        names=names,
        labels=labels,
        files=tuple(f"spectrum {i}" for i in range(n)),
        medium=medium,
        row=lambda i: ForeignSpectrum(wavelength, np.asarray(spectra[i], np.float64)),
        absolute=False,
        resolution=22_500.0 if apogee else None,
        physics=("lte", "plane_parallel"),
        provenance={
            "engine": "SYNTHE, as The Payne's training set" if apogee else "not said",
            "atmosphere": "ATLAS12" if apogee else "not said",
            "cite": "Ting et al. 2019, ApJ 879, 69 (The Payne)",
            "licence": "MIT" if apogee else "not said",
        },
    )


def _labels(
    source: Path, shapes: Mapping[str, tuple], n: int, options: ImportOptions
) -> tuple[tuple[str, ...], np.ndarray]:
    if options.labels is not None:
        table = read_table(options.labels)
        return table.names, labels_by_row(table, n, source.name)
    values = np.asarray(_array(source, "labels", shapes, 2), np.float64)
    if "label_names" in shapes:
        names = _array(source, "label_names", shapes, 1).astype(str).tolist()
    else:
        names = list(APOGEE_LABELS) if len(APOGEE_LABELS) in values.shape else []
    if not names:
        raise GridError(
            f"{source.name} has labels of shape {values.shape} without names, and not the 25 of The Payne; give "
            "--labels TABLE, a CSV file with a row for each spectrum"
        )
    # As it is published, every column is a spectrum.
    values = values.T if values.shape == (len(names), n) else values
    if values.shape != (n, len(names)):
        raise GridError(f"{source.name}: labels of shape {values.shape}, {n} spectra and {len(names)} names")
    return canonical_labels(names, np.ascontiguousarray(values), source.name)


def _shapes(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Return shape and type of the arrays in an .npz, from their headers alone."""
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if not name.endswith(".npy"):
                    continue
                with archive.open(name) as file:
                    version = np.lib.format.read_magic(file)
                    reader = (
                        np.lib.format.read_array_header_1_0
                        if version == (1, 0)
                        else np.lib.format.read_array_header_2_0
                    )
                    shape, _, dtype = reader(file)
                    found[name.removesuffix(".npy")] = (shape, dtype)
    except NUMPY_PROBLEMS:
        return found
    return found


def _array(path: Path, name: str, shapes: Mapping[str, tuple], dimensions: int) -> np.ndarray:
    if name not in shapes:
        raise GridError(f"{path.name} has no array {name!r}")
    shape, dtype = shapes[name]
    kinds = "SU" if name == "label_names" else "fiu"
    if len(shape) != dimensions or dtype.kind not in kinds:
        raise GridError(
            f"{path.name}: {name} has shape {shape} of {dtype}; {dimensions} dimensions of numbers are expected"
        )
    # What a header claims is allocated before it is read.
    if (size := int(np.prod(shape, dtype=object)) * dtype.itemsize) > MAX_BYTES:
        raise GridError(f"{path.name}: {name} takes {size / 2**30:.1f} GiB, more than {MAX_BYTES // 2**30}")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[name]
    except NUMPY_PROBLEMS as error:
        raise GridError(f"{path.name}: {name} cannot be read ({type(error).__name__}: {error})") from error


FORMAT = Format(
    "payne-training", "grid", "The Payne's .npz of labels and spectra, with its file of wavelengths", recognises, read
)
