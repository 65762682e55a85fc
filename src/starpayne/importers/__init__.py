"""Other people's grids and networks: whatever format a file has, a starpayne grid or model comes out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from starpayne.errors import GridError, did_you_mean
from starpayne.grid import Grid
from starpayne.importers import (
    aet,
    arrays,
    bosz,
    folder,
    korg,
    payne_network,
    payne_training,
    phoenix,
    spectra,
    starfish,
    turbospectrum,
)
from starpayne.importers.building import build_grid
from starpayne.importers.folder import import_folder
from starpayne.importers.formats import ForeignGrid, ForeignSpectrum, Format, ImportOptions

if TYPE_CHECKING:
    from starpayne.bundle import Model

FORMATS: tuple[Format, ...] = (
    # Trained networks, before the spectra.
    payne_network.FORMAT,
    aet.FORMAT,
    folder.FORMAT,
    payne_training.FORMAT,
    starfish.FORMAT,
    korg.FORMAT,
    phoenix.FORMAT,
    bosz.FORMAT,
    turbospectrum.FORMAT,
    arrays.FORMAT,
    # Any folder with readable spectra: last, as it would take the files of others too.
    spectra.FORMAT,
)
"""All formats, in the order in which they are tried."""


def import_any(
    source: str | Path,
    path: str | Path,
    *,
    format: str | None = None,
    options: ImportOptions = ImportOptions(),  # noqa: B008  (frozen)
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Grid | Model:
    """Import spectra as a grid, or a trained network as a model, from one of ``FORMATS``.

    Args:
        source: a file or folder.
        path: the grid or model to make.
        format: name of its format; by default it is recognised.
        options: what the files do not say.
        overwrite: replace what stands at ``path``.
        progress: called with the number of spectra done and of all.

    Raises:
        GridError: if no format is recognised, or the source cannot be used.
        OutputExistsError: if the path exists and ``overwrite`` is not set.

    Example:
        ``import_any("PHOENIX", "phoenix.zarr", options=ImportOptions(low=5000, high=5500))``
    """
    source, path = Path(source), Path(path)
    if not source.exists():
        raise GridError(f"no file or folder at {source}")
    chosen = recognise(source) if format is None else named_format(format)
    found = chosen.read(source, options)
    if isinstance(found, ForeignGrid):
        return build_grid(found, path, options, overwrite, progress)
    from starpayne import bundle

    bundle.save(found, path, overwrite)
    return found


def named_format(name: str) -> Format:
    """Return the format of this name.

    Raises:
        GridError: for an unknown one, with the names there are.
    """
    for known in FORMATS:
        if known.name == name:
            return known
    names = [known.name for known in FORMATS]
    raise GridError(f"format {name!r} is not known{did_you_mean(name, names)} (formats: {', '.join(names)})")


def recognise(source: Path) -> Format:
    """Return the first format that takes a file or folder for its own.

    Raises:
        GridError: if it is a starpayne grid already, a JLD2 file, or of no known format.
    """
    if (source / "zarr.json").is_file():
        raise GridError(f"{source} is a Zarr store: a starpayne grid needs no import")
    for known in FORMATS:
        if known.recognises(source):
            return known
    julia = source if source.suffix == ".jld2" else next(iter(sorted(source.glob("*.jld2"))), None)
    if julia is not None:
        raise GridError(korg.JLD2.format(path=julia))
    raise GridError(
        f"{source} is of no format that is recognised; say which with --format "
        f"({', '.join(known.name for known in FORMATS)})"
    )


__all__ = [
    "FORMATS", "ForeignGrid", "ForeignSpectrum", "Format", "ImportOptions", "build_grid", "import_any",
    "import_folder", "named_format", "recognise",
]  # fmt: skip
