"""Reading spectra from text and FITS files: what the columns are called, and what the headers say."""

from __future__ import annotations

import gzip
import re
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from starpayne.errors import SpectrumError

WAVELENGTH_NAMES = ("wave", "lambda", "lam", "wl", "angstrom", "spectral_axis")
FLUX_NAMES = ("flux", "norm", "intensity", "counts", "spec")
ERROR_NAMES = ("err", "sigma", "unc", "std", "noise", "e_")
IVAR_NAMES = ("ivar", "inverse_var", "invvar", "weight")

OWN = re.compile(r"# wavelength in Angstrom \((air|vacuum)\)")
"""How ``starpayne predict`` begins a text file."""

_UNITS = {
    "angstrom": "angstrom", "angstroms": "angstrom", "aa": "angstrom", "a": "angstrom",
    "0.1 nm": "angstrom", "0.1nm": "angstrom",
    "nm": "nm", "nanometer": "nm", "nanometers": "nm", "nanometre": "nm",
    "um": "micron", "micron": "micron", "microns": "micron", "micrometer": "micron", "µm": "micron",
    "m": "m", "meter": "m", "meters": "m", "metre": "m", "metres": "m",
}  # fmt: skip


@dataclass(frozen=True)
class Columns:
    """What a file holds: arrays (n,), and unit (one of ``spectra.UNITS``) and medium where it states them.

    ``mask`` is True where a pixel may be used; None where nothing is said.
    """

    wavelength: np.ndarray
    flux: np.ndarray
    error: np.ndarray | None
    unit: str | None = None
    medium: str | None = None
    mask: np.ndarray | None = None


class _SeveralSpectraError(Exception):
    """A file with many spectra, where one was asked for."""


def read_columns(path: Path) -> Columns:
    """Read a text or FITS file.

    Raises:
        SpectrumError: the file is missing, unreadable or holds no spectrum.
    """
    if path.is_dir():
        raise SpectrumError(f"{path} is a folder: give its files, such as {path}/*")
    if not path.is_file():
        raise SpectrumError(f"no file at {path}")
    try:
        with path.open("rb") as file:
            head = file.read(16)
        if head[:2] == b"\x1f\x8b":
            with gzip.open(path, "rb") as file:
                head = file.read(16)
    except OSError as problem:
        raise SpectrumError(f"{path.name} cannot be read: {problem}") from problem
    return _read_fits(path) if head.startswith(b"SIMPLE  =") else _read_text(path)


def _read_text(path: Path) -> Columns:
    from astropy.io import ascii as tables

    # Plain numbers first: guessing a format takes a second on a long file.
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            text = [line for line in file if line.strip()]
            lines = [line for line in text if not line.lstrip().startswith(("#", "%", "!"))]
    except (OSError, UnicodeDecodeError) as problem:
        raise SpectrumError(f"{path.name} is neither text nor FITS") from problem
    if not lines:
        raise SpectrumError(f"{path.name} is empty")
    separator = "," if "," in lines[0] else None
    names = [word.strip().strip('"') for word in lines[0].split(separator)]
    if all(_is_number(word) for word in names):
        names = []
    try:
        body = lines[1:] if names else lines
        array = np.array([line.split(separator) for line in body], dtype=np.float64)
        if array.ndim != 2 or (names and array.shape[1] != len(names)):
            raise ValueError("rows of different length")
        units: list[str | None] = [None] * array.shape[1]
    except ValueError:
        # Fixed width, ECSV, CDS tables, missing values, …
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                table: Any = tables.read(str(path))
            names = list(table.colnames)
            columns = [np.ma.filled(np.ma.asarray(table[n], np.float64), np.nan) for n in names]
            array, units = np.stack(columns, axis=1), [str(table[n].unit) if table[n].unit else None for n in names]
            names = [] if names[0].startswith("col1") else names
        except Exception as problem:  # astropy raises whatever its last reader did
            raise SpectrumError(
                f"{path.name} is not a table of wavelength, flux and error: {first_line(problem)}"
            ) from problem
    if array.shape[1] < 2 or len(array) < 2:
        raise SpectrumError(
            f"{path.name} holds {array.shape[1]} column(s) of {len(array)} row(s): a spectrum needs wavelength and flux"
        )
    columns = choose(path, names, [array[:, i] for i in range(array.shape[1])], units)
    stated = OWN.match(text[0])
    if stated is None:
        return columns
    return replace(columns, unit=columns.unit or "angstrom", medium=columns.medium or stated.group(1))


