"""What all commands share: the application, the console, progress bars and JSON output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from starpayne.errors import OutputExistsError
from starpayne.files import write_json

app = typer.Typer(
    name="starpayne",
    help="Stellar spectra from stellar labels, fast enough to fit with: synthesize, train, evaluate, fit, share.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
console = Console(stderr=True)
"""Progress and errors go to standard error, results to standard output."""

Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON too.")]
MODEL = (
    "Model folder, hf://OWNER/NAME[@REVISION], or mgb, mgb_128 or mgb_fast, which come with starpayne (5160 to 5210 Å, "
    "17 labels)"
)
Model = Annotated[Path | None, typer.Option("--model", metavar="MODEL", help=f"{MODEL}; by default mgb.")]
"""Both are read by ``cli.sharing.load_model``."""
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what stands at the output path.")]


@runtime_checkable
class Update(Protocol):
    """Moves a progress bar."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


@contextmanager
def progress_bar(title: str) -> Iterator[Update]:
    """Show a bar with counts, time elapsed and time left while the block runs."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=None, note="")

        def update(done: int, total: int, note: str = "") -> None:
            progress.update(task, completed=done, total=total)
            if note:
                progress.update(task, note=note)

        yield update


def training_note(facts: Mapping[str, float]) -> str:
    """Return what a training bar says beside its counts."""
    return f"validation MAE {facts['validation_mae']:.5f}" if "validation_mae" in facts else ""


def write_result(path: Path | None, data: Any) -> None:
    """Write JSON where it was asked for."""
    if path is not None:
        write_json(path, data)


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise OutputExistsError, before any work, if an output file would be replaced without leave."""
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} exists; give another path, or --overwrite to replace it")
