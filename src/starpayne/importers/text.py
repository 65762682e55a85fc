"""Columns of numbers in text files, plain or compressed."""

from __future__ import annotations

import bz2
import gzip
import io
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from starpayne.errors import GridError

MAX_TEXT = 2**30
"""Bytes of one text file, unpacked: a bomb of a few kB must not fill the memory."""


def read_numbers(path: Path, columns: tuple[int, ...]) -> Float64[np.ndarray, "rows columns"]:
    """Return the numbers in a text file, separated by blanks or commas; # begins a comment, a line of names is passed.

    Args:
        path: plain, or compressed as .gz or .bz2.
        columns: numbers of columns it may have.

    Raises:
        GridError: if it is missing, cannot be unpacked, is too large, or has other columns, or something else in them.
    """
    text = read_text(path)
    start = _names_end(text)
    body = text[start:]
    first = next((x for x in body.splitlines() if x.strip() and not x.lstrip().startswith("#")), "") if body else ""
    try:
        array = np.loadtxt(io.StringIO(body), comments="#", delimiter="," if "," in first else None, ndmin=2)
    except ValueError as error:
        raise GridError(f"{path.name} is no table of numbers: {str(error).splitlines()[0]}") from error
    if array.size == 0:
        raise GridError(f"{path.name} is empty")
    if array.shape[1] not in columns:
        wanted = " or ".join(map(str, columns))
        raise GridError(f"{path.name} has {array.shape[1]} columns of numbers, and {wanted} are expected")
    return array


def read_text(path: Path, size: int | None = None) -> str:
    """Return the text of a file, or its first characters.

    Raises:
        GridError: if it is missing, no text, too large, or cannot be unpacked.
    """
    if not path.is_file():
        raise GridError(f"{path.name} is missing")
    try:
        with _opened(path) as file:
            data = file.read(MAX_TEXT + 1 if size is None else size)
        if size is None and len(data) > MAX_TEXT:
            raise GridError(f"{path.name} unpacks to more than {MAX_TEXT // 2**20} MB")
        return data.decode("utf-8", errors="strict" if size is None else "ignore")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        if isinstance(error, GridError):
            raise
        raise GridError(f"{path.name} cannot be read ({type(error).__name__}: {error})") from error


def _opened(path: Path) -> io.BufferedIOBase:
    if path.suffix == ".gz":
        return gzip.open(path, "rb")
    return bz2.open(path, "rb") if path.suffix == ".bz2" else path.open("rb")


def _names_end(text: str) -> int:
    """Return where the numbers begin: after comments, and after one line of column names if there is one."""
    start = 0
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        line = text[start:end].strip()
        if line and not line.startswith("#"):
            word = line.replace(",", " ").split()[0].replace("D", "E")
            try:
                float(word)
            except ValueError:
                return end
            return start
        start = end
    return start