def choose(path: Path, names: list[str], arrays: list[np.ndarray], units: list[str | None]) -> Columns:
    """Find wavelength, flux and error among columns: by name, or by order where they have none.

    Raises:
        SpectrumError: if no name is recognised.
    """
    lower = [name.lower() for name in names]

    def find(known: tuple[str, ...], taken: tuple[int | None, ...] = ()) -> int | None:
        for word in known:
            for i, name in enumerate(lower):
                if i not in taken and name.startswith(word):
                    return i
        return None

    if not names:
        return Columns(arrays[0], arrays[1], arrays[2] if len(arrays) > 2 else None)
    log = find(("loglam", "log_lam", "logwave", "log_wave"))
    wave = log if log is not None else find(WAVELENGTH_NAMES)
    flux = find(FLUX_NAMES, (wave,))
    if wave is None or flux is None:
        raise SpectrumError(
            f"{path.name}: no column of {', '.join(names)} is recognised as "
            f"{'wavelength (wave…, lambda)' if wave is None else 'flux'}; rename it"
        )
    error_at, ivar_at = find(ERROR_NAMES, (wave, flux)), find(IVAR_NAMES, (wave, flux))
    if error_at is None:
        error_at = next((i for i, name in enumerate(lower) if i not in (wave, flux) and "err" in name), None)
    error = None
    if error_at is not None:
        error = arrays[error_at]
    elif ivar_at is not None:
        ivar = arrays[ivar_at]
        error = np.where(ivar > 0, 1 / np.sqrt(np.where(ivar > 0, ivar, 1)), np.nan)
    unit = _unit(units[wave])
    if unit is None:
        unit = next((u for key, u in _UNITS.items() if len(key) > 1 and u != "m" and key in lower[wave]), None)
    wavelength = arrays[wave]
    if log is not None:
        wavelength, unit = 10**wavelength, unit or "angstrom"
    medium = "vacuum" if "vac" in lower[wave] else "air" if "air" in lower[wave] else None
    return Columns(wavelength, arrays[flux], error, unit, medium)


def _read_fits(path: Path) -> Columns:
    from astropy.io import fits

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(path, memmap=False) as hdus:
                for hdu in list(hdus):
                    data, header = hdu.data, hdu.header
                    if data is None:
                        continue
                    if getattr(data, "names", None):
                        try:
                            return _from_table(path, data, header)
                        except SpectrumError:
                            continue
                    if data.squeeze().ndim == 1 and "CRVAL1" in header:
                        return _from_image(data.squeeze(), header)
    except _SeveralSpectraError as problem:
        raise SpectrumError(str(problem)) from None
    except Exception as problem:  # astropy raises whatever a damaged header leads it to
        raise SpectrumError(f"{path.name} is a damaged FITS file: {first_line(problem)}") from problem
    return _from_specutils(path)


def _from_image(data: np.ndarray, header: Any) -> Columns:
    axis, unit = image_axis(header, len(data))
    kind = str(header.get("CTYPE1", "")).strip().upper()
    return Columns(axis, np.asarray(data, np.float64), None, unit, stated_medium(header, kind))


def image_axis(header: Any, n: int) -> tuple[np.ndarray, str | None]:
    """Return the wavelengths (n,) that the header of an image gives its first axis, and their unit.

    Raises:
        SpectrumError: for a header without a step.
    """
    step = header.get("CDELT1", header.get("CD1_1"))
    if step is None:
        raise SpectrumError("the FITS image has CRVAL1 but neither CDELT1 nor CD1_1: its wavelengths are not defined")
    axis = header["CRVAL1"] + step * (np.arange(n) + 1 - header.get("CRPIX1", 1.0))
    kind = str(header.get("CTYPE1", "")).strip().upper()
    unit = _unit(header.get("CUNIT1")) or _unit(kind)
    if "LOG" in kind or header.get("DC-FLAG") == 1 or np.all(np.abs(axis) < 5):
        axis, unit = 10.0**axis, unit or "angstrom"
    return axis, unit


