"""``starpayne fit``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from starpayne.cli.app import Json, Model, Overwrite, console, progress_bar, refuse_existing, write_result
from starpayne.cli.sharing import load_model
from starpayne.errors import SpectrumError

if TYPE_CHECKING:
    from starpayne.bundle import Model as LoadedModel
    from starpayne.fitting import FitOptions, FitResult
    from starpayne.fitting.resolution import Resolution
    from starpayne.spectra import ObservedSpectrum


DIGITS = {"teff": 0, "rv": 2, "vsini": 2, "broadening": 2}
"""Digits after the point; other labels have three."""


def register(app: typer.Typer) -> None:
    app.command()(fit)


def fit(
    spectra: Annotated[list[Path], typer.Argument(metavar="SPECTRUM...", help="Text or FITS files.")],
    resolution: Annotated[
        str,
        typer.Option(
            metavar="R",
            help="λ/FWHM of the spectrograph; or a text file of it by wavelength, or of its "
            "line-spread function (docs/fitting.md).",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="TABLE", help="Table: .csv, .ecsv, .fits or .parquet.")],
    model: Model = None,
    fix: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Hold a label, rv, vsini or broadening (km/s); solar-scaled holds [α/Fe] and all [X/Fe].",
        ),
    ] = None,
    free: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Fit broadening too (a Gaussian, km/s), which is 0 else.")
    ] = None,
    bounds: Annotated[
        list[str] | None, typer.Option(metavar="NAME=LOW:HIGH", help="Narrow the range of a label, rv or vsini.")
    ] = None,
    prior: Annotated[
        list[str] | None, typer.Option(metavar="NAME=MEAN:SIGMA", help="Gaussian prior on a label, rv or vsini.")
    ] = None,
    mask: Annotated[list[str] | None, typer.Option(metavar="LOW:HIGH", help="Leave out a window, Å.")] = None,
    line_mask: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Mask of lines at rest, from starpayne mask learn.")
    ] = None,
    zero_points: Annotated[bool, typer.Option(help="Take the zero points of the line mask off the labels.")] = True,
    windows_only: Annotated[
        bool, typer.Option("--windows-only", help="Use the windows of the line mask, not its depths or zero points.")
    ] = False,
    window: Annotated[list[str] | None, typer.Option(metavar="LOW:HIGH", help="Use this window only, Å; one.")] = None,
    medium: Annotated[str | None, typer.Option(help="air or vacuum; flagged where the file says otherwise.")] = None,
    unit: Annotated[str | None, typer.Option(help="Of the wavelengths: angstrom, nm or micron.")] = None,
    continuum_degree: Annotated[int, typer.Option(help="Of the Chebyshev continuum.", min=0)] = 3,
    continuum_knots: Annotated[
        float | None, typer.Option(metavar="Å", help="Cubic spline with knots so far apart, instead.")
    ] = None,
    segment: Annotated[
        list[str] | None,
        typer.Option(metavar="LOW:HIGH", help="Part with a continuum of its own, Å; or gaps: part at missing pixels."),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(metavar="N", help="Sample the posterior too (NUTS), N draws in each of two chains.", min=50),
    ] = None,
    figures: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write a figure (PNG) per star.")] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Processes to fit in; by default one, and from 100 spectra on one per core.", min=1
        ),
    ] = None,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Fit observed spectra: labels, radial velocity (km/s), v sin i (km/s) and continuum, with 1 σ errors.

    Needs no guess. One file that cannot be fitted among several becomes a row with flags (exit status 0); a single
    one is an error. The flags are explained in docs/fitting.md.

    Example: starpayne fit star.fits --resolution 47000 --fix solar-scaled --out star.csv

    Example: starpayne fit *.fits --model m.model --resolution 47000 --line-mask sun.mask.json --out stars.parquet
    """
    from starpayne.cli.values import named_pairs, one_window, pairs_or_solar, read_resolution
    from starpayne.cli.values import window as ends
    from starpayne.fitting import FitOptions
    from starpayne.fitting.forward import refuse_intensities
    from starpayne.fitting.linemask import LineMask
    from starpayne.fitting.table import check_table, write_table

    check_table(out)
    if sample and (workers or 1) > 1:
        raise SpectrumError("--workers does not go with --sample, which takes one star after another")
    if line_mask is None and (windows_only or not zero_points):
        raise SpectrumError("--windows-only and --no-zero-points concern a line mask: give --line-mask")
    refuse_existing(out, overwrite)
    loaded = load_model(model)
    refuse_intensities(loaded.emulator)
    held = pairs_or_solar("--fix", fix or [], loaded.emulator.space)
    choices: dict[str, Any] = {name: held.pop(name) for name in ("rv", "vsini", "broadening") if name in held}
    for name in free or []:
        if name != "broadening" or name in choices:
            raise SpectrumError(f"--free {name}: only broadening can be freed, and not while it is fixed")
        choices[name] = None
    learned = None if line_mask is None else LineMask.read(line_mask)
    if learned is not None and not zero_points:
        learned = learned.without_zero_points()
    if learned is not None and windows_only:
        learned = learned.without_depths()
    parts = segment or []
    options = FitOptions(
        fix=held,
        bounds=named_pairs("--bounds", bounds or [], "NAME=LOW:HIGH, such as teff=5000:6000"),
        prior=named_pairs("--prior", prior or [], "NAME=MEAN:SIGMA, such as logg=4.44:0.05"),
        mask=tuple(ends(text) for text in mask or []),
        line_mask=learned,
        window=one_window(window or []),
        medium=medium,
        continuum_degree=continuum_degree,
        continuum_knots=continuum_knots,
        segments="gaps" if parts == ["gaps"] else tuple(ends(text) for text in parts),
        **choices,
    )
    profile = read_resolution(resolution)
    rows: list[dict[str, Any]] = []
    readers = [_reader(path, unit, medium) for path in spectra]
    try:
        with progress_bar("sampling" if sample else "fitting") as bar:
            bar(0, len(spectra))
            for path, outcome in zip(
                spectra, _outcomes(readers, loaded, profile, options, sample, figures, workers), strict=True
            ):
                if isinstance(outcome, Exception):
                    if len(spectra) == 1:
                        raise outcome
                    rows.append(_failed(path, loaded.emulator.space.names, str(outcome)))
                else:
                    rows.append(outcome | {"file": str(path)})
                bar(len(rows), len(spectra), path.name)
    finally:
        # Also after Ctrl-C: what is fitted is kept.
        if rows:
            write_table(out, rows)
            write_result(json, rows)
    for row in rows:
        if "message" not in row:
            typer.echo(_line(row))


