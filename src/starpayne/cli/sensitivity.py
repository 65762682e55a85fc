"""``starpayne sensitivity``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from starpayne.cli.app import Json, Model, Overwrite, console, refuse_existing, write_result
from starpayne.cli.sharing import load_model
from starpayne.errors import SpectrumError

if TYPE_CHECKING:
    from starpayne.inside import Sensitivity
    from starpayne.labels import LabelSpace

SUN = {"teff": 5772.0, "logg": 4.44, "feh": 0.0, "vmic": 1.0}
"""Labels that are not given, where --at says solar-scaled or nothing at all."""


def register(app: typer.Typer) -> None:
    app.command()(sensitivity)


def sensitivity(
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Folder of tables and figures to make.")],
    model: Model = None,
    at: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE,…",
            help="The star's labels; solar-scaled fills in the [X/Fe] and vmic that are not named. By default the Sun.",
        ),
    ] = None,
    labels: Annotated[
        str | None, typer.Option(metavar="NAME,…", help="Labels to look for windows of, and to draw; by default all.")
    ] = None,
    snr: Annotated[float, typer.Option(help="Signal-to-noise ratio per pixel at the continuum.")] = 100.0,
    resolution: Annotated[float, typer.Option(metavar="R", help="λ/FWHM of the spectrograph.")] = 40_000.0,
    low: Annotated[float | None, typer.Option(help="First wavelength, Å; by default the model's.")] = None,
    high: Annotated[float | None, typer.Option(help="Last wavelength, Å; by default the model's.")] = None,
    sampling: Annotated[float | None, typer.Option(help="λ/Δλ of the pixels; by default three per FWHM.")] = None,
    medium: Annotated[str | None, typer.Option(help="air or vacuum; by default the model's.")] = None,
    rv: Annotated[float, typer.Option(help="Radial velocity of the star, km/s.")] = 0.0,
    vsini: Annotated[float, typer.Option(help="v sin i of the star, km/s.", min=0)] = 2.0,
    fix: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME,…",
            help="Hold a label, rv or vsini at the star's value; solar-scaled holds [α/Fe] and all [X/Fe].",
        ),
    ] = None,
    prior: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=SIGMA,…", help="Gaussian prior on a label, rv or vsini, about the star's value."),
    ] = None,
    continuum_degree: Annotated[int, typer.Option(help="Of the Chebyshev continuum.", min=0)] = 3,
    continuum_knots: Annotated[
        float | None, typer.Option(metavar="Å", help="Cubic spline with knots so far apart, instead.")
    ] = None,
    emulator_error: Annotated[bool, typer.Option(help="Whether the fit takes the emulator's error in.")] = True,
    window_width: Annotated[
        float | None, typer.Option(metavar="Å", help="Of the windows; by default a fiftieth of the range.")
    ] = None,
    n_best: Annotated[int, typer.Option(metavar="N", help="Windows to choose for each label.", min=1)] = 10,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Say what a spectrum tells of each label: derivative spectra, expected errors, and the windows that tell most.

    The errors are those that starpayne fit would state of such a star (a Cramér–Rao forecast): no spectrum is needed.

    Example: starpayne sensitivity --snr 200 --resolution 47000 --out sun-tells

    Example: starpayne sensitivity --model m.model --at teff=4800,logg=2.5,feh=-1,solar-scaled --labels mg_fe,feh
    --fix rv,vsini --prior teff=50 --out giant-tells
    """
    from starpayne.cli.values import pairs
    from starpayne.fitting import FitOptions
    from starpayne.inside.sensitivity import held_at
    from starpayne.inside.sensitivity import sensitivity as run

    refuse_existing(out, overwrite)
    loaded = load_model(model)
    space = loaded.emulator.space
    star = _star(at or [], space)
    motions = {"rv": rv, "vsini": vsini}
    priors = {}
    for name, sigma in pairs("--prior", prior or []).items():
        if name not in star and name not in motions:
            raise SpectrumError(f"--prior {name}: there is no such label; there are {', '.join(star)}, rv, vsini")
        priors[name] = ((star | motions)[name], sigma)
    options = held_at(
        star,
        FitOptions(
            prior=priors, continuum_degree=continuum_degree, continuum_knots=continuum_knots,
            emulator_error=emulator_error,
        ),
        _held(fix or [], space), rv, vsini,
    )  # fmt: skip
    wanted = None if labels is None else [name.strip() for name in labels.split(",")]
    found = run(
        loaded, star, snr=snr, resolution=resolution, low=low, high=high, sampling=sampling, medium=medium, rv=rv,
        vsini=vsini, options=options, labels=wanted, window_width=window_width, n_best=n_best,
    )  # fmt: skip
    _write(found, wanted, out)
    typer.echo(_table(found))
    typer.echo(f"{out}: figures and tables")
    write_result(json, found.to_dict())


