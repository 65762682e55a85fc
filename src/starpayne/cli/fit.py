"""``starpayne fit``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from starpayne.cli.app import Json, Model, Overwrite, Update, console, progress_bar, refuse_existing, write_result
from starpayne.cli.sharing import load_model
from starpayne.errors import SpectrumError, StarpayneError

if TYPE_CHECKING:
    from starpayne.bundle import Model as LoadedModel
    from starpayne.fitting import FitOptions, FitResult
    from starpayne.fitting.resolution import Resolution
    from starpayne.spectrum_tables import Spectra


LISTED = 20
"""Stars up to which the values of each are printed."""

DIGITS = {"teff": 0, "rv": 2, "vsini": 2, "broadening": 2}
"""Digits after the point; other labels have three."""


def register(app: typer.Typer) -> None:
    app.command()(fit)


def fit(
    spectra: Annotated[
        list[Path],
        typer.Argument(
            metavar="SPECTRUM...", help="Text or FITS files; or one FITS or Parquet file with a row for each star."
        ),
    ],
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
    unit: Annotated[str | None, typer.Option(help="Of the wavelengths: angstrom, nm, micron or m.")] = None,
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
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Dask scheduler to use instead, such as tcp://host:8786.")
    ] = None,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Fit observed spectra: labels, radial velocity (km/s), v sin i (km/s) and continuum, with 1 σ errors.

    Needs no guess. One file that cannot be fitted among several becomes a row with flags (exit status 0); a single
    one is an error. The flags are explained in docs/fitting.md. Several are kept part by part: after a stop, the same
    command goes on.

    Example: starpayne fit star.fits --resolution 47000 --fix solar-scaled --out star.csv

    Example: starpayne fit *.fits --model m.model --resolution 47000 --line-mask sun.mask.json --out stars.parquet

    Example: starpayne fit survey.parquet --resolution 20000 --scheduler tcp://head:8786 --out stars.parquet
    """
    from starpayne.cli.values import named_pairs, one_window, pairs_or_solar, read_resolution
    from starpayne.cli.values import window as ends
    from starpayne.fitting import FitOptions
    from starpayne.fitting import fit as fit_one
    from starpayne.fitting.forward import refuse_intensities
    from starpayne.fitting.linemask import LineMask
    from starpayne.fitting.parts import stopped_before
    from starpayne.fitting.survey import row_of
    from starpayne.fitting.table import check_table, write_table
    from starpayne.spectrum_tables import open_spectra

    check_table(out)
    for option, given in (("--workers", (workers or 1) > 1), ("--scheduler", scheduler is not None)):
        if sample and given:
            raise SpectrumError(f"{option} does not go with --sample, which takes one star after another")
    if line_mask is None and (windows_only or not zero_points):
        raise SpectrumError("--windows-only and --no-zero-points concern a line mask: give --line-mask")
    if not stopped_before(out):
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
    profile, stars = read_resolution(resolution), open_spectra(spectra, unit, medium)
    rows: list[dict[str, Any]] = []
    draw = _drawing(figures)
    try:
        with progress_bar("sampling" if sample else "fitting") as bar:
            bar(0, len(stars))
            if sample:
                for row in _sampled(stars, loaded, profile, options, sample, figures):
                    rows.append(row)
                    bar(len(rows), len(stars), row["file"])
            elif len(stars) == 1:
                # A single one that cannot be fitted is an error, not a row.
                result = fit_one(stars.read(0), loaded, profile, options)
                draw(result)
                rows.append(row_of(stars.name(0), result, ()))
            else:
                _survey(stars, loaded, profile, out, options, workers, scheduler, overwrite, json, bar, draw)
                return
    finally:
        # Also after Ctrl-C: what is fitted is kept.
        if rows:
            write_table(out, [rows])
            write_result(json, rows)
    for row in rows:
        if "failed" not in row["flags"]:
            typer.echo(_line(row))


def _survey(
    stars: Spectra, model: LoadedModel, resolution: Resolution, out: Path, options: FitOptions, workers: int | None,
    scheduler: str | None, overwrite: bool, json: Path | None, bar: Update, draw: Callable[[FitResult], None],
) -> None:  # fmt: skip
    """Fit many stars; say what became of each where they are few, and how many have which flag."""
    from starpayne.fitting.cluster import dask_is_missing
    from starpayne.fitting.survey import fit_survey, row_of

    lines: dict[str, str] = {}

    def seen(name: str, outcome: FitResult | StarpayneError) -> None:
        if isinstance(outcome, Exception):
            console.print(f"{name}: {outcome}", markup=False, soft_wrap=True)
            return
        draw(outcome)
        if len(stars) <= LISTED:
            lines[name] = _line(row_of(name, outcome, ()))

    if workers is None and scheduler is None and dask_is_missing(len(stars)):
        console.print('note: one process fits all; pip install "starpayne[survey]" for one per core', style="yellow")
    found = fit_survey(
        stars, model, resolution, out, options, workers=workers, scheduler=scheduler, overwrite=overwrite, json=json,
        progress=bar, seen=seen,
    )  # fmt: skip
    for line in lines.values():
        typer.echo(line)
    flags = ", ".join(f"{flag} {n:,}" for flag, n in found.flags.items() if not flag.startswith("unconstrained:"))
    typer.echo(
        f"{out}: {found.stars:,} stars, {found.failed:,} of them failed" + (f"; flags: {flags}" if flags else "")
    )


def _drawing(figures: Path | None) -> Callable[[FitResult], None]:
    """Return what draws the figure of a star, where figures are asked for."""

    def draw(result: FitResult) -> None:
        if figures is None:
            return
        from starpayne import plots

        figures.mkdir(parents=True, exist_ok=True)
        plots.fitted_spectrum(result).savefig(figures / f"{Path(result.name).stem or 'star'}.png")

    return draw


def _sampled(
    stars: Spectra, model: LoadedModel, resolution: Resolution, options: FitOptions, draws: int, figures: Path | None
) -> Iterator[dict[str, Any]]:
    """Yield the row of each star with its posterior; write their figures."""
    from starpayne import plots
    from starpayne.errors import MissingExtraError
    from starpayne.fitting import sample as run
    from starpayne.fitting.survey import row_of

    draw = _drawing(figures)
    for i in range(len(stars)):
        try:
            posterior = run(stars.read(i), model, resolution, options, draws=draws)
        except MissingExtraError:
            raise
        except StarpayneError as error:
            if len(stars) == 1:
                raise
            console.print(f"{stars.name(i)}: {error}", markup=False, soft_wrap=True)
            yield row_of(stars.name(i), error, model.emulator.space.names)
            continue
        draw(posterior.result)
        if figures is not None:
            stem = Path(posterior.result.name).stem or "star"
            plots.corner(posterior).savefig(figures / f"{stem}-corner.png")
            posterior.write(figures / f"{stem}-posterior.npz")
        yield row_of(stars.name(i), posterior.result, ()) | {"posterior": posterior.summary()}


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
