"""``starpayne import``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from starpayne.cli.app import Json, Overwrite, write_result


def register(app: typer.Typer) -> None:
    app.command("import")(import_)


def import_(
    source: Annotated[
        Path, typer.Argument(help="Folder of labels.npy, wavelength.npy (Å), flux.npy or flux.npz, and grid.json.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="GRID", help="Grid folder to make.")],
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Import somebody else's grid of normalised spectra.

    Example: starpayne import korg_flux --out korg.zarr
    """
    from starpayne.importing import import_folder

    grid = import_folder(source, out, overwrite=overwrite)
    wavelength = grid.wavelength
    typer.echo(
        f"{out}: {len(grid.labels)} spectra, {len(wavelength)} wavelengths "
        f"{wavelength[0]:.2f} to {wavelength[-1]:.2f} Å ({grid.medium}), labels {', '.join(grid.space.names)}"
    )
    write_result(json, {"grid": str(out), "n_spectra": len(grid.labels), "labels": list(grid.space.names)})
