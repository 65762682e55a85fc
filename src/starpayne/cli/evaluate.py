"""``starpayne evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from starpayne.cli.app import MODEL, Json, progress_bar, write_result
from starpayne.cli.sharing import load_model

if TYPE_CHECKING:
    from starpayne.evaluation import Recovery


def register(app: typer.Typer) -> None:
    app.command()(evaluate)


def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help=MODEL)],
    grid: Annotated[Path, typer.Argument(metavar="GRID", help="Grid folder.")],
    figures: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write figures (PNG, PDF) of the residuals there.")
    ] = None,
    recover: Annotated[
        int | None, typer.Option(metavar="N", help="Also observe N of the spectra, fit them, and compare labels.")
    ] = None,
    snr: Annotated[float, typer.Option(help="Signal-to-noise ratio per pixel of --recover.")] = 100.0,
    resolution: Annotated[float, typer.Option(help="λ/FWHM of --recover.")] = 40_000.0,
    json: Json = None,
) -> None:
    """Compare an emulator with held-out spectra: MAE, RMSE, percentiles, the worst spectra; with --recover, labels.

    On the grid it was trained on these are the test spectra of the split stored in the model.

    Example: starpayne evaluate transformer.model grid.zarr --figures figures --json evaluation.json
    """
    from starpayne import plots
    from starpayne.emulators import QUANTITIES
    from starpayne.evaluation import evaluate as run
    from starpayne.evaluation import recover as run_recovery
    from starpayne.grid import Grid

    loaded, opened = load_model(model), Grid.open(grid)
    recovery = None
    if recover is not None:
        with progress_bar("fitting") as bar:
            recovery = run_recovery(
                loaded, opened, n_spectra=recover, snr=snr, resolution=resolution, progress=bar
            )  # fmt: skip
    result = run(loaded, opened)
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
    if recovery is not None:
        facts["recovery"] = recovery.to_dict()
        typer.echo("\n" + recovery_table(recovery))
    if figures is not None:
        name = loaded.emulator.architecture
        figures.mkdir(parents=True, exist_ok=True)
        drawn = {
            "residuals_by_wavelength": plots.residuals_by_wavelength({name: result}),
            "residuals_by_label": plots.residuals_by_label({name: result}),
            "examples": plots.examples(result, name),
        }
        if recovery is not None:
            drawn["label_recovery"] = plots.label_recovery({name: recovery})
        for stem, figure in drawn.items():
            figure.savefig(figures / f"{stem}.png")
            figure.savefig(figures / f"{stem}.pdf")
        typer.echo(f"figures in {figures}")
    write_result(json, facts)


def recovery_table(recovery: Recovery) -> str:
    """Return bias and scatter of each label in its unit, with the parts of emulator and noise, as lines of text."""
    from starpayne.labels import unit_of

    facts = recovery.to_dict()
    chi2 = "none" if facts["median_chi2"] is None else f"{facts['median_chi2']:.2f}"
    lines = [
        f"labels recovered from {facts['n_spectra']} spectra at R = {recovery.resolution:,.0f}, S/N {recovery.snr:g}: "
        f"{facts['n_converged']} fits converged, median reduced χ² {chi2}",
        f"{'label':10s}{'bias':>9s}{'scatter':>9s}{'emulator':>10s}{'noise':>9s}{'bound':>9s}"
        f"{'constrained':>13s}  unit",
    ]
    for name, s in recovery.summary().items():
        values = [s[key] for key in ("bias", "scatter", "emulator_scatter", "noise_scatter", "bound")]
        text = "".join(f"{v:{w}.3g}" for v, w in zip(values, (9, 9, 10, 9, 9), strict=True))
        lines.append(f"{name:10s}{text}{s['constrained']:13.0%}  {unit_of(name)}")
    lines.append("scatter: robust standard deviation of fitted − true; emulator: of fits without noise; noise: of the")
    lines.append("difference that the noise makes; bound: least noise possible; constrained: bound < range/4")
    return "\n".join(lines)
