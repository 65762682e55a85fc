"""BOSZ: the library of flux standards, as published in 2017 (FITS, ASCII) and in 2024 (text)."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from starpayne.errors import GridError
from starpayne.importers.fitsfiles import read_columns_of
from starpayne.importers.formats import ForeignGrid, ForeignSpectrum, Format, ImportOptions, stated_medium
from starpayne.importers.surface import check_energy
from starpayne.importers.tables import match_files, natural, read_table
from starpayne.importers.text import read_numbers

NAMES = ("teff", "logg", "feh", "alpha_fe", "c_fe", "vmic")

NEW = re.compile(
    r"bosz2024_(?P<atmosphere>[a-z]{2})_t(?P<teff>\d+)_g(?P<logg>[+-][\d.]+)_m(?P<feh>[+-][\d.]+)_a(?P<alpha_fe>[+-][\d.]+)"
    r"_c(?P<c_fe>[+-][\d.]+)_v(?P<vmic>\d+)_r(?P<resolution>\d+|orig)_(?:no)?resam\.txt(?:\.gz)?"
)
"""bosz2024_mp_t5000_g+5.0_m+0.00_a+0.00_c+0.00_v0_r10000_resam.txt.gz"""

OLD = re.compile(
    r"am(?P<feh>[mp]\d\d)c(?P<c_fe>[mp]\d\d)o(?P<alpha_fe>[mp]\d\d)t(?P<teff>\d+)g(?P<logg>\d\d)v(?P<vmic>\d\d)modrt(?P<vsini>\d+)"
    r"b(?P<resolution>\d+)rs\.(?P<kind>fits|asc|asc\.bz2)"
)
"""amm03cp00op03t5000g45v20modrt0b50000rs.fits"""

FACTOR_2017 = np.pi
"""The column SpecificIntensity is a surface brightness H with F = π H (Bohlin et al. 2017, eq. 2)."""

FACTOR_2024 = 4 * np.pi
"""The columns are Eddington fluxes H with F = 4π H (Mészáros et al. 2024)."""

PROVENANCE = {
    2017: {
        "engine": "SYNTHE", "library": "BOSZ 2017", "atmosphere": "ATLAS9",
        "unit": "surface brightness H, F = π H", "cite": "Bohlin et al. 2017, AJ 153, 234",
    },
    2024: {
        "engine": "Synspec", "library": "BOSZ 2024", "atmosphere": "MARCS below 8000 K, ATLAS9 above",
        "unit": "Eddington flux H, F = 4π H", "cite": "Mészáros et al. 2024, A&A 688, A197",
    },
}  # fmt: skip


def recognises(source: Path) -> bool:
    return source.is_dir() and any(_is_bosz(path.name) for path in source.rglob("*"))


def read(source: Path, options: ImportOptions) -> ForeignGrid:
    """Read a folder of spectra of one publication and one resolution, with or without subfolders.

    Labels come from the names of the files: [M/H] as feh, [α/M] as alpha_fe, [C/M] as c_fe. Spectra of 2024 that are
    resampled need their file of wavelengths (bosz2024_wave_r10000.txt), there, above, or in ``wavelength_grids``.

    Raises:
        GridError: for a mixture, no spectrum, or no wavelengths.
    """
    medium = stated_medium(options, "vacuum", "BOSZ")
    found = sorted((path for path in source.rglob("*") if _is_bosz(path.name)), key=natural)
    if not found:
        raise GridError(f"{source} holds no spectra of BOSZ, by their names")
    parsed = [_parsed(path.name) for path in found]
    for name in ("year", "resolution", "vsini"):
        if len(several := sorted({facts[name] for facts in parsed})) > 1:
            listed = ", ".join(f"{x:g}" for x in several)
            raise GridError(f"{source} mixes spectra of {name} {listed}; import one of them at a time")
    year, resolution = int(parsed[0]["year"]), parsed[0]["resolution"]
    names, files = NAMES, found
    labels = np.array([[facts[name] for name in NAMES] for facts in parsed])
    if options.labels is not None:
        table = read_table(options.labels)
        names, (files, labels) = table.names, match_files(table, source, found)
    spectrum = _reader_2017() if year == 2017 else _reader_2024(source, found[0].name)
    factor = FACTOR_2017 if year == 2017 else FACTOR_2024
    teff = labels[:, names.index("teff")] if "teff" in names else None

    def row(i: int) -> ForeignSpectrum:
        read = spectrum(files[i])
        if teff is not None and np.all(np.isfinite(read.flux)):
            check_energy(read.wavelength, read.flux * factor, float(teff[i]), files[i].name)
        return read

    return ForeignGrid(
        names=names,
        labels=labels,
        files=tuple(path.name for path in files),
        medium=medium,
        row=row,
        absolute=True,
        scale=factor,
        resolution=resolution if np.isfinite(resolution) else None,
        physics=("lte", "plane_parallel"),
        provenance=PROVENANCE[year],
    )


def _is_bosz(name: str) -> bool:
    return (NEW.fullmatch(name) or OLD.fullmatch(name)) is not None


def _parsed(name: str) -> dict[str, float]:
    """Return labels, resolution (infinite for none), rotation and year that a file's name says."""
    if (new := NEW.fullmatch(name)) is not None:
        facts = {label: float(new[label]) for label in NAMES}
        broadened = new["resolution"] != "orig"
        return {**facts, "resolution": float(new["resolution"]) if broadened else np.inf, "vsini": 0.0, "year": 2024.0}
    old = OLD.fullmatch(name)
    assert old is not None, name
    return {
        "teff": float(old["teff"]), "logg": float(old["logg"]) / 10, "vmic": float(old["vmic"]) / 10,
        "feh": _quarter(old["feh"]), "alpha_fe": _quarter(old["alpha_fe"]), "c_fe": _quarter(old["c_fe"]),
        "resolution": float(old["resolution"]), "vsini": float(old["vsini"]), "year": 2017.0,
    }  # fmt: skip


