"""HDF5 files opened with care: no link leads out of the file, and sizes are checked before anything is allocated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from starpayne.errors import GridError, MissingExtraError

SIGNATURE = b"\x89HDF\r\n\x1a\n"
MAX_VALUES = 500_000_000
"""Numbers in one array that is held in memory."""

_PROBLEMS = (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError)


def is_hdf5(path: Path) -> bool:
    """Return whether a file begins as HDF5 files do (JLD2 files, which are read by Julia alone, do not count)."""
    if not path.is_file() or path.suffix == ".jld2":
        return False
    with path.open("rb") as file:
        return file.read(8) == SIGNATURE


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a file for reading; what goes wrong inside is one sentence.

    Raises:
        MissingExtraError: if h5py is not installed.
        GridError: if the file is missing or damaged.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError(f'h5py is missing ({error}); run: pip install "starpayne[importers]"') from error
    if not path.is_file():
        raise GridError(f"{path} is missing")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except GridError:
        raise
    except _PROBLEMS as error:
        raise GridError(f"{path.name} is a damaged HDF5 file ({type(error).__name__}: {error})") from error


def has(group: Any, *names: str) -> bool:
    """Return whether a group has all of the members."""
    return all(name in group for name in names)


def member(group: Any, name: str) -> Any:
    """Return a direct member of a group, which lies in the same file.

    Raises:
        GridError: if it is missing, or a link that leads elsewhere.
    """
    import h5py

    if not name or "/" in name or name in (".", "..") or name not in group:
        raise GridError(f"{Path(group.file.filename).name} has no {name!r} in {group.name}")
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise GridError(
            f"{Path(group.file.filename).name}: {name!r} is a link that leads elsewhere; it is not followed"
        )
    return group[name]


def dataset(group: Any, name: str) -> Any:
    """Return a dataset of numbers or texts that lies in the same file and can be held in memory.

    Raises:
        GridError: as :func:`member`; also if it is none, too large, or kept in other files.
    """
    import h5py

    found, file = member(group, name), Path(group.file.filename).name
    if not isinstance(found, h5py.Dataset):
        raise GridError(f"{file}: {name!r} is a {type(found).__name__.lower()}, not an array")
    if found.external or found.is_virtual:
        raise GridError(f"{file}: the numbers of {name!r} are kept in other files, which are not opened")
    if found.size is None or found.dtype.kind not in "fiubOSU":
        raise GridError(f"{file}: {name!r} holds no numbers")
    return found


def numbers(group: Any, name: str, dimensions: int) -> Float64[np.ndarray, ...]:
    """Return a whole array of numbers.

    Raises:
        GridError: as :func:`dataset`; also if it has other dimensions or is too large to hold.
    """
    found, file = dataset(group, name), Path(group.file.filename).name
    if found.dtype.kind not in "fiu" or found.ndim != dimensions:
        raise GridError(
            f"{file}: {name!r} has shape {found.shape} of {found.dtype}; {dimensions} dimensions are expected"
        )
    if found.size > MAX_VALUES:
        raise GridError(f"{file}: {name!r} has {found.size:,} numbers, more than the {MAX_VALUES:,} that can be held")
    return np.asarray(found[()], dtype=np.float64)


def texts(values: Any) -> list[str]:
    """Return texts that were stored as bytes or str."""
    return [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in np.ravel(values).tolist()]
