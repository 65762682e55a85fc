"""A spectrum that a visitor hands over: read by the package's own reader, after what could harm is refused."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from starpayne.errors import SpectrumError, StarpayneError, one_line
from starpayne.spectra import ObservedSpectrum

MEGABYTE = 10**6
LARGEST = 20 * MEGABYTE
"""Bytes of a file, and of what it unpacks to."""

GZIP, FITS = b"\x1f\x8b", b"SIMPLE  ="


def safe_name(name: str) -> str:
    """Return a file's name without folders, on one line and not without end: plain text, not HTML.

    Example:
        >>> safe_name("../../etc/star.fits")
        'star.fits'
    """
    plain = one_line(name.replace("\\", "/").rpartition("/")[2]).strip() or "spectrum"
    return plain if len(plain) <= 60 else plain[:45] + "…" + plain[-14:]


def read_upload(name: str, content: bytes) -> ObservedSpectrum:
    """Read an uploaded text or FITS file, either of them also as .gz.

    Args:
        name: as the visitor's browser states it; used in messages alone.
        content: of the file.

    Raises:
        SpectrumError: it is too large, or no spectrum. The text quotes the name: escape it where it is shown.
    """
    shown = safe_name(name)
    if len(content) > LARGEST:
        raise SpectrumError(
            f"{shown} has {len(content) / MEGABYTE:.1f} MB: at most {LARGEST // MEGABYTE} MB can be uploaded; "
            "cut out the part that the model covers, or give the file to --spectrum"
        )
    if content[:2] == GZIP:
        content = _unpacked(shown, content)
    is_fits = content.startswith(FITS)
    if not is_fits and b"\0" in content:
        raise SpectrumError(f"{shown} is neither text nor FITS")
    if is_fits and b"ZIMAGE  =" in content:
        # Its header may claim any size, which is allocated before it is filled.
        raise SpectrumError(f"{shown} holds a compressed FITS image: unpack it first (funpack)")
    with TemporaryDirectory(prefix="starpayne-upload-") as folder:
        path = Path(folder) / ("spectrum.fits" if is_fits else "spectrum.txt")
        path.write_bytes(content)
        try:
            spectrum = ObservedSpectrum.read(path)
        except StarpayneError as error:
            raise SpectrumError(one_line(str(error).replace(path.name, shown))) from error
        except (MemoryError, RecursionError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            # Whatever damaged headers bring a reader to, the page goes on.
            raise SpectrumError(f"{shown} is damaged: {one_line(str(error)) or type(error).__name__}") from error
    return replace(spectrum, name=shown)


def _unpacked(shown: str, content: bytes) -> bytes:
    """Return what a gzip file holds, without ever holding more than is allowed."""
    try:
        with gzip.open(BytesIO(content)) as file:
            data = file.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise SpectrumError(f"{shown} is a damaged gzip file: {error}") from error
    if len(data) > LARGEST:
        raise SpectrumError(
            f"{shown} unpacks to more than {LARGEST // MEGABYTE} MB, which is the most that can be uploaded"
        )
    return data
