"""``starpayne finetune`` and ``starpayne merge``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from starpayne.cli.app import (
    MODEL,
    Json,
    Overwrite,
    console,
    progress_bar,
    refuse_existing,
    training_note,
    write_result,
)
from starpayne.cli.sharing import load_model
from starpayne.cli.values import SOLAR_SCALED
from starpayne.errors import LabelError, RecipeError

if TYPE_CHECKING:
    from starpayne.bundle import Model
    from starpayne.grid import Grid
    from starpayne.training import FineTuning


def register(app: typer.Typer) -> None:
    app.command()(finetune)
    app.command()(merge)


def finetune(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help=f"To start from. {MODEL}")],
    grid: Annotated[Path, typer.Argument(metavar="GRID", help="Grid folder to adapt it to.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="MODEL", help="Folder to make: a model, or an update of one."),
    ] = None,
    n_train: Annotated[
        int | None,
        typer.Option(metavar="N", help="Use N spectra of the grid, held-out included.", min=1),
    ] = None,
    pick: Annotated[
        str, typer.Option(help="Which N: the first of the grid, or those representative of its stars.")
    ] = "first",
    moves: Annotated[
        str,
        typer.Option(
            help="A correction in closed form; or what is trained: all, head, labels, or lora (low-rank updates). "
            "auto: the correction, where the model knows the grid's labels and wavelengths; else all."
        ),
    ] = "auto",
    rank: Annotated[int | None, typer.Option(help="Rank of the updates of lora.", min=1)] = None,
    steps: Annotated[int | None, typer.Option(help="Updates at most.", min=1)] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.", min=0)] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random.", min=0)] = None,
    hold: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Hold a label that the grid lacks; or solar-scaled for all of them."),
    ] = None,
    continuum: Annotated[bool, typer.Option("--continuum", help="Learn the continuum too.")] = False,
    convert_medium: Annotated[
        bool, typer.Option("--convert-medium", help="Convert the grid's wavelengths to the model's medium.")
    ] = False,
    old_grid: Annotated[
        Path | None, typer.Option(metavar="GRID", help="The model's own grid: say how much of it is forgotten.")
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Fine-tune on growing subsets, and say how many spectra are needed.")
    ] = False,
    sizes: Annotated[str | None, typer.Option(metavar="N,N,…", help="Sizes of the subsets of --plan.")] = None,
    goal: Annotated[float | None, typer.Option(metavar="MAE", help="Error that --plan is to reach.", min=0)] = None,
    figure: Annotated[Path | None, typer.Option(metavar="FILE", help="Figure of --plan (PNG or PDF).")] = None,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Adapt a trained emulator to another grid: other physics, labels, wavelengths, with few spectra.

    Labels that only the grid has start from no effect. The number of steps is chosen by spectra that are held out.

    Example: starpayne finetune base.model new.zarr --n-train 100 --out new.model

    Example: starpayne finetune base.model new.zarr --plan --goal 0.002
    """
    from starpayne import bundle
    from starpayne.grid import Grid
    from starpayne.sharing import hub_address
    from starpayne.training import FineTuning
    from starpayne.training.transfer import PICKS, refuse_place

    if plan == (out is not None):
        raise RecipeError("give either --out MODEL for a fine-tuned model, or --plan for a learning curve")
    if out is not None and (sizes or goal is not None or figure is not None):
        raise RecipeError("--sizes, --goal and --figure belong to --plan, which makes no model")
    if pick not in PICKS:
        raise RecipeError(f"--pick {pick} is not known; choose one of {', '.join(PICKS)}")
    if plan and (n_train is not None or old_grid is not None):
        raise RecipeError("--n-train and --old-grid belong to --out; --plan takes its numbers of spectra from --sizes")
    if moves == "lora" and out is not None and hub_address(model) is not None:
        raise RecipeError("an update stands beside its base: make a folder of it first, with starpayne pull … --out")
    if out is not None:
        refuse_place(out, model, moves == "lora", overwrite)
    if figure is not None:
        refuse_existing(figure, overwrite)
    changes = {"rank": rank, "steps": steps, "learning_rate": learning_rate, "seed": seed}
    settings = FineTuning(moves=moves, **{k: v for k, v in changes.items() if v is not None})  # pyright: ignore[reportArgumentType]
    base, opened = load_model(model), Grid.open(grid)
    held = _held(hold or [], base, opened)
    options: dict[str, Any] = {"hold": held, "continuum": continuum, "convert": convert_medium}
    options |= {"pick": pick, "name": grid.name}
    if plan:
        _plan(base, opened, settings, sizes, goal, figure, json, options)
    elif out is not None:
        _tune(base, bundle.locate(model), opened, settings, n_train, out, overwrite, old_grid, json, options)


