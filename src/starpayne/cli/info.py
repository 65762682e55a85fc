"""``starpayne info`` and ``starpayne verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from starpayne.cli.app import MODEL, Json, write_result
from starpayne.cli.sharing import load_model
from starpayne.errors import BundleError


def register(app: typer.Typer) -> None:
    app.command()(info)
    app.command()(verify)


def info(
    path: Annotated[
        Path | None, typer.Argument(metavar="MODEL|GRID", help=f"Grid folder, or a model: {MODEL}; by default mgb.")
    ] = None,
    json: Json = None,
) -> None:
    """Say what a model or a grid is: labels, wavelengths, physics, where it comes from, how good it is.

    Example: starpayne info my.model
    """
    from starpayne import bundle
    from starpayne.description import as_text, describe_grid, describe_model
    from starpayne.sharing import hub_address

    on_hub = hub_address(path) is not None
    folder = bundle.locate(path)
    if not on_hub and not folder.is_dir():
        raise BundleError(f"no model and no grid at {folder}: both are folders")
    if on_hub:
        facts = describe_model(load_model(path))
    elif (folder / bundle.MANIFEST).exists() or (folder / bundle.ADAPTER).exists():
        facts = describe_model(bundle.load(folder, check_fingerprint=False))
    else:
        from starpayne.grid import Grid

        facts = describe_grid(Grid.open(folder))
    typer.echo(as_text(facts))
    write_result(json, facts)


def verify(
    model: Annotated[Path | None, typer.Argument(metavar="MODEL", help=f"{MODEL}; by default mgb.")] = None,
    json: Json = None,
) -> None:
    """Check that a model is intact: checksums, shapes, and a stored spectrum computed once more.

    Exit status 1 if the folder is damaged, or computes another spectrum here.

    Example: starpayne verify my.model
    """
    from starpayne import bundle, sharing

    address = sharing.hub_address(model)
    found = bundle.verify(model) if address is None else sharing.pull(str(address)).verification
    write_result(json, found.to_dict())
    typer.echo(
        f"{model or bundle.SHIPPED}: {found.weights} is whole ({found.bytes:,} bytes, SHA-256 {found.sha256[:16]}…)"
    )
    typer.echo(f"digest of what it predicts: {found.digest}")
    typer.echo(f"made with starpayne {found.starpayne} on {found.made_on}; this is {found.here}")
    words = "reproduced" if found.reproduced else "NOT reproduced"
    typer.echo(f"stored spectrum {words}: differs by {found.difference:.1e} (allowed {found.allowed:.0e})")
    if not found.reproduced:
        raise typer.Exit(1)
