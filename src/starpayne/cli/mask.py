"""``starpayne mask``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from starpayne.cli.app import Json, Model, Overwrite, refuse_existing, write_result
from starpayne.cli.sharing import load_model

mask = typer.Typer(help="Line masks: where a model is known to be wrong.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(mask, name="mask")


@mask.command()
def learn(
    spectrum: Annotated[Path, typer.Option(metavar="FILE", help="Spectrum of a star whose labels are known.")],
    resolution: Annotated[str, typer.Option(metavar="R", help="λ/FWHM, or a table of it (see starpayne fit).")],
    labels: Annotated[
        list[str],
        typer.Option(metavar="NAME=VALUE,…", help="Its labels; solar-scaled stands for the [X/Fe] not named."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Line mask to write (JSON).")],
    model: Model = None,
    fix: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Hold a label, as the fits to come will; or solar-scaled."),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Misfit above which a pixel is masked, as a fraction of the continuum: 0.05.")
    ] = None,
    depths: Annotated[bool, typer.Option(help="Learn by what factor the lines are too strong or too weak.")] = True,
    window: Annotated[str | None, typer.Option(metavar="LOW:HIGH", help="Use this window only, Å.")] = None,
    medium: Annotated[str | None, typer.Option(help="air or vacuum, where the file does not say.")] = None,
    unit: Annotated[str | None, typer.Option(help="Of the wavelengths: angstrom, nm, micron or m.")] = None,
    continuum_degree: Annotated[int, typer.Option(help="Of the Chebyshev continuum.", min=0)] = 3,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Learn from a known star how strong the lines are, which wavelengths not to fit, and by how much labels are off.

    Its spectrum should be as sharp and as clean as those to be fitted, and the star like them. Use the same
    --fix and continuum in the fits to come: zero points suit fits of the same labels.

    Example: starpayne mask learn --spectrum sun.txt --model m.model --resolution 47000
    --labels teff=5772,logg=4.44,feh=0,solar-scaled --out sun.mask.json
    """
    from starpayne.cli.values import pairs_or_solar, read_resolution
    from starpayne.cli.values import window as ends
    from starpayne.fitting import FitOptions
    from starpayne.fitting.masklearning import THRESHOLD, learn_mask
    from starpayne.spectra import ObservedSpectrum

    refuse_existing(out, overwrite)
    loaded = load_model(model)
    space = loaded.emulator.space
    known = pairs_or_solar("--labels", labels, space)
    options = FitOptions(
        fix=pairs_or_solar("--fix", fix or [], space), window=ends(window) if window else None, medium=medium,
        continuum_degree=continuum_degree,
    )  # fmt: skip
    observed = ObservedSpectrum.read(spectrum, unit=unit, medium=medium)
    found = learn_mask(
        observed, loaded, read_resolution(resolution), known, options, THRESHOLD if threshold is None else threshold,
        depths,
    )  # fmt: skip
    found.write(out)
    source = found.source
    fitted = "  ".join(f"{name} {value:.3f}" for name, value in source["fitted"].items())
    typer.echo(f"{spectrum}: rv {source['rv']:.2f}  vsini {source['vsini']:.2f}  {fitted}".rstrip())
    flags = [flag for flag in source["flags"] if not flag.startswith("unconstrained:")]
    if flags:
        typer.echo(f"  flags: {', '.join(flags)}")
    typer.echo(f"{out}: {len(found.windows)} windows hide {100 * source['fraction_masked']:.1f} % of the pixels")
    if found.depths is not None:
        before, after = (100 * source[f"misfit_{when}"] for when in ("before", "after"))
        typer.echo(f"line depths: misfit {before:.2f} % of the continuum before, {after:.2f} % with them")
    for name, value in found.zero_points.items():
        digits = 1 if name == "teff" else 3
        error = source["errors"][name]
        typer.echo(f"zero point of {name} (fit minus truth): {value:+.{digits}f} ± {error:.{digits}f}")
    write_result(json, {"mask": str(out), "windows": found.windows, "zero_points": dict(found.zero_points)})