def merge(
    adapter: Annotated[Path, typer.Argument(metavar="UPDATE", help="Folder of a low-rank update.")],
    out: Annotated[Path, typer.Option("--out", metavar="MODEL", help="Model folder to make.")],
    base: Annotated[
        Path | None, typer.Option(metavar="MODEL", help="The base model, if it is not where the update says.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Merge a low-rank update into its base model: an ordinary model with the same predictions.

    Example: starpayne merge new.lora --out new.model
    """
    from starpayne import bundle
    from starpayne.training.transfer import refuse_place

    refuse_place(out, adapter, False, overwrite)
    if not (adapter / bundle.ADAPTER).exists():
        raise RecipeError(f"{adapter} holds no {bundle.ADAPTER}: it is no low-rank update of a model")
    model = bundle.load_adapter(adapter, None if base is None else load_model(base))
    bundle.save(model, out, overwrite)
    typer.echo(f"{out}: {model.emulator.architecture}, validation MAE {model.validation['mae']:.5f}")


def _tune(
    base: Model, base_path: Path, grid: Grid, settings: FineTuning, n: int | None, out: Path, overwrite: bool,
    old_grid: Path | None, json: Path | None, options: Mapping[str, Any],
) -> None:  # fmt: skip
    from starpayne.evaluation import drift, evaluate, forgotten
    from starpayne.grid import Grid
    from starpayne.training import few_spectra, save_tuned
    from starpayne.training import finetune as run

    own = Grid.open(old_grid) if old_grid else None
    data = few_spectra(base, grid, n, **options)
    with progress_bar("fine-tuning") as bar:
        tuned = run(
            base, data, settings, name=base_path.name,
            progress=lambda step, total, facts: bar(step, total, training_note(facts)),
        )  # fmt: skip
    save_tuned(tuned, base, base_path, out, overwrite)
    model, facts = tuned.model, tuned.model.training["finetuning"]
    stored, total = facts["weights_stored"], facts["weights_in_all"]
    how = f"corrected with {facts['n_spectra']} spectra"
    if "best_step" in facts:
        how = f"fine-tuned on {facts['n_spectra']} spectra ({facts['settings']['moves']}), {facts['best_step']} steps"
    typer.echo(
        f"{out}: {base.emulator.architecture} {how}, {model.training['seconds']:.0f} s; "
        f"{stored:,} of {total:,} weights {'are new' if 'best_step' not in facts else 'moved'}"
    )
    typer.echo(f"held-out spectra: MAE {model.validation['mae']:.5f} (before: {facts['mae_before']:.5f})")
    if not facts["helped"]:
        typer.echo("it did not make the held-out error smaller: this is the base model, adapted to the grid")
    report: dict[str, Any] = {"model": str(out), "validation": dict(model.validation), **facts}
    if len(grid.usable(grid.split.test)):
        report["test_mae"] = evaluate(model, grid).mae
        typer.echo(f"test spectra of {grid.path.name}: MAE {report['test_mae']:.5f}")
    report["drift"] = dict(drift(base.emulator, model.emulator))
    typer.echo(f"moved from the base model by: {_said(report['drift'], 'mae')}")
    if own is not None:
        report["forgotten"] = dict(forgotten(base, model, own))
        typer.echo(f"test spectra of the old grid {own.path.name}: {_said(report['forgotten'], 'before', 'after')}")
    write_result(json, report)


def _plan(
    base: Model, grid: Grid, settings: FineTuning, sizes: str | None, goal: float | None, figure: Path | None,
    json: Path | None, options: Mapping[str, Any],
) -> None:  # fmt: skip
    from starpayne import plots
    from starpayne.evaluation import evaluate
    from starpayne.training import learning_curve

    try:
        chosen: Sequence[int] = [int(n) for n in sizes.split(",")] if sizes else ()
    except ValueError as error:
        raise RecipeError(f"--sizes {sizes}: whole numbers with commas between them are wanted") from error
    tested = len(grid.usable(grid.split.test)) > 0
    with progress_bar("learning curve") as bar:
        curve = learning_curve(
            base, grid, settings, chosen, error=(lambda model: evaluate(model, grid).mae) if tested else None,
            progress=lambda step, total, facts: bar(step, total, training_note(facts)), **options,
        )  # fmt: skip
    typer.echo(f"MAE on {'the test spectra' if tested else 'held-out spectra'} of {grid.path.name}")
    typer.echo(f"{'base model':>12s}  {curve.before:.5f}")
    for n, mae in zip(curve.n, curve.mae, strict=True):
        typer.echo(f"{n:12d}  {mae:.5f}")
    if math.isnan(curve.slope):
        typer.echo("fewer than two sizes improve on the base model: no law can be fitted; try more spectra")
    else:
        typer.echo(f"law: MAE = {curve.scale:.4g} N^{curve.slope:.3f} (extrapolated, not promised)")
        for n in (2 * curve.n[-1], 5 * curve.n[-1]):
            typer.echo(f"{n:12d}  {curve.expected(n):.5f}  expected")
        if goal is not None:
            needed = curve.needed(goal)
            typer.echo(f"for MAE {goal:g}: {f'about {needed:,.0f} spectra' if needed < 1e9 else 'not by this law'}")
    if figure is not None:
        plots.learning_curve(curve, goal).savefig(figure)
    write_result(json, curve.to_dict())


def _held(words: Sequence[str], base: Model, grid: Grid) -> dict[str, float]:
    """Return the values of --hold, and say which were filled in."""
    from starpayne.labels import solar_scaled

    held: dict[str, float] = {}
    for word in words:
        if word == SOLAR_SCALED:
            continue
        name, _, value = word.partition("=")
        try:
            held[name] = float(value)
        except ValueError as error:
            raise LabelError(f"--hold {word}: write NAME=VALUE, as in --hold na_fe=0, or {SOLAR_SCALED}") from error
    if SOLAR_SCALED not in words:
        return held
    filled = {k: v for k, v in solar_scaled(base.emulator.space, grid.space).items() if k not in held}
    listed = ", ".join(f"{name}={value:g}" for name, value in filled.items())
    console.print(f"held solar-scaled: {listed or 'nothing is missing'}", soft_wrap=True, markup=False)
    return {**filled, **held}


def _said(facts: Mapping[str, Any], *keys: str) -> str:
    return str(facts["why"]) if "why" in facts else "MAE " + " → ".join(f"{facts[key]:.5f}" for key in keys)
