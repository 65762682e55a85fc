"""Write a model for other programs, and hold what they will compute against what it computes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from starpayne.bundle import MANIFEST, Model, load_folder, save
from starpayne.emulators import Emulator
from starpayne.errors import BundleError, OutputExistsError, did_you_mean
from starpayne.exporting.npz import reader_of, write_npz
from starpayne.exporting.onnx import write_onnx
from starpayne.files import refuse_foreign, remove

KINDS = ("npz", "onnx", "bfloat16")
"""What a model can be written as."""

COMPARED = 16
"""Label vectors at which an export is compared with its model."""

ALLOWED, ALLOWED_BFLOAT16 = 1e-5, 1e-2
"""Largest difference in flux of an export in float32 and of one whose weights are rounded to bfloat16."""


@dataclass(frozen=True)
class Exported:
    """What :func:`export` wrote.

    Args:
        files: the paths; of ``npz`` the second is its reader.
        mean, largest: difference in flux from the model, at :data:`COMPARED` vectors all over the label range.
    """

    files: tuple[Path, ...]
    mean: float
    largest: float


def export(model: Model, path: str | Path, to: str, overwrite: bool = False) -> Exported:
    """Write a model for other programs, and compare what comes out of it with the model.

    Args:
        model: the model.
        path: file (``npz``, ``onnx``) or folder (``bfloat16``) to write; the reader of ``model.npz`` stands beside it,
            as ``model_reader.py``.
        to: one of :data:`KINDS`.
        overwrite: replace what is there.

    Raises:
        OutputExistsError: something is there.
        BundleError: the kind is not known; there is no reader for the architecture; or the export computes something
            else than the model (what stood at the path stays).
        MissingExtraError: ``onnx`` without its extra.
    """
    if to not in KINDS:
        raise BundleError(f"{to!r} is not known{did_you_mean(to, KINDS)}; a model is exported as {', '.join(KINDS)}")
    path, emulator = Path(path), model.emulator
    files = (path, reader_path(path)) if to == "npz" else (path,)
    for file in files:
        if file.exists() and not overwrite:
            raise OutputExistsError(f"{file} exists; give another path, or --overwrite to replace it")
    if to == "bfloat16":
        refuse_foreign(path, MANIFEST)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside its place until it is known to be right: what stood there is not lost to an export that fails.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        draft = Path(folder) / path.name
        mean, largest = _differences(emulator, _write(model, draft, to))
        allowed = ALLOWED_BFLOAT16 if to == "bfloat16" else max(ALLOWED, _own_rounding(emulator))
        if not largest <= allowed:
            raise BundleError(
                f"exported as {to}, this {emulator.architecture} emulator is off by {largest:.1e} in flux (allowed "
                f"{allowed:.0e}); nothing was kept"
            )
        for file in files:
            remove(file)
            (draft.parent / file.name).rename(file)
    return Exported(files, mean, largest)


def _write(model: Model, path: Path, to: str) -> Callable[[np.ndarray], np.ndarray]:
    """Write an export and return what it computes, labels → (channels, wavelengths)."""
    emulator = model.emulator
    if to == "bfloat16":
        save(model, path, precision="bfloat16")
        rounded = load_folder(path).emulator
        return lambda labels: _spectrum(rounded, labels)
    if to == "npz":
        reader_path(path).write_text(reader_of(emulator), encoding="utf-8")
        return write_npz(emulator, path)
    return write_onnx(emulator, path)


def reader_path(path: Path) -> Path:
    """Return where the reader of an ``.npz`` stands."""
    return path.with_name(f"{path.stem}_reader.py")


def _own_rounding(emulator: Emulator) -> float:
    """Return what float32 does to the emulator itself, where that is more than to others."""
    return emulator.rounding if emulator.rounding > Emulator.rounding else 0.0


def _differences(emulator: Emulator, run: Callable[[np.ndarray], np.ndarray]) -> tuple[float, float]:
    """Return the mean and the largest difference in all channels."""
    rows = emulator.space.sobol(COMPARED, seed=0)
    found = np.stack([run(row) for row in rows])
    expected = np.stack([_spectrum(emulator, row) for row in rows])
    difference = np.abs(found - expected)
    return float(difference.mean()), float(difference.max())


def _spectrum(emulator: Emulator, labels: np.ndarray) -> np.ndarray:
    from starpayne.emulators.base import predict_in_chunks

    return predict_in_chunks(emulator, labels[None], emulator.native_wavelength)[0]
