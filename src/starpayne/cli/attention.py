"""``starpayne attention``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from starpayne.cli.app import MODEL, Json, Overwrite, progress_bar, refuse_existing, write_result
from starpayne.cli.sharing import load_model


def register(app: typer.Typer) -> None:
    app.command()(attention)


def attention(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help=f"{MODEL}; a TransformerPayne.")],
    grid: Annotated[Path, typer.Argument(metavar="GRID", help="Grid folder; its test spectra are looked at.")],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Folder of tables and figures to make.")],
    n_stars: Annotated[int, typer.Option(metavar="N", help="Stars to average over.", min=1)] = 32,
    seed: Annotated[int, typer.Option(help="Of the permutations.", min=0)] = 0,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Draw what a TransformerPayne attends to, and test whether lines of one element are alike in attention.

    The atlas: attention of each layer and head by wavelength and token, which labels each token carries, and the
    likeness of attention between wavelengths. report.html says what is shown and what is not.

    Example: starpayne attention transformer.model grid.zarr --out atlas
    """
    from starpayne.files import replace_folder
    from starpayne.grid import Grid
    from starpayne.inside.atlas import atlas
    from starpayne.inside.attention_report import facts, verdict, write_atlas
    from starpayne.inside.likeness import compare

    refuse_existing(out, overwrite)
    loaded, opened = load_model(model), Grid.open(grid)
    with progress_bar("stars") as bar:
        found = atlas(loaded, opened, n_stars, progress=bar)
    results = compare(found, seed)
    replace_folder(out, lambda folder: write_atlas(found, results, folder))
    typer.echo(
        f"{'':10s}{'lines':>6s}{'likeness':>10s}{'elsewhere':>11s}{'others':>9s}{'p elsewhere':>13s}{'p names':>9s}"
    )
    for r in results:
        if r.corrected_elsewhere == r.corrected_elsewhere:  # not NaN
            typer.echo(
                f"{r.element:10s}{r.n_lines:6d}{r.likeness:10.2f}{r.elsewhere:11.2f}{r.others:9.2f}"
                f"{r.corrected_elsewhere:13.2g}{r.corrected_others:9.2g}"
            )
    typer.echo(verdict(results))
    typer.echo(f"{out}: report.html, figures and tables")
    write_result(json, facts(found, results))
