"""``starpayne study`` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from shell import refuse, run

from starpayne.grid import Grid

STUDY = """
n_train = [20]
[recovery]
n_spectra = 0
[emulators.line]
recipe = "polynomial2"
architecture = { degree = 1 }
[emulators.cubic]
recipe = "polynomial2"
architecture = { degree = 3 }
"""


def test_a_study_from_the_shell(finished_grid: Grid, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(STUDY)
    out = tmp_path / "out"
    text = run(
        "study", tmp_path / "mine.toml", "--grid", finished_grid.path, "--out", out, "--json", tmp_path / "study.json"
    )
    facts = json.loads((tmp_path / "study.json").read_text())
    line, cubic = facts["trainings"]
    assert f"line      {line['test_mae']:.5f}" in text
    assert "not trained: cubic, N = 20: a polynomial of degree 3 in 5 labels has 56 terms" in text
    assert cubic["test_mae"] is None
    assert str(out / "study.html") in text.replace("\n", "")
    assert (out / "jobs" / "line-N20-s0" / "model" / "emulator.json").is_file()


def test_a_study_that_is_not_there_is_one_sentence(
    finished_grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = refuse(monkeypatch, capsys, "study", "papr", "--grid", finished_grid.path, "--out", tmp_path / "out")
    assert "no study at papr; give a TOML file, or one that ships: paper, quick" in text
    assert not (tmp_path / "out").exists()


def test_an_out_that_is_a_file_is_one_sentence(
    finished_grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("")
    text = refuse(monkeypatch, capsys, "study", "quick", "--grid", finished_grid.path, "--out", tmp_path / "out")
    assert "is a file; give a folder" in text
