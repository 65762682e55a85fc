"""``starpayne distil``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from starpayne.cli.app import MODEL, Json, Overwrite, progress_bar, refuse_existing, training_note, write_result
from starpayne.cli.sharing import load_model


def register(app: typer.Typer) -> None:
    app.command()(distil)


def distil(
    teacher: Annotated[Path, typer.Argument(metavar="TEACHER", help=f"To learn from. {MODEL}")],
    grid: Annotated[Path, typer.Option("--grid", metavar="GRID", help="Grid folder: true spectra, and wavelengths.")],
    out: Annotated[Path, typer.Option("--out", metavar="MODEL", help="Model folder to make, or to go on with.")],
    student: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="Recipe of the student: one that ships, or a TOML file.")
    ] = "payne_wide",
    n_train: Annotated[
        int | None, typer.Option(metavar="N", help="True spectra: the first N of the grid's training order.", min=1)
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Updates at most, instead of the recipe's.", min=1)] = None,
    margin: Annotated[
        float | None,
        typer.Option(help="End when the error is below this many times the teacher's (1.15); 0: all steps.", min=0),
    ] = None,
    true_fraction: Annotated[
        float | None, typer.Option(help="Part of every batch that are true spectra (0.1).", min=0, max=0.9)
    ] = None,
    spectra: Annotated[
        int | None, typer.Option(metavar="N", help="Spectra to have from the teacher in all (32,768).", min=1)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed, instead of the recipe's.", min=0)] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(metavar="MODEL", help="Also train the same network without the teacher, into this folder."),
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Errors by wavelength of all, side by side (PNG or PDF).")
    ] = None,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Teach a small, fast network what a large one knows; run again after a stop, it goes on where it was.

    The student learns from any number of the teacher's spectra and from the true ones of the grid, whose held-out
    spectra judge it.

    Example: starpayne distil transformer.model --grid grid.zarr --student payne_wide --out fast.model

    Example: starpayne distil mgb --grid grid.zarr --baseline alone.model --out fast.model --json report.json
    """
    from starpayne import bundle, plots
    from starpayne.evaluation import compare_distilled
    from starpayne.grid import Grid
    from starpayne.study.cost import prediction_cost
    from starpayne.training import Distillation, Recipe, TrainingData, presets, train
    from starpayne.training import distil as run

    if figure is not None:
        refuse_existing(figure, overwrite)
    chosen = Recipe.preset(student) if student in presets() else Recipe.from_toml(student)
    chosen = chosen.replace(**{k: v for k, v in (("steps", steps), ("seed", seed)) if v is not None})
    changes: dict[str, Any] = {"margin": margin, "true_fraction": true_fraction, "spectra": spectra}
    if spectra is not None:
        changes["first"] = min(spectra, Distillation.first)
    settings = Distillation(**{k: v for k, v in changes.items() if v is not None})
    loaded, opened = load_model(teacher), Grid.open(grid)
    data = TrainingData.from_grid(opened, n_train, chosen.channels, name=grid.name, quantity=chosen.quantity)
    name = bundle.locate(teacher).name
    with progress_bar(f"distilling {name}") as bar:
        model = run(
            loaded, data, chosen, out, settings, name=name, overwrite=overwrite,
            progress=lambda step, total, facts: bar(step, total, _note(facts)),
        )  # fmt: skip
    alone = None
    if baseline is not None:
        with progress_bar("without the teacher") as bar:
            alone = train(
                data, chosen, baseline, overwrite=overwrite,
                progress=lambda step, total, facts: bar(step, total, training_note(facts)),
            )  # fmt: skip
    facts = dict(model.training["distillation"])
    compared = compare_distilled(loaded, model, opened, alone)
    times = {
        who: prediction_cost(m.emulator, compared.evaluations["student"].labels)["ms_per_spectrum_in_batch"]
        for who, m in (("teacher", loaded), ("student", model))
    }
    typer.echo(
        f"{out}: {chosen.emulator} taught by {name} ({loaded.emulator.architecture}), {facts['steps']} of "
        f"{chosen.steps} steps, {model.training['seconds']:.0f} s; within {settings.margin:g} times the teacher's "
        f"validation error: {'yes' if facts['reached'] else 'no'}"
    )
    typer.echo(compared.as_text())
    typer.echo(f"ms per spectrum, in a batch: teacher {times['teacher']:.3g}, student {times['student']:.3g}")
    if figure is not None:
        plots.residuals_by_wavelength(compared.evaluations).savefig(figure)
    write_result(
        json,
        {
            "model": str(out), "baseline": None if baseline is None else str(baseline), "recipe": chosen.to_dict(),
            "n_train": len(model.training["split"]["train"]), "validation": dict(model.validation),
            "seconds": model.training["seconds"], "ms_per_spectrum_in_batch": times, **facts,
            "held_out": compared.to_dict(),
        },
    )  # fmt: skip


def _note(facts: Any) -> str:
    return f"{facts['teacher_spectra']:,} teacher spectra" if "teacher_spectra" in facts else training_note(facts)
