"""``starpayne predict``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from starpayne.cli.app import Json, Model, Overwrite, console, progress_bar, refuse_existing, write_result
from starpayne.cli.sharing import load_model
from starpayne.cli.values import SOLAR_SCALED
from starpayne.errors import LabelError, WavelengthError
from starpayne.prediction_files import as_text, write_spectrum
from starpayne.wavelengths import log_grid

if TYPE_CHECKING:
    from starpayne.emulators import SpectralDomain
    from starpayne.labels import LabelSpace


def register(app: typer.Typer) -> None:
    app.command(context_settings={"ignore_unknown_options": True})(predict)


def predict(
    labels: Annotated[
        list[str] | None, typer.Argument(metavar="--NAME VALUE ...", help="Every label of the model.")
    ] = None,
    model: Model = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Spectrum to write: .csv, .txt, .fits, .npz; else it is printed, as in a .csv. With --labels: .zarr.",
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            metavar="TABLE",
            help="Predict every row of a table (.parquet, .csv, .ecsv; a column per label) into the Zarr folder --out.",
        ),
    ] = None,
    low: Annotated[float | None, typer.Option(help="First wavelength, Å; by default the model's.")] = None,
    high: Annotated[float | None, typer.Option(help="Last wavelength, Å; by default the model's.")] = None,
    sampling: Annotated[float | None, typer.Option(help="λ/Δλ of the output; by default the model's.")] = None,
    medium: Annotated[str | None, typer.Option(help="air or vacuum; by default the model's.")] = None,
    rest: Annotated[
        str | None,
        typer.Option(
            metavar="solar-scaled",
            help="Fill in the labels that are not given: [α/Fe] = 0, α elements at [α/Fe], other [X/Fe] = 0, vmic by "
            "the relation of the Gaia-ESO Survey.",
        ),
    ] = None,
    extrapolate: Annotated[
        bool,
        typer.Option(help="Allow labels outside the training range, and flag it (rows of a table are flagged anyway)."),
    ] = False,
    precision: Annotated[
        str,
        typer.Option(
            help="Of a transformer's matrix products: float32, or bfloat16, which is faster on a GPU and moves fluxes "
            "by some 1e-4."
        ),
    ] = "float32",
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Predict a spectrum from labels, each given as an option by its name, in the model's units.

    Units: --teff in K, --logg in dex(cm/s2), --vmic in km/s, --feh and --xx_fe in dex relative to the Sun;
    --mu, of a model of intensities, is the cosine of the viewing angle.

    Example: starpayne predict --teff 5772 --logg 4.44 --feh 0 --rest solar-scaled --out sun.csv

    Example: starpayne predict --model m.model --teff 5772 --logg 4.44 --feh 0 --mg_fe 0.1 --vmic 1 > star.csv

    Example: starpayne predict --model m.model --labels stars.parquet --out spectra.zarr
    """
    from starpayne.emulators import QUANTITIES

    if table is not None:
        if labels or rest is not None or out is None:
            raise LabelError("--labels TABLE needs --out FOLDER.zarr, and takes all labels from the table")
        _table(table, out, model, (low, high, sampling), medium, extrapolate, precision, overwrite, json)
        return
    if out is not None:
        refuse_existing(out, overwrite)
    emulator = load_model(model).emulator
    given = _labels(labels or [])
    if rest is not None:
        given = _filled(given, rest, emulator.space)
    vector = emulator.space.vector(given)
    wavelength = _wavelength(emulator.domain, low, high, sampling, medium)
    if wavelength is None and medium and medium != emulator.domain.medium:
        from starpayne.wavelengths import convert_medium

        wavelength = convert_medium(emulator.native_wavelength, emulator.domain.medium, medium)
    prediction = emulator.predict(vector, wavelength, medium, extrapolate=extrapolate, precision=precision)
    for flag in prediction.flags[0]:
        console.print(f"flag: {flag}", markup=False)
    facts = dict(zip(emulator.space.names, map(float, vector), strict=True))
    flux, what = prediction.flux, QUANTITIES[prediction.quantity]
    if out is None:
        typer.echo(as_text(prediction, facts), nl=False)
    else:
        write_spectrum(out, prediction, facts)
        typer.echo(
            f"{out}: {len(flux)} wavelengths {prediction.wavelength[0]:.3f} to {prediction.wavelength[-1]:.3f} Å "
            f"({prediction.medium}), {what} {float(np.min(flux)):.3f} to {float(np.max(flux)):.3f}"
        )
    write_result(
        json,
        {
            "labels": facts,
            "medium": prediction.medium,
            "flags": list(prediction.flags[0]),
            "wavelength": prediction.wavelength.tolist(),
            prediction.quantity: flux.astype(float).tolist(),
        },
    )


