"""FITS files opened with care: sizes are checked against the file before anything is read."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from starpayne.errors import GridError


def is_fits(path: Path) -> bool:
    """Return whether a file begins as FITS files do."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(9) == b"SIMPLE  ="


def read_header(path: Path) -> dict[str, Any]:
    """Return the primary header as keyword → value.

    Raises:
        GridError: if the file is missing or no FITS file.
    """
    from astropy.io import fits

    if not path.is_file():
        raise GridError(f"{path.name} is missing")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = fits.getheader(path, 0)
            return {str(key): header[key] for key in header if key not in ("", "COMMENT", "HISTORY")}
    except Exception as error:  # astropy raises whatever a damaged header leads it to
        raise GridError(f"{path.name} is a damaged FITS file: {_line(error)}") from error


def read_image(path: Path) -> Float64[np.ndarray, " n"]:
    """Return the one-dimensional primary image.

    Raises:
        GridError: if the file is missing, damaged, shorter than it says, or holds something else.
    """
    image = _read(path, lambda hdus: hdus[0])
    if image.ndim != 1:
        raise GridError(f"{path.name} holds an image of shape {image.shape}, not a spectrum")
    return np.asarray(image, dtype=np.float64)


def read_columns_of(path: Path, names: tuple[str, ...]) -> dict[str, Float64[np.ndarray, " n"]]:
    """Return columns of the first binary table, whatever the case of their names.

    Raises:
        GridError: as :func:`read_image`; also if a column is missing.
    """
    table = _read(path, lambda hdus: hdus[1])
    known: Mapping[str, str] = {str(name).lower(): str(name) for name in table.dtype.names or ()}
    missing = [name for name in names if name.lower() not in known]
    if missing:
        raise GridError(f"{path.name} has no column {missing[0]} (columns: {', '.join(known.values()) or 'none'})")
    return {name: np.ravel(np.asarray(table[known[name.lower()]], dtype=np.float64)) for name in names}


def _read(path: Path, choose: Any) -> Any:
    from astropy.io import fits

    if not path.is_file():
        raise GridError(f"{path.name} is missing")
    if not is_fits(path):
        raise GridError(f"{path.name} is no FITS file; one that is compressed has to be unpacked first")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(path, memmap=False) as hdus:
                hdu = choose(hdus)
                # What a header claims is allocated before it is read.
                if hdu.size > path.stat().st_size:
                    raise GridError(f"{path.name} is cut short: its header says {hdu.size:,} bytes of data")
                if (data := hdu.data) is None:
                    raise GridError(f"{path.name} holds no data where the spectrum should be")
                return np.asarray(data)
    except GridError:
        raise
    except Exception as error:  # astropy raises whatever a damaged header leads it to
        raise GridError(f"{path.name} is a damaged FITS file: {_line(error)}") from error


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
