"""``starpayne demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from starpayne.cli.app import Json, progress_bar, write_result


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Default: starpayne-demo, or starpayne-demo-quick.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Tiny sizes, under 90 s; the numbers mean nothing.")] = False,
    workers: Annotated[int, typer.Option(help="Spectra synthesized at a time.", min=1)] = 2,
    json: Json = None,
) -> None:
    """Synthesize a small grid, train two emulators, evaluate them, fit a star; then open report.html.

    Four to five minutes on two cores. Stop it at any time: the same command goes on where it was.

    Example: starpayne demo --out demo
    """
    from starpayne.demo import run_demo

    folder = out or Path("starpayne-demo-quick" if quick else "starpayne-demo")
    summary = run_demo(folder, progress_bar, quick=quick, workers=workers)
    for name, facts in summary["evaluation"].items():
        typer.echo(f"{name:12s} MAE {facts['mae']:.5f} on {facts['n_spectra']} held-out spectra (normalised flux)")
    fit = summary["fit"]
    typer.echo(f"star, fitted with {fit['emulator']}:")
    for name, entry in fit["labels"].items():
        typer.echo(f"  {name:9s} {entry['value']:9.3f} ± {entry['error']:.3f}   truth {entry['truth']:g}")
    typer.echo(f"{summary['seconds']['total']:.0f} s in all; report: {folder / 'report.html'}")
    write_result(json, summary)
