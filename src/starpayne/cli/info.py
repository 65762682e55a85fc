"""``starpayne info`` and ``starpayne verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from starpayne.cli.app import Json, write_result
from starpayne.cli.sharing import MODEL, load_model
from starpayne.errors import BundleError


def register(app: typer.Typer) -> None:
    app.command()(info)
    app.command()(verify)


def info(
    path: Annotated[
        Path, typer.Argument(metavar="MODEL|GRID", help="Model, update or grid folder, or hf://OWNER/NAME[@REVISION].")
    ],
    json: Json = None,
) -> None:
    """Say what a model or a grid is: labels, wavelengths, physics, where it comes from, how good it is.

    Example: starpayne info my.model
    """
    from starpayne import bundle
    from starpayne.description import as_text, describe_grid, describe_model
    from starpayne.sharing import hub_address

    on_hub = hub_address(path) is not None
    if not on_hub and not path.is_dir():
        raise BundleError(f"no model and no grid at {path}: both are folders")
    if on_hub:
        facts = describe_model(load_model(path))
    elif (path / bundle.MANIFEST).exists() or (path / bundle.ADAPTER).exists():
        facts = describe_model(bundle.load(path, check_fingerprint=False))
    else:
        from starpayne.grid import Grid

        facts = describe_grid(Grid.open(path))
    typer.echo(as_text(facts))
    write_result(json, facts)


def verify(model: Annotated[Path, typer.Argument(metavar="MODEL", help=MODEL)], json: Json = None) -> None:
    """Check that a model is intact: checksums, shapes, and a stored spectrum computed once more.

    Exit status 1 if the folder is damaged, or computes another spectrum here.

    Example: starpayne verify my.model
    """
    from starpayne import bundle, sharing

    address = sharing.hub_address(model)
    found = bundle.verify(model) if address is None else sharing.pull(str(address)).verification
    write_result(json, found.to_dict())
    typer.echo(f"{model}: {found.weights} is whole ({found.bytes:,} bytes, SHA-256 {found.sha256[:16]}…)")
    typer.echo(f"digest of what it predicts: {found.digest}")
    typer.echo(f"made with starpayne {found.starpayne} on {found.made_on}; this is {found.here}")
    words = "reproduced" if found.reproduced else "NOT reproduced"
    typer.echo(f"stored spectrum {words}: differs by {found.difference:.1e} (allowed {found.allowed:.0e})")
    if not found.reproduced:
        raise typer.Exit(1)