def _star(words: list[str], space: LabelSpace) -> dict[str, float]:
    """Return every label of the star, and say which were filled in."""
    from starpayne.cli.values import SOLAR_SCALED, pairs
    from starpayne.labels import fill_solar_scaled

    parts = [part.strip() for text in words for part in text.split(",")]
    named = pairs("--at", [part for part in parts if part != SOLAR_SCALED])
    space.refuse_unknown(named, "--at")
    if not parts:
        named = {name: value for name, value in SUN.items() if name in space.names}
    if not parts or SOLAR_SCALED in parts:
        filled = fill_solar_scaled(space, named)
        listed = ", ".join(f"{name} = {value:g}" for name, value in filled.items())
        console.print(f"filled in: {listed or 'nothing was missing'}", markup=False, soft_wrap=True)
        named = named | filled
    vector = space.vector(named)
    return dict(zip(space.names, vector.tolist(), strict=True))


def _held(words: list[str], space: LabelSpace) -> list[str]:
    """Return the names to hold."""
    from starpayne.cli.values import SOLAR_SCALED
    from starpayne.labels import solar_abundances

    names: list[str] = []
    for word in (part.strip() for text in words for part in text.split(",")):
        if "=" in word:
            raise SpectrumError(f"--fix {word}: what is held has the star's value, so give its name alone (see --at)")
        names += solar_abundances(space, {}) if word == SOLAR_SCALED else [word]
    return list(dict.fromkeys(names))


def _write(found: Sensitivity, wanted: list[str] | None, out: Path) -> None:
    from starpayne.files import replace_folder
    from starpayne.inside.sensitivity_figures import figures
    from starpayne.inside.sensitivity_files import write_tables

    def fill(folder: Path) -> None:
        write_tables(found, folder)
        for name, figure in figures(found, wanted).items():
            figure.savefig(folder / f"{name}.png")

    replace_folder(out, fill)


def _table(found: Sensitivity) -> str:
    """Return the errors of each parameter and its best windows, as lines of text."""
    from starpayne.inside.sensitivity_files import unit

    lines = [
        f"expected 1 σ errors at R = {found.resolution:,.0f}, S/N {found.snr:g} per pixel, {int(found.used.sum())} "
        f"pixels {found.wavelength[found.used][0]:.2f} to {found.wavelength[found.used][-1]:.2f} Å ({found.medium})",
        f"{'':10s}{'fit':>9s}{'photons':>9s}{'cont.':>9s}{'alone':>9s}  {'unit':6s}best windows (Å)",
    ]
    for i, name in enumerate(found.names):
        values = [found.errors[kind][i] for kind in ("fit", "photons", "known_continuum", "alone")]
        text = "".join(f"{value:9.3g}" for value in values)
        order = found.best[name].order[:3] if name in found.best else ()
        windows = "  ".join(f"{found.windows[w]:.1f}–{found.windows[w + 1]:.1f}" for w in order)
        note = "  (not constrained)" if f"unconstrained:{name}" in found.flags else ""
        lines.append(f"{name:10s}{text}  {unit(name):6s}{windows}{note}")
    lines.append("fit: as starpayne fit states them; photons: without the emulator's error; cont.: continuum known;")
    lines.append("alone: every other parameter known")
    flags = [flag for flag in found.flags if not flag.startswith("unconstrained:")]
    if flags:
        lines.append(f"flags: {', '.join(flags)}")
    return "\n".join(lines)
