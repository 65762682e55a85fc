"""``starpayne synthesize``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from starpayne.cli.app import Json, Overwrite, console, progress_bar, write_result


def register(app: typer.Typer) -> None:
    app.command()(synthesize)


def synthesize(
    design: Annotated[Path, typer.Argument(metavar="DESIGN.toml", help="Labels, window (Å), engine and split.")],
    out: Annotated[Path, typer.Option("--out", metavar="GRID", help="Grid folder to make, or to complete.")],
    workers: Annotated[int, typer.Option(help="Spectra at a time on this machine.", min=1)] = 2,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Dask scheduler to use instead, such as tcp://host:8786.")
    ] = None,
    limit: Annotated[float, typer.Option(help="Seconds after which a stuck spectrum is given up.", min=1)] = 60.0,
    few: Annotated[
        int | None,
        typer.Option(metavar="N", help="Only the N stars of the design that represent all others best.", min=1),
    ] = None,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Synthesize a grid of spectra; run again after a stop, it completes the grid.

    Example: starpayne synthesize design.toml --out grid.zarr --workers 8

    Example: starpayne synthesize design.toml --few 10 --out few.zarr
    """
    from starpayne.synthesis import Design, run

    chosen = Design.from_toml(design)
    if few is not None:
        from starpayne.training.transfer import representative

        chosen = chosen.only(representative(chosen.space, chosen.labels, few))
    if chosen.undersampled:
        console.print(
            f"warning: sampling {chosen.sampling:,.0f} is too coarse for the narrowest lines of this design, which "
            f"need {chosen.sampling_needed:,.0f}; fits with it will be biased and are flagged 'undersampled'",
            soft_wrap=True,
        )
    with progress_bar("synthesis") as bar:
        grid = run(
            chosen, out, workers=workers, scheduler=scheduler, overwrite=overwrite, limit=limit,
            progress=lambda done, total, failed: bar(done, total, f"{failed} failed" if failed else ""),
        )  # fmt: skip
    failures = grid.failures
    for failure in failures[:5]:
        console.print(f"row {failure.row} failed: {failure.reason}", markup=False)
    n = len(grid.labels)
    typer.echo(f"{out}: {n - len(failures)} of {n} spectra, {len(failures)} failed")
    write_result(
        json,
        {
            "grid": str(out),
            "n_spectra": n,
            "n_failed": len(failures),
            "failures": [{"row": f.row, "labels": dict(f.labels), "reason": f.reason} for f in failures],
        },
    )
