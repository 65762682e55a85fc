"""``starpayne export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from starpayne.cli.app import MODEL, Json, Overwrite, write_result
from starpayne.cli.sharing import load_model


def register(app: typer.Typer) -> None:
    app.command()(export)


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help=f"{MODEL}.")],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="npz|onnx|bfloat16",
            help="npz: arrays, with a reader of thirty lines of NumPy beside it; onnx: a graph for other programs; "
            "bfloat16: a model folder of half the size.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="File to write; of bfloat16 a folder.")],
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Write a model for other programs; what comes out of it there is compared with the model first.

    Example: starpayne export my.model --to npz --out my.npz
    """
    from starpayne.exporting import export as run

    written = run(load_model(model), out, to, overwrite)
    typer.echo(
        f"{' and '.join(map(str, written.files))}: differs from the model by {written.mean:.1e} in the mean, "
        f"{written.largest:.1e} at most"
    )
    write_result(json, {"files": [str(f) for f in written.files], "mean": written.mean, "largest": written.largest})