def _quarter(text: str) -> float:
    """Return an abundance, which names give in rounded tenths and the library has at every 0.25: m03 is −0.25."""
    return (-1 if text[0] == "m" else 1) * round(int(text[1:]) / 2.5) / 4 + 0.0


def _reader_2017() -> Callable[[Path], ForeignSpectrum]:
    columns = ("Wavelength", "SpecificIntensity", "Continuum")

    def read(path: Path) -> ForeignSpectrum:
        if path.suffix == ".fits":
            table = read_columns_of(path, columns)
            return ForeignSpectrum(*(table[name] for name in columns))
        values = read_numbers(path, (3,))
        return ForeignSpectrum(values[:, 0], values[:, 1], values[:, 2])

    return read


def _reader_2024(source: Path, name: str) -> Callable[[Path], ForeignSpectrum]:
    match = NEW.fullmatch(name)
    if match is None or match["resolution"] == "orig":

        def read_whole(path: Path) -> ForeignSpectrum:
            values = read_numbers(path, (3,))
            return ForeignSpectrum(values[:, 0], values[:, 1], values[:, 2])

        return read_whole
    wanted = f"bosz2024_wave_r{match['resolution']}.txt"
    folders = [f for place in (source, *source.resolve().parents[:3]) for f in (place, place / "wavelength_grids")]
    grid = next((f / wanted for f in folders if (f / wanted).is_file()), None) or next(source.rglob(wanted), None)
    if grid is None:
        raise GridError(f"{wanted} is neither in {source} nor above it; BOSZ publishes it in wavelength_grids/")
    wavelength = read_numbers(grid, (1,))[:, 0]

    def read(path: Path) -> ForeignSpectrum:
        values = read_numbers(path, (2,))
        if len(values) != len(wavelength):
            raise GridError(f"{len(values)} fluxes and {len(wavelength)} wavelengths of {grid.name}")
        return ForeignSpectrum(wavelength, values[:, 0], values[:, 1])

    return read


FORMAT = Format(
    "bosz", "grid", "BOSZ of 2017 (FITS, ASCII) or 2024 (text with its file of wavelengths)", recognises, read
)
