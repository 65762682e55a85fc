"""``starpayne import``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from starpayne.cli.app import Json, Overwrite, progress_bar, write_result

FORMATS = "payne-network, aet, folder, payne-training, starfish, korg, phoenix, bosz, turbospectrum, arrays, spectra"
"""Kept as text, so that help costs no import; a test holds it against the formats there are."""


def _network_labels(text: str | None) -> dict[str, Any]:
    """Read ``teff,logg`` or ``teff=4000:7000,logg=1:5``."""
    from starpayne.cli.values import named_pairs
    from starpayne.labels import Label, LabelSpace

    if text is None:
        return {}
    parts = [part.strip() for part in text.split(",")]
    if "=" not in text:
        return {"names": tuple(parts)}
    bounds = named_pairs("--names", parts, "NAME=LOW:HIGH, such as teff=4000:7000")
    return {"space": LabelSpace(tuple(Label(name, low, high) for name, (low, high) in bounds.items()))}


def register(app: typer.Typer) -> None:
    app.command("import")(import_)


def import_(
    source: Annotated[
        Path, typer.Argument(help="File or folder of spectra, or of a network, in one of the formats below.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="GRID|MODEL", help="Grid or model folder to make.")],
    format: Annotated[
        str | None, typer.Option("--format", metavar="NAME", help=f"By default it is recognised: {FORMATS}.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="TABLE", help="CSV or ECSV: a column file (or one row per spectrum), and one per label."),
    ] = None,
    medium: Annotated[str | None, typer.Option(help="air or vacuum, where the files do not say it.")] = None,
    low: Annotated[float | None, typer.Option(metavar="Å", help="Cut the spectra below this.", min=0)] = None,
    high: Annotated[float | None, typer.Option(metavar="Å", help="Cut the spectra above this.", min=0)] = None,
    sampling: Annotated[
        float | None, typer.Option(metavar="λ/Δλ", help="Resample onto a log-λ grid; by default their own wavelengths.")
    ] = None,
    resolution: Annotated[
        float | None, typer.Option(metavar="R", help="λ/FWHM of the spectra, where the files do not say it.")
    ] = None,
    names: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…",
            help="Labels of a network, in the order of its inputs; with the bounds that it takes as 0 and 1 where its "
            "file does not say them: teff=4000:7000,logg=1:5.",
        ),
    ] = None,
    wavelength: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Pixels of a network, Å: a .npy or .npz file.")
    ] = None,
    wavelength_scale: Annotated[
        str | None, typer.Option(metavar="linear|log10", help="What a TransformerPayne takes as wavelength.")
    ] = None,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Import somebody else's grid of spectra, or network.

    Example: starpayne import PHOENIX --low 5000 --high 5500 --out phoenix.zarr

    Example: starpayne import NN_normalized_spectra.npz --out apogee.model
    """
    from starpayne.grid import DONE, Grid
    from starpayne.importers import ImportOptions, import_any

    options = ImportOptions(
        labels, medium, low, high, sampling, resolution, wavelength=wavelength, wavelength_scale=wavelength_scale,
        **_network_labels(names),
    )  # fmt: skip
    with progress_bar("importing") as bar:
        made = import_any(source, out, format=format, options=options, overwrite=overwrite, progress=bar)
    if not isinstance(made, Grid):
        space = made.emulator.space
        typer.echo(f"{out}: {made.emulator.architecture}, labels {', '.join(space.names)}")
        write_result(json, {"model": str(out), "labels": list(space.names)})
        return
    pixels, failures = made.wavelength, made.failures
    left_out = made.provenance.get("left_out", [])
    typer.echo(
        f"{out}: {int((made.status == DONE).sum())} spectra, {len(pixels)} wavelengths "
        f"{pixels[0]:.2f} to {pixels[-1]:.2f} Å ({made.medium}), labels {', '.join(made.space.names)}"
    )
    if fixed := made.provenance.get("fixed"):
        typer.echo("the same in all spectra: " + ", ".join(f"{name} = {value:g}" for name, value in fixed.items()))
    if failures:
        typer.echo(f"{len(failures)} spectra could not be used; the first one: {failures[0].reason}", err=True)
    if left_out:
        typer.echo(f"{len(left_out)} files were left out; the first one: {left_out[0][0]}: {left_out[0][1]}", err=True)
    write_result(
        json,
        {
            "grid": str(out), "n_spectra": len(made.labels), "labels": list(made.space.names),
            "failed": len(failures), "left_out": len(left_out),
        },
    )  # fmt: skip
