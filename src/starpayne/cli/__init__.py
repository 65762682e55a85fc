"""The command line: one file per verb, each of which parses, calls and prints."""

from __future__ import annotations

import sys

from starpayne.cli.app import app, console
from starpayne.cli.commands import COMMANDS
from starpayne.errors import StarpayneError

__all__ = ["app", "main"]

INTERRUPTED = 130

for register in COMMANDS:
    register(app)


def main() -> None:
    """Run the command line; bad input is one sentence on standard error and exit status 2."""
    try:
        app()
    except StarpayneError as error:
        console.print("error: ", style="bold red", end="")
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except SystemExit as stop:
        # Typer turns Ctrl-C into this status without a word.
        if stop.code == INTERRUPTED:
            console.print("\nstopped; finished work is kept, and the same command goes on from there", soft_wrap=True)
        raise
