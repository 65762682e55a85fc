"""Read a pickle that holds nothing but NumPy arrays, plain containers and numbers, running none of its code."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from starpayne.errors import SynthesisError

_ARRAY_MODULES = ("numpy.core._multiarray_umath", "numpy.core.multiarray", "numpy._core.multiarray")


def _import_module(name: str) -> str:
    """Stand in for dill's importer: hand the name on and import nothing."""
    return name


def _get_attr(module: Any, name: Any) -> Callable[..., Any]:
    """Stand in for dill's getattr: the one function that it may look up is the array constructor."""
    if module in _ARRAY_MODULES and name == "_reconstruct":
        return _array
    raise pickle.UnpicklingError(f"{module}.{name}")


def _array(kind: Any, *_: Any) -> np.ndarray:
    """Do what NumPy's own constructor does: make an empty array, whose state the pickle sets next."""
    if kind is not np.ndarray:
        raise pickle.UnpicklingError(f"array subclass {kind}")
    return np.ndarray((0,), dtype=np.int8)


def _dtype(code: Any, align: Any = False, copy: Any = False) -> np.dtype:
    """Build a dtype of numbers only: an object array could hold anything."""
    dtype = np.dtype(str(code))
    if dtype.kind not in "biuf":
        raise pickle.UnpicklingError(f"array of {code}")
    return dtype


_ALLOWED: dict[tuple[str, str], Any] = {
    ("dill._dill", "_get_attr"): _get_attr,
    ("dill._dill", "_import_module"): _import_module,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    **{(module, "_reconstruct"): _array for module in _ARRAY_MODULES},
}


class _ArraysOnly(pickle.Unpickler):
    """Maps the names that an array pickle mentions onto harmless functions and refuses every other name."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return _ALLOWED[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module_name}.{global_name}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("persistent object")


def load_arrays(path: Path) -> Any:
    """Return the lists, dicts, numbers and arrays of a pickle file.

    Raises:
        SynthesisError: if the file names anything that is not needed to build a NumPy array of numbers, or is damaged.
    """
    try:
        return _ArraysOnly(io.BytesIO(path.read_bytes())).load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise SynthesisError(
            f"{path.name} cannot be read: it must hold arrays of numbers and nothing else ({error}); "
            "reinstall the package it belongs to"
        ) from error
