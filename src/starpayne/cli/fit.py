"""``starpayne fit``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from starpayne.cli.app import Json, Overwrite, console, progress_bar, refuse_existing, write_result
from starpayne.errors import SpectrumError, StarpayneError

if TYPE_CHECKING:
    from starpayne.fitting import FitResult


def register(app: typer.Typer) -> None:
    app.command()(fit)


def fit(
    spectra: Annotated[list[Path], typer.Argument(metavar="SPECTRUM...", help="Text or FITS files.")],
    model: Annotated[Path, typer.Option("--model", metavar="MODEL", help="Model folder.")],
    resolution: Annotated[float, typer.Option(metavar="R", help="λ/FWHM of the spectrograph.")],
    out: Annotated[Path, typer.Option("--out", metavar="TABLE", help="Table to write: .csv, .ecsv or .fits.")],
    fix: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Hold a label, rv, vsini or broadening (km/s).")
    ] = None,
    free: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Fit broadening too (a Gaussian, km/s), which is 0 else.")
    ] = None,
    mask: Annotated[list[str] | None, typer.Option(metavar="LOW:HIGH", help="Leave out a window, Å.")] = None,
    window: Annotated[str | None, typer.Option(metavar="LOW:HIGH", help="Use this window only, Å.")] = None,
    medium: Annotated[str | None, typer.Option(help="air or vacuum, where the file does not say.")] = None,
    unit: Annotated[str | None, typer.Option(help="Of the wavelengths: angstrom, nm or micron.")] = None,
    continuum_degree: Annotated[int, typer.Option(help="Of the Chebyshev continuum.", min=0)] = 3,
    figures: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write a figure (PNG) per star.")] = None,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Fit observed spectra: labels, radial velocity (km/s), v sin i (km/s) and continuum, with 1 σ errors.

    Needs no guess. One file that cannot be fitted among several becomes a row with flags (exit status 0); a single
    one is an error. The flags are explained in docs/fitting.md.

    Example: starpayne fit star.fits --model m.model --resolution 47000 --fix alpha_fe=0 --out star.csv
    """
    from starpayne import bundle
    from starpayne.fitting import FitOptions
    from starpayne.fitting import fit as run
    from starpayne.fitting.forward import refuse_intensities
    from starpayne.fitting.table import check_table, write_table
    from starpayne.spectra import ObservedSpectrum

    check_table(out)
    refuse_existing(out, overwrite)
    loaded = bundle.load(model)
    refuse_intensities(loaded.emulator)
    held = _pairs(fix or [])
    choices: dict[str, Any] = {name: held.pop(name) for name in ("rv", "vsini", "broadening") if name in held}
    for name in free or []:
        if name != "broadening" or name in choices:
            raise SpectrumError(f"--free {name}: only broadening can be freed, and not while it is fixed")
        choices[name] = None
    options = FitOptions(
        fix=held,
        mask=tuple(_range(text) for text in mask or []),
        window=_range(window) if window else None,
        medium=medium,
        continuum_degree=continuum_degree,
        **choices,
    )
    rows: list[dict[str, Any]] = []
    try:
        with progress_bar("fitting") as bar:
            bar(0, len(spectra))
            for i, path in enumerate(spectra):
                try:
                    result = run(ObservedSpectrum.read(path, unit=unit, medium=medium), loaded, resolution, options)
                    rows.append(result.to_dict() | {"file": str(path)})
                    if figures is not None:
                        _draw(result, figures / f"{path.stem}.png")
                except StarpayneError as error:
                    if len(spectra) == 1:
                        raise
                    rows.append(_failed(path, loaded.emulator.space.names, str(error)))
                bar(i + 1, len(spectra), path.name)
    finally:
        # Also after Ctrl-C: what is fitted is kept.
        if rows:
            write_table(out, rows)
            write_result(json, rows)
    for row in rows:
        labels = "  ".join(_value(name, x["value"], x["error"]) for name, x in row["labels"].items())
        typer.echo(f"{row['file']}: {labels}  {_value('rv', row['rv'], row.get('rv_error'))}")
        if row["flags"]:
            console.print(f"  flags: {', '.join(row['flags'])}", markup=False)


def _draw(result: FitResult, path: Path) -> None:
    from starpayne import plots

    path.parent.mkdir(parents=True, exist_ok=True)
    plots.fitted_spectrum(result).savefig(path)


def _failed(path: Path, names: tuple[str, ...], why: str) -> dict[str, Any]:
    console.print(f"{path}: {why}", markup=False, soft_wrap=True)
    return {
        "file": str(path), "labels": {name: {"value": None, "error": None} for name in names},
        "rv": None, "vsini": None, "chi2": None, "flags": [f"failed:{why}"],
    }  # fmt: skip


def _value(name: str, value: float | None, error: float | None) -> str:
    if value is None:
        return f"{name} –"
    digits = 0 if name == "teff" else 2
    return f"{name} {value:.{digits}f}" + (f" ± {error:.{digits}f}" if error else "")


def _pairs(words: list[str]) -> dict[str, float]:
    pairs = {}
    for word in words:
        name, _, value = word.partition("=")
        try:
            pairs[name.strip()] = float(value)
        except ValueError as error:
            raise SpectrumError(f"--fix {word!r} is not NAME=VALUE, such as alpha_fe=0") from error
    return pairs


def _range(text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    try:
        return float(low), float(high)
    except ValueError as error:
        raise SpectrumError(f"{text!r} is not LOW:HIGH in Å, such as 5163.5:5166.5") from error
