"""Study files: what they say, what they refuse, and the two that ship."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from starpayne.errors import StudyError
from starpayne.study import Study, studies


def test_small_sizes_come_first_and_closed_forms_take_one_seed(plan: dict[str, Any]) -> None:
    names = [job.name for job in Study.from_dict(plan).jobs()]
    assert names == [
        "line-N20-s0", "payne-N20-s0", "payne-N20-s1",
        "line-N30-s0", "payne-N30-s0", "cubic-N30-s0", "payne-N30-s1",
    ]  # fmt: skip


def test_settings_in_a_study_replace_those_of_the_recipe(plan: dict[str, Any]) -> None:
    (job,) = [job for job in Study.from_dict(plan).jobs() if job.name == "payne-N30-s1"]
    assert (job.recipe.steps, job.recipe.seed, job.recipe.architecture.hidden) == (60, 1, (8, 8))
    assert job.recipe.learning_rate == 3e-3


@pytest.mark.parametrize("name", studies())
def test_the_studies_that_ship_compare_every_kind_of_emulator(name: str) -> None:
    study = Study.read(name)
    kinds = {c.recipe.emulator for c in study.contenders}
    assert kinds >= {"polynomial", "gaussian_process", "payne", "convolutional", "transformer", "additive"}
    assert study.recovery.n_spectra >= 100
    assert len({n for c in study.contenders for n in c.n_train}) >= 2


def test_a_recipe_file_is_found_beside_the_study(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('emulator = "payne"\nsteps = 7\n')
    (tmp_path / "study.toml").write_text('n_train = [10]\n[emulators.mine]\nrecipe = "mine.toml"\n')
    study = Study.read(tmp_path / "study.toml")
    assert (study.name, study.jobs()[0].recipe.steps) == ("study", 7)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"colour": 1}, r"^unknown study key 'colour' \(keys: name, description, n_train,"),
        ({"n_train": []}, r"^n_train = \[\] must be a list of whole numbers, such as \[500, 1000\]$"),
        ({"n_train": None}, r"^the study needs n_train, a list of whole numbers such as \[500, 1000\]$"),
        (
            {"emulators": {"a": {"recipe": "aditive"}}},
            r"^emulators.a: no recipe at aditive; did you mean 'add",
        ),
        ({"n_train": [1]}, r"^n_train holds 1: whole numbers of at least 2 are needed$"),
        ({"n_train": [2.5]}, r"^n_train holds 2.5: whole numbers"),
        ({"seeds": [-1]}, r"^seeds holds -1: whole numbers of at least 0"),
        ({"emulators": {}}, r"^a study needs at least one \[emulators.NAME\] table"),
        ({"emulators": {"a b": {"recipe": "payne"}}}, r"^the emulator name 'a b' may hold letters, digits"),
        ({"emulators": {"../x": {"recipe": "payne"}}}, r"^the emulator name '\.\./x' may hold"),
        (
            {"emulators": {"a": {"steps": 3}}},
            r"^emulators.a needs a recipe \(it has steps\): the name",
        ),
        ({"emulators": {"a": {"recipe": "payne", "seed": 3}}}, r"^emulators.a: the seeds of a study are in its list"),
        ({"emulators": {"a": {"recipe": "payne", "steps": -3}}}, r"^emulators.a: steps = -3 is outside the range 1 to"),
        (
            {"emulators": {"a": {"recipe": "payne", "stepz": 3}}},
            r"^emulators.a: unknown recipe setting 'stepz'; did you mean 'steps'",
        ),
        ({"emulators": {"a": {"recipe": "nothing.toml"}}}, r"^emulators.a: no recipe at nothing.toml; there are"),
        ({"recovery": {"snr": 0}}, r"^recovery: snr = 0 is not a number from 0.001 to 1e\+09$"),
        (
            {"recovery": {"sn": 3}},
            r"^unknown recovery key 'sn'; did you mean 'snr'\? \(keys: n_spectra, resolution, snr,",
        ),
        ({"recovery": 3}, r"^recovery = 3 is not a table of settings$"),
    ],
)
def test_what_a_study_cannot_hold_is_said(change: dict[str, Any], text: str, plan: dict[str, Any]) -> None:
    with pytest.raises(StudyError, match=text):
        Study.from_dict({**plan, **change})


def test_files_that_are_no_study_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"^no study at quikc; give a TOML file, or one that ships: paper, quick$"):
        Study.read("quikc")
    path = tmp_path / "study.toml"
    for content in (b"n_train = [", b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(StudyError, match="is not readable TOML"):
            Study.read(path)
    (tmp_path / "r.toml").write_bytes(b"\xff")
    with pytest.raises(StudyError, match="is not readable TOML"):
        Study.from_dict({"n_train": [3], "emulators": {"a": {"recipe": "r.toml"}}}, tmp_path)