def _reader(path: Path, unit: str | None, medium: str | None) -> Callable[[], ObservedSpectrum]:
    from starpayne.spectra import ObservedSpectrum

    return lambda: ObservedSpectrum.read(path, unit=unit, medium=medium)


def _outcomes(
    readers: Sequence[Callable[[], ObservedSpectrum]], model: LoadedModel, resolution: Resolution, options: FitOptions,
    draws: int | None, figures: Path | None, workers: int | None,
) -> Any:  # fmt: skip
    """Yield the row of each star, or the error that keeps it from one; write its figures."""
    from starpayne import plots
    from starpayne.errors import MissingExtraError, StarpayneError
    from starpayne.fitting import fit_many
    from starpayne.fitting.workers import suitable_workers

    def drawn(result: FitResult) -> dict[str, Any]:
        if figures is not None:
            figures.mkdir(parents=True, exist_ok=True)
            plots.fitted_spectrum(result).savefig(figures / f"{Path(result.name).stem or 'star'}.png")
        return result.to_dict()

    if draws is None:
        many = suitable_workers(len(readers)) if workers is None else workers
        for outcome in fit_many(readers, model, resolution, options, workers=many):
            yield outcome if isinstance(outcome, StarpayneError) else drawn(outcome)
        return
    from starpayne.fitting import sample as run

    for reader in readers:
        try:
            posterior = run(reader(), model, resolution, options, draws=draws)
        except MissingExtraError:
            raise
        except StarpayneError as error:
            yield error
            continue
        if figures is not None:
            figures.mkdir(parents=True, exist_ok=True)
            stem = Path(posterior.result.name).stem or "star"
            plots.corner(posterior).savefig(figures / f"{stem}-corner.png")
            posterior.write(figures / f"{stem}-posterior.npz")
        yield drawn(posterior.result) | {"posterior": posterior.summary()}


def _failed(path: Path, names: tuple[str, ...], why: str) -> dict[str, Any]:
    console.print(f"{path}: {why}", markup=False, soft_wrap=True)
    return {
        "file": str(path), "labels": {name: {"value": None, "error": None, "raw_error": None} for name in names},
        "rv": None, "vsini": None, "chi2": None, "flags": ["failed"], "message": why,
    }  # fmt: skip


def _line(row: dict[str, Any]) -> str:
    """Return the fitted values of a star, those that its spectrum does not tell by name alone, and its flags."""
    told, untold = [], []
    values = {name: (x["value"], x["error"]) for name, x in row["labels"].items() if name not in row["fixed"]}
    for name, (value, error) in (values | {n: (row[n], row[f"{n}_error"]) for n in ("rv", "vsini")}).items():
        if f"unconstrained:{name}" in row["flags"]:
            untold.append(name)
        else:
            told.append(_value(name, value, error))
    lines = [f"{row['file']}: {'  '.join(told)}"]
    if untold:
        lines.append(f"  not constrained: {', '.join(untold)}")
    flags = [flag for flag in row["flags"] if not flag.startswith("unconstrained:")]
    if flags:
        lines.append(f"  flags: {', '.join(flags)}")
    for name, x in row.get("posterior", {}).get("parameters", {}).items():
        low, middle, high = (f"{x[key]:.{DIGITS.get(name, 3)}f}" for key in ("low", "median", "high"))
        lines.append(f"  posterior {name}: {middle} ({low} to {high})")
    return "\n".join(lines)


def _value(name: str, value: float | None, error: float | None) -> str:
    if value is None:
        return f"{name} –"
    digits = DIGITS.get(name, 3)
    return f"{name} {value:.{digits}f}" + (f" ± {error:.{digits}f}" if error else "")
