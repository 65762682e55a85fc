"""Other people's grids: a folder of NumPy files and ``grid.json`` becomes a starpayne grid."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from starpayne.errors import GridError, StarpayneError
from starpayne.files import NUMPY_PROBLEMS, read_json
from starpayne.grid import Grid, Split
from starpayne.importers.building import build_grid
from starpayne.importers.formats import ForeignGrid, ForeignSpectrum, Format, ImportOptions
from starpayne.labels import LabelSpace
from starpayne.wavelengths import check_medium, check_wavelength


def import_folder(source: str | Path, path: str | Path, overwrite: bool = False) -> Grid:
    """Import a folder of ``labels.npy``, ``wavelength.npy``, ``flux.npy`` or ``flux.npz``, and ``grid.json``.

    ``grid.json`` names the labels with units and bounds, ``constraints``, the ``medium`` of the wavelengths (in Å),
    the ``flux`` file with its ``key`` (in an ``.npz``) and ``scale``, the ``split`` (``train_order``, ``validation``,
    ``test``) and the ``provenance``; ``labels_file`` renames the label file. A continuum given at the first and last
    pixel (``continuum.file``) is interpolated linearly between them.

    Args:
        source: the folder.
        path: the grid to make.
        overwrite: replace what stands at ``path``.

    Returns:
        the grid.

    Raises:
        GridError: a file is missing or damaged, shapes do not agree, or the flux is not normalised.
    """
    return build_grid(read(Path(source)), Path(path), ImportOptions(), overwrite)


def recognises(source: Path) -> bool:
    return (source / "grid.json").is_file()


def read(source: Path, options: ImportOptions = ImportOptions()) -> ForeignGrid:  # noqa: B008  (frozen)
    """Read a folder with ``grid.json``, which says everything but a window and a sampling.

    Raises:
        GridError: as :func:`import_folder`; also if the options say what ``grid.json`` says.
    """
    if not source.is_dir():
        raise GridError(f"no folder at {source}")
    for name in ("labels", "medium", "resolution"):
        if getattr(options, name) is not None:
            raise GridError(f"--{name} is not used here: {source / 'grid.json'} says it")
    facts = read_json(source / "grid.json", GridError)
    try:
        return _read(source, facts)
    except StarpayneError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise GridError(f"{source / 'grid.json'} cannot be used ({type(error).__name__}: {error})") from error


def _read(source: Path, facts: Mapping[str, Any]) -> ForeignGrid:
    space = LabelSpace.from_dict(facts)
    labels = np.asarray(_array(source, str(facts.get("labels_file", "labels.npy"))), dtype=np.float64)
    wavelength = check_wavelength(_array(source, "wavelength.npy"))
    medium = check_medium(_required(facts, "medium", source))
    unit = str(facts.get("wavelength_unit", "Angstrom"))
    if unit.lower() not in ("angstrom", "å"):
        raise GridError(f"{source}: wavelength_unit = {unit!r}; only 'Angstrom' can be imported")
    flux = _flux(source, facts)
    if labels.ndim != 2 or len(labels) == 0:
        raise GridError(f"{source} holds an empty grid: labels have shape {labels.shape}")
    expected = (len(labels), len(wavelength))
    if flux.shape != expected or labels.shape[1] != len(space):
        raise GridError(
            f"{source}: flux has shape {flux.shape} and labels {labels.shape}; "
            f"{len(space)} labels and {len(wavelength)} wavelengths are described"
        )
    if not np.all(np.isfinite(flux)):
        row = int(np.flatnonzero(~np.all(np.isfinite(flux), axis=1))[0])
        raise GridError(f"{source}: the flux of spectrum {row} is not finite")
    highest = float(np.median(np.max(flux, axis=1)))
    if not 0.1 < highest < 1.5:
        raise GridError(f"{source}: the flux is not normalised (its median maximum is {highest:g})")
    continuum = _continuum(source, facts, wavelength, len(labels))
    split = _split(facts, len(labels))
    split.check(len(labels))
    space.check(labels)
    resolution = facts.get("resolution")
    return ForeignGrid(
        names=space.names,
        labels=labels,
        files=tuple(f"spectrum {i}" for i in range(len(labels))),
        medium=medium,
        row=lambda i: ForeignSpectrum(wavelength, flux[i], None if continuum is None else continuum[i]),
        absolute=False,
        scale=1.0,
        resolution=None if resolution is None else float(resolution),
        provenance=_provenance(facts),
        space=space,
        split=split,
    )


def _required(facts: Mapping[str, Any], key: str, source: Path) -> Any:
    if key not in facts:
        raise GridError(f"{source / 'grid.json'} does not say {key!r}")
    return facts[key]


def _array(source: Path, name: str, key: str | None = None) -> np.ndarray:
    # A name from a file must not lead out of its folder.
    path = source / Path(name).name
    if not path.is_file():
        raise GridError(f"{path} is missing")
    try:
        loaded = np.load(path, allow_pickle=False)
        return loaded if isinstance(loaded, np.ndarray) else loaded[key or loaded.files[0]]
    except NUMPY_PROBLEMS as error:
        raise GridError(f"{path} cannot be read: {error}") from error


def _flux(source: Path, facts: Mapping[str, Any]) -> np.ndarray:
    stated = facts.get("flux", {})
    if stated.get("kind", "normalised") != "normalised":
        raise GridError(f"{source}: flux of kind {stated['kind']!r}; only 'normalised' flux can be imported")
    name = stated.get("file") or ("flux.npz" if (source / "flux.npz").exists() else "flux.npy")
    return _array(source, name, stated.get("key")).astype(np.float32) * np.float32(stated.get("scale", 1.0))


def _continuum(source: Path, facts: Mapping[str, Any], wavelength: np.ndarray, n: int) -> np.ndarray | None:
    stated = facts.get("continuum")
    if not stated:
        return None
    values = _array(source, stated["file"])
    if values.shape == (n, len(wavelength)):
        return values.astype(np.float32)
    if values.shape != (n, 2):
        raise GridError(f"{source}: the continuum has shape {values.shape}, not {(n, len(wavelength))} or {(n, 2)}")
    fraction = (wavelength - wavelength[0]) / (wavelength[-1] - wavelength[0])
    return (values[:, :1] + (values[:, 1:] - values[:, :1]) * fraction).astype(np.float32)


def _split(facts: Mapping[str, Any], n: int) -> Split:
    stated = facts.get("split")
    if stated is None:
        # No split given: the usual one of a designed grid.
        held = max(1, n // 10)
        return Split.last_rows(n, held, held)
    train = stated.get("train_order", stated.get("train", ()))
    return Split(tuple(train), tuple(stated.get("validation", ())), tuple(stated.get("test", ())))


def _provenance(facts: Mapping[str, Any]) -> dict[str, Any]:
    provenance = dict(facts.get("provenance", {}))
    if "physics" not in provenance or isinstance(provenance["physics"], str):
        text = str(provenance.pop("physics", "")).lower().replace("-", " ")
        provenance["physics_text"] = text
        known = {"no molecules": "no_molecules", "lte": "lte", "plane parallel": "plane_parallel"}
        provenance["physics"] = [flag for words, flag in known.items() if words in text.replace("nlte", "")]
    return {"name": facts.get("name", ""), **provenance}


FORMAT = Format(
    "folder", "grid", "labels, wavelengths and normalised flux in NumPy files, and grid.json", recognises, read
)
