"""Arrays from an ``.npy`` or ``.npz`` file of somebody else: sizes checked before allocation, nothing executed."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from starpayne.errors import BundleError
from starpayne.files import NUMPY_PROBLEMS

MAX_BYTES = 2**30
"""Largest array of a network that is read: the published ones have a few million weights."""


def read_arrays(path: Path, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """Return arrays of an ``.npz`` file by name, as float64; an ``.npy`` file has one, named "".

    Args:
        path: the file.
        names: what to read of an ``.npz``; by default all. Names that it lacks are left out.

    Raises:
        BundleError: the file is missing, truncated, of another kind, holds Python objects or anything but numbers, or
            declares arrays larger than it is.
    """
    if not path.is_file():
        raise BundleError(f"{path} is missing")
    try:
        if not zipfile.is_zipfile(path):
            with path.open("rb") as file:
                if file.read(6) != b"\x93NUMPY":
                    raise BundleError(f"{path} is neither an .npy nor an .npz file, or it is truncated")
                file.seek(0)
                return {"": _array(file, path.stat().st_size, f"{path}")}
        found = {}
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
            for name in entries if names is None else [name for name in names if name in entries]:
                if sum(array.nbytes for array in found.values()) > MAX_BYTES:
                    raise BundleError(f"{path} holds more than the 2**30 bytes of numbers that are read of a file")
                with archive.open(entries[name]) as file:
                    found[name] = _array(file, entries[name].file_size, f"{path}: {name}")
        return found
    except NUMPY_PROBLEMS as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"{path} cannot be read: {error}") from error


def finite_as_float32(array: np.ndarray) -> bool:
    """Return whether all values are finite numbers in single precision, too."""
    with np.errstate(over="ignore"):
        return bool(np.all(np.isfinite(array.astype(np.float32))))


def _array(file: Any, size: int, what: str) -> np.ndarray:
    """Read one array of an open file, after comparing the size that it declares with the bytes that are there."""
    version = np.lib.format.read_magic(file)
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in headers:
        raise BundleError(f"{what} has version {version} of NumPy's format, which holds no plain numbers")
    shape, fortran, dtype = headers[version](file)
    if dtype.kind not in "fiu":
        raise BundleError(f"{what} holds {dtype.name} values, not numbers; Python objects are never read")
    needed, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if needed > MAX_BYTES:
        raise BundleError(f"{what} declares an array of shape {shape}, {needed:,} bytes; the largest read has 2**30")
    if needed > there:
        raise BundleError(f"{what} declares {needed:,} bytes and holds {there:,}: the file is truncated or damaged")
    data = file.read(needed)
    if len(data) != needed:
        raise BundleError(f"{what} ends early: the file is truncated")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C").astype(np.float64)
