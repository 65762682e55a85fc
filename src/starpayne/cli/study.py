"""``starpayne study``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from starpayne.cli.app import Json, progress_bar, write_result
from starpayne.errors import OutputExistsError


def register(app: typer.Typer) -> None:
    app.command()(study)


def study(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="A study that ships (quick, paper), or a TOML file.")],
    grid: Annotated[Path, typer.Option("--grid", metavar="GRID", help="Grid folder that all emulators learn from.")],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Folder for models, tables and figures.")],
    json: Json = None,
) -> None:
    """Train every emulator of a study at every size and seed, and compare them; run again after a stop, it goes on.

    Writes study.html, study.csv, recovery.csv, study.json, figures/ and the models in jobs/.

    Example: starpayne study quick --grid grid.zarr --out quick-study
    """
    from starpayne.grid import Grid
    from starpayne.study import Study, run_study
    from starpayne.study.report import summary, write_report
    from starpayne.study.table import row_of

    plan = Study.read(study)
    opened = Grid.open(grid)
    if out.exists() and not out.is_dir():
        raise OutputExistsError(f"--out {out} is a file; give a folder")
    with progress_bar("study") as bar:
        results = run_study(plan, opened, out, bar)
    page = write_report(plan, results, out)
    head, rows = summary(results)
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
    for result in results:
        if "failed" in result:
            typer.echo(f"not trained: {result['emulator']}, N = {result['n_train']}: {result['failed']}")
    lost = {r["recovery_failed"] for r in results if "recovery_failed" in r}
    for reason in sorted(lost):
        typer.echo(f"labels not recovered: {reason}")
    typer.echo(f"report: {page}")
    write_result(json, {"study": plan.name, "report": str(page), "trainings": [row_of(r) for r in results]})