def _from_table(path: Path, data: Any, header: Any) -> Columns:
    names = [str(name) for name in data.names]
    units = [column.unit for column in data.columns]
    many = [len(data[name]) for name in names if np.ndim(data[name]) == 2 and len(data[name]) > 1]
    if many:
        raise _SeveralSpectraError(f"{path.name} holds {many[0]} spectra: give it alone, not beside other files")
    arrays = [np.ravel(np.asarray(data[name], np.float64)) if _numeric(data[name]) else None for name in names]
    keep = [i for i, array in enumerate(arrays) if array is not None]
    columns = choose(path, [names[i] for i in keep], [a for a in arrays if a is not None], [units[i] for i in keep])
    medium = columns.medium or stated_medium(header, "")
    return Columns(columns.wavelength, columns.flux, columns.error, columns.unit, medium)


def _from_specutils(path: Path) -> Columns:
    try:
        import specutils
    except ImportError as problem:
        raise SpectrumError(
            f"{path.name}: no 1-D image with CRVAL1 and no table with wavelength and flux; "
            "`pip install starpayne[spectra]` lets specutils try other layouts"
        ) from problem
    reader = getattr(specutils, "Spectrum", None) or specutils.Spectrum1D
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return specutils_columns(reader.read(str(path)))
    except Exception as problem:  # each of its loaders raises its own kind
        raise SpectrumError(f"{path.name} holds no spectrum that can be recognised: {first_line(problem)}") from problem


def specutils_columns(spectrum: Any) -> Columns:
    """Return the arrays of a ``specutils.Spectrum`` (or ``Spectrum1D``) of one star, in order of wavelength.

    Raises:
        SpectrumError: for something else, several spectra in one object, or a spectral axis without wavelengths.
    """
    try:
        wavelength = np.asarray(spectrum.spectral_axis.to_value("Angstrom"), np.float64)
        flux = np.asarray(spectrum.flux.value, np.float64)
        uncertainty, bad = spectrum.uncertainty, spectrum.mask
    except (AttributeError, ValueError) as problem:
        raise SpectrumError(
            f"{type(spectrum).__name__} cannot be read as a spectrum ({problem}): give a specutils.Spectrum with "
            "wavelengths"
        ) from problem
    if flux.ndim != 1:
        raise SpectrumError(f"flux has shape {flux.shape}: give one spectrum at a time")
    error = None
    if uncertainty is not None:
        error = _to_sigma(np.asarray(uncertainty.array, np.float64), uncertainty.uncertainty_type)
    order = np.argsort(wavelength)
    return Columns(
        wavelength[order],
        flux[order],
        None if error is None else error[order],
        "angstrom",
        None,
        None if bad is None else ~np.asarray(bad, bool)[order],
    )


def stated_medium(header: Any, kind: str) -> str | None:
    """Return the medium by the FITS standard: CTYPE1 = AWAV is air, WAVE is vacuum (Greisen et al. 2006)."""
    if kind.startswith("AWAV"):
        return "air"
    if kind.startswith("WAVE") and kind[4:5] in ("", "-"):
        return "vacuum"
    stated = header.get("VACUUM")
    if isinstance(stated, (bool, int)):
        return "vacuum" if stated else "air"
    stated = str(header.get("AIRORVAC", "")).strip().lower()
    return {"air": "air", "vac": "vacuum", "vacuum": "vacuum"}.get(stated)


def _unit(text: Any) -> str | None:
    return _UNITS.get(str(text).strip().lower()) if text else None


def _numeric(array: Any) -> bool:
    return np.asarray(array).dtype.kind in "fiu"


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def first_line(problem: Exception) -> str:
    """Return the first line of an exception's text, or its kind where it has none."""
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0]


def _to_sigma(values: np.ndarray, kind: str) -> np.ndarray:
    """Return standard deviations of astropy's kinds of uncertainty: std, var, ivar."""
    if kind == "std":
        return values
    with np.errstate(divide="ignore", invalid="ignore"):
        if kind == "var":
            return np.sqrt(values)
        if kind == "ivar":
            return 1 / np.sqrt(values)
    raise SpectrumError(f"uncertainty of type {kind!r} is not known; give std, var or ivar")
