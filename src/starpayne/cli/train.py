"""``starpayne train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from starpayne.cli.app import Json, Overwrite, progress_bar, training_note, write_result
from starpayne.errors import RecipeError


def register(app: typer.Typer) -> None:
    app.command()(train)


def train(
    grid: Annotated[Path, typer.Argument(metavar="GRID", help="Grid folder.")],
    out: Annotated[Path, typer.Option("--out", metavar="MODEL", help="Model folder to make, or to go on with.")],
    emulator: Annotated[
        str | None,
        typer.Option(help="A recipe that ships: payne, transformer, additive, gaussian_process, …"),
    ] = None,
    recipe: Annotated[str | None, typer.Option(metavar="NAME|FILE", help="The same, or a TOML file.")] = None,
    n_train: Annotated[
        int | None, typer.Option(metavar="N", help="Take the first N training spectra of the grid's split.", min=1)
    ] = None,
    quantity: Annotated[
        str | None,
        typer.Option(help="flux, or intensity with the viewing angle mu as a label; by default the recipe's."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Updates, instead of the recipe's.", min=1)] = None,
    seed: Annotated[int | None, typer.Option(help="Seed, instead of the recipe's.", min=0)] = None,
    devices: Annotated[
        int | None,
        typer.Option(metavar="N", help="Devices that share every batch; by default all of this machine.", min=1),
    ] = None,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Train an emulator on a grid; run again after a stop, it goes on where it was.

    Example: starpayne train grid.zarr --emulator transformer --n-train 1000 --out transformer.model
    """
    from starpayne.emulators import QUANTITIES
    from starpayne.grid import Grid
    from starpayne.training import Recipe, TrainingData, presets
    from starpayne.training import train as run

    if (emulator is None) == (recipe is None):
        raise RecipeError(f"give either --emulator NAME or --recipe NAME|FILE; names are {', '.join(presets())}")
    name = emulator or recipe or ""
    chosen = Recipe.from_toml(name) if recipe and recipe not in presets() else Recipe.preset(name)
    changes = {k: v for k, v in (("steps", steps), ("seed", seed), ("quantity", quantity)) if v is not None}
    chosen = chosen.replace(**changes)
    data = TrainingData.from_grid(Grid.open(grid), n_train, chosen.channels, name=grid.name, quantity=chosen.quantity)
    with progress_bar(f"training {chosen.emulator}") as bar:
        model = run(
            data, chosen, out, overwrite=overwrite, devices=devices,
            progress=lambda step, total, facts: bar(step, total, training_note(facts)),
        )  # fmt: skip
    n_spectra, what = len(data.split["train"]), QUANTITIES[chosen.quantity]
    typer.echo(
        f"{out}: {chosen.emulator} with {model.training['parameters']:,} parameters, {n_spectra} spectra, "
        f"validation MAE {model.validation['mae']:.5f} ({what}), {model.training['seconds']:.0f} s"
    )
    write_result(
        json,
        {
            "model": str(out), "emulator": chosen.emulator, "n_train": n_spectra,
            "validation": dict(model.validation), "seconds": model.training["seconds"],
        },
    )  # fmt: skip
