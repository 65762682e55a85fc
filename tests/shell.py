"""Run the command line inside the tests."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from starpayne.cli import app, main


def run(*words: object) -> str:
    """Run a command that must succeed and return its standard output."""
    done = CliRunner().invoke(app, [str(w) for w in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def refuse(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Run a command that must end with status 2 and return the sentence it prints."""
    monkeypatch.setattr("sys.argv", ["starpayne", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    return " ".join(capsys.readouterr().err.split())
