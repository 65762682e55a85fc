"""``starpayne explore``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from starpayne.cli.app import Model, console
from starpayne.cli.sharing import load_model


def register(app: typer.Typer) -> None:
    app.command()(explore)


def explore(
    model: Model = None,
    spectrum: Annotated[
        Path | None, typer.Option("--spectrum", metavar="FILE", help="Observed spectrum, text or FITS.")
    ] = None,
    resolution: Annotated[
        float | None, typer.Option(metavar="R", help="λ/FWHM of the spectrograph; a slider can change it.")
    ] = None,
    medium: Annotated[str | None, typer.Option(help="Of the spectrum, air or vacuum, where it does not say.")] = None,
    unit: Annotated[str | None, typer.Option(help="Of its wavelengths: angstrom, nm, micron or m.")] = None,
    port: Annotated[int, typer.Option(metavar="N", help="Port on this machine; 0 for any that is free.", min=0)] = 5006,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
) -> None:
    """Open an interactive page: a slider for every label, the spectrum, and a star to compare and to fit.

    It is served on 127.0.0.1 only, until Ctrl-C. Needs pip install "starpayne[explorer]".

    Example: starpayne explore --spectrum star.fits --medium air --resolution 47000
    """
    from starpayne.explorer import serve
    from starpayne.explorer.extra import panel
    from starpayne.explorer.server import free_port
    from starpayne.spectra import ObservedSpectrum

    panel()
    port = free_port(port)
    observed = None if spectrum is None else ObservedSpectrum.read(spectrum, unit=unit, medium=medium)
    serve(
        load_model(model), observed, resolution, port, browser,
        lambda address: console.print(f"the page is at {address}; Ctrl-C ends it", markup=False),
    )  # fmt: skip
