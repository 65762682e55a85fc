"""Messages between a program and its engine process: a JSON header and raw float64 arrays, each length-prefixed.

Nothing that is received is executed, and sizes are checked before memory is set aside.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

PREFIX = struct.Struct("<II")
"""Bytes of the JSON header, number of arrays."""

SHAPE = struct.Struct("<III")
"""Number of dimensions (1 or 2), and their sizes; the second is 1 for a vector."""

MAX_HEADER = 16_000_000
MAX_ARRAY = 100_000_000


SCRATCH = "STARPAYNE_SCRATCH"
"""Environment variable by which an engine process is told of a folder for its files, which is deleted after it."""


class ProtocolError(RuntimeError):
    """The other side sent something that is not a message."""


def encode(header: Mapping[str, Any], arrays: tuple[np.ndarray, ...] = ()) -> bytes:
    """Return one message as bytes; arrays have one or two dimensions and travel as float64."""
    text = json.dumps(header).encode()
    parts = [PREFIX.pack(len(text), len(arrays)), text]
    for array in arrays:
        values = np.ascontiguousarray(array, dtype="<f8")
        parts.append(SHAPE.pack(values.ndim, *values.shape, *([1] * (2 - values.ndim))))
        parts.append(values.tobytes())
    return b"".join(parts)


def decode(read: Callable[[int], bytes]) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Read one message.

    Args:
        read: returns exactly that many bytes, or raises EOFError.

    Returns:
        the header, and the arrays.

    Raises:
        EOFError: if the other side is gone.
        ProtocolError: if what comes is not a message.
    """
    size, n_arrays = PREFIX.unpack(read(PREFIX.size))
    if size > MAX_HEADER or n_arrays > 8:
        raise ProtocolError(f"a header of {size} bytes with {n_arrays} arrays")
    try:
        header = json.loads(read(size))
    except ValueError as error:
        raise ProtocolError(f"a header that is not JSON: {error}") from error
    arrays = []
    for _ in range(n_arrays):
        n_dimensions, first, second = SHAPE.unpack(read(SHAPE.size))
        if n_dimensions not in (1, 2) or first * second > MAX_ARRAY:
            raise ProtocolError(f"an array of {n_dimensions} dimensions, {first} × {second}")
        values = np.frombuffer(read(8 * first * second), dtype="<f8")
        arrays.append(values.reshape((first, second)[:n_dimensions]).astype(np.float64))
    if not isinstance(header, dict):
        raise ProtocolError("a header that is not an object")
    return header, arrays