def _wavelength(
    domain: SpectralDomain, low: float | None, high: float | None, sampling: float | None, medium: str | None
) -> np.ndarray | None:
    """Return the wavelengths that were asked for, or None for the model's own."""
    if low is None and high is None and sampling is None:
        return None
    if (medium or domain.medium) != domain.medium and (low is None or high is None):
        raise WavelengthError(f"the model's own range is in {domain.medium}: give --low and --high in {medium}")
    return log_grid(low or domain.low, high or domain.high, sampling or domain.sampling)


def _table(
    table: Path, out: Path, model: Path | None, window: tuple[float | None, float | None, float | None],
    medium: str | None, extrapolate: bool, precision: str, overwrite: bool, json: Path | None,
) -> None:  # fmt: skip
    from starpayne import bundle
    from starpayne.prediction import predict_table
    from starpayne.prediction.store import BITS

    loaded = load_model(model)
    with progress_bar("predicting") as bar:
        found = predict_table(
            loaded, table, out, name=bundle.locate(model).name,
            wavelength=_wavelength(loaded.emulator.domain, *window, medium), medium=medium,
            extrapolate=extrapolate, precision=precision, overwrite=overwrite, progress=bar,
        )  # fmt: skip
    counts = {name: int(np.sum(found.flagged(name))) for name in BITS}
    typer.echo(f"{out}: {len(found):,} rows, {len(found.wavelength):,} wavelengths ({found.medium})")
    for name, count in counts.items():
        if count:
            typer.echo(f"flag {name}: {count:,} rows")
    facts = {"out": str(out), "rows": len(found), "wavelengths": len(found.wavelength), "chunk": found.chunk}
    write_result(json, facts | {"flags": counts})


def _filled(given: dict[str, float], rest: str, space: LabelSpace) -> dict[str, float]:
    """Return the labels with those that were not given, and say what they are."""
    from starpayne.labels import fill_solar_scaled

    if rest != SOLAR_SCALED:
        raise LabelError(f"--rest {rest!r} is not known; the labels that are not given can be {SOLAR_SCALED}")
    space.refuse_unknown(given)
    filled = fill_solar_scaled(space, given)
    listed = ", ".join(f"{name} = {value:g}" for name, value in filled.items())
    note = " (vmic by the relation of the Gaia-ESO Survey)" if "vmic" in filled else ""
    console.print(f"filled in: {listed or 'nothing was missing'}{note}", markup=False, soft_wrap=True)
    return given | filled


def _labels(words: list[str]) -> dict[str, float]:
    """Read ``--name value`` and ``--name=value`` pairs."""
    labels: dict[str, float] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise LabelError(f"{word!r} is not understood; give labels as --name value, such as --teff 5777")
        name, equals, value = word[2:].partition("=")
        if not equals:
            if not rest:
                raise LabelError(f"--{name} needs a value")
            value = rest.pop(0)
        name = name.replace("-", "_")
        if name in labels:
            raise LabelError(f"--{name} is given twice")
        try:
            labels[name] = float(value)
        except ValueError as error:
            raise LabelError(f"--{name} {value!r} is not a number") from error
    return labels
