"""``starpayne evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from starpayne.cli.app import Json, write_result


def register(app: typer.Typer) -> None:
    app.command()(evaluate)


def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model folder.")],
    grid: Annotated[Path, typer.Argument(metavar="GRID", help="Grid folder.")],
    figures: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write figures (PNG, PDF) of the residuals there.")
    ] = None,
    json: Json = None,
) -> None:
    """Compare an emulator with held-out spectra: MAE, RMSE, percentiles, the worst spectra.

    On the grid it was trained on these are the test spectra of the split stored in the model.

    Example: starpayne evaluate transformer.model grid.zarr --figures figures --json evaluation.json
    """
    from starpayne import bundle, plots
    from starpayne.emulators import QUANTITIES
    from starpayne.evaluation import evaluate as run
    from starpayne.grid import Grid

    loaded = bundle.load(model)
    result = run(loaded, Grid.open(grid))
    facts = result.to_dict()
    typer.echo(f"{facts['n_spectra']} spectra ({facts['split']}), {facts['n_wavelengths']} wavelengths")
    typer.echo(f"MAE  {facts['mae']:.6f}\nRMSE {facts['rmse']:.6f}   ({QUANTITIES[result.quantity]})")
    for title, values in facts["percentiles"].items():
        typer.echo(f"{title:20s} " + "  ".join(f"{q}%: {v:.5f}" for q, v in values.items()))
    for title in ("disc_flux_error", "continuum_error"):
        if title in facts:
            typer.echo(f"{title:20s} " + "  ".join(f"{q}: {v:.5f}" for q, v in facts[title].items()) + "  (relative)")
    worst = facts["worst"][0]
    labels = ", ".join(f"{k} {v:.4g}" for k, v in worst["labels"].items())
    typer.echo(f"worst: row {worst['row']}, MAE {worst['mae']:.5f} ({labels})")
    if figures is not None:
        name = loaded.emulator.architecture
        figures.mkdir(parents=True, exist_ok=True)
        for stem, figure in {
            "residuals_by_wavelength": plots.residuals_by_wavelength({name: result}),
            "residuals_by_label": plots.residuals_by_label({name: result}),
            "examples": plots.examples(result, name),
        }.items():
            figure.savefig(figures / f"{stem}.png")
            figure.savefig(figures / f"{stem}.pdf")
        typer.echo(f"figures in {figures}")
    write_result(json, facts)
