"""Turbospectrum: result files of wavelength (air), normalised flux and absolute flux."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from starpayne.errors import GridError, StarpayneError
from starpayne.importers.formats import ForeignGrid, ForeignSpectrum, Format, ImportOptions, stated_medium
from starpayne.importers.names import canonical_labels
from starpayne.importers.tables import NAMES, match_files, natural, read_table
from starpayne.importers.text import read_numbers, read_text

HEADER = re.compile(r"#\s*\[?(?P<name>[A-Za-z]+(?:/[A-Za-z]+)?)\]?\s*[:=]\s*(?P<value>[-+\d.eE]+)")
"""Lines such as ``#teff: 5403.27`` and ``#[C/Fe]=-0.5370 LTE``, as TSFitPy writes them above a spectrum."""

NO_LABELS = ("resolution", "rv", "date", "Fe/Fe")
DARK = 1e-3
"""Below this normalised flux, the rounded ratio of two columns is no continuum any more."""


def recognises(source: Path) -> bool:
    return source.is_dir() and next(source.glob("*.spec"), None) is not None


def read(source: Path, options: ImportOptions) -> ForeignGrid:
    """Read a folder of ``.spec`` files.

    Labels come from the table that the user names, else from one that lies in the folder (``spectra_parameters.csv`` of
    TSFitPy), else from the comments that TSFitPy writes above each spectrum.

    Raises:
        GridError: if there are no spectra or no labels.
    """
    medium = stated_medium(options, "air", "Turbospectrum's result files")
    found = sorted(source.glob("*.spec"), key=natural)
    heads = {path: _head(path) for path in found}
    path = options.labels or next((source / name for name in NAMES if (source / name).is_file()), None)
    left_out: tuple[tuple[str, str], ...] = ()
    if path is not None:
        table = read_table(path)
        names, (files, labels) = table.names, match_files(table, source, found)
    else:
        names, files, labels, left_out = _from_heads(heads, source)

    def row(i: int) -> ForeignSpectrum:
        values = read_numbers(files[i], (2, 3))
        wavelength, flux = values[:, 0], values[:, 1]
        if values.shape[1] == 2:
            return ForeignSpectrum(wavelength, flux)
        bright = flux > DARK
        if not np.any(bright) or not np.all(np.isfinite(values)):
            raise GridError("its flux is not finite and positive")
        return ForeignSpectrum(
            wavelength, flux, np.interp(wavelength, wavelength[bright], values[bright, 2] / flux[bright])
        )

    resolutions = {dict(head).get("resolution", "0") for head in heads.values()} - {"0", "0.0"}
    if len(resolutions) > 1:
        raise GridError(f"{source} mixes spectra of resolution {', '.join(sorted(resolutions))}")
    nlte = {dict(head).get("nlte_flag") for head in heads.values()}
    return ForeignGrid(
        names=names,
        labels=labels,
        files=tuple(path.name for path in files),
        medium=medium,
        row=row,
        absolute=False,
        scale=1.0,
        resolution=float(next(iter(resolutions))) if resolutions else None,
        physics=("lte",) if nlte == {"False"} else (),
        provenance={"engine": "Turbospectrum", "cite": "Plez 2012, ascl:1205.004", "atmosphere": "not said"},
        left_out=left_out,
    )


def _head(path: Path) -> list[tuple[str, str]]:
    """Return names and values in the comments above a spectrum."""
    try:
        text = read_text(path, size=8192)
    except StarpayneError:
        return []
    lines = [line for line in text.splitlines() if line.startswith("#")]
    pairs = [(m["name"], m["value"]) for line in lines if (m := HEADER.match(line))]
    flag = next((line.split(":")[1].strip() for line in lines if line.startswith("#nlte_flag:")), None)
    return pairs + ([("nlte_flag", flag)] if flag else [])


def _from_heads(
    heads: dict[Path, list[tuple[str, str]]], source: Path
) -> tuple[tuple[str, ...], list[Path], np.ndarray, tuple[tuple[str, str], ...]]:
    labels = {
        path: {name: float(value) for name, value in head if name not in NO_LABELS and _is_number(value)}
        for path, head in heads.items()
    }
    names = list(dict.fromkeys(name for found in labels.values() for name in found))
    if "teff" not in names:
        raise GridError(
            f"{source}: neither a table nor comments say the labels of the spectra; give --labels TABLE, a CSV file "
            "with a column 'file' and one for each label"
        )
    silent = tuple((path.name, "its comments say no labels") for path, found in labels.items() if not found)
    files = [path for path, found in labels.items() if found]
    values = np.array([[labels[path].get(name, np.nan) for name in names] for path in files], dtype=np.float64)
    known, values = canonical_labels(names, values, str(source))
    return known, files, values, silent


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


FORMAT = Format(
    "turbospectrum", "grid", "Turbospectrum's .spec files, as TSFitPy and others keep them", recognises, read
)
