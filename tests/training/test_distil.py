"""Distillation: a student that comes near its teacher with few true spectra, resumable, and honest about it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toy
from shell import refuse, run

from starpayne import bundle
from starpayne.bundle import Model
from starpayne.emulators import Polynomial
from starpayne.errors import OutputExistsError, RecipeError, TrainingError, WavelengthError
from starpayne.evaluation import compare_distilled
from starpayne.grid import Grid
from starpayne.labels import Label, LabelSpace
from starpayne.training import Distillation, Recipe, TrainingData, distil, train
from starpayne.training import pool as pool_module
from starpayne.training.pool import TeacherSpectra

FEW = Distillation(margin=0, true_fraction=0.25, first=64, spectra=128)


def few(n: int = 8) -> TrainingData:
    """The toy's data with so few training spectra that a network alone cannot learn it."""
    data = toy.data()
    split = {**data.split, "train": data.split["train"][:n]}
    return replace(data, labels=data.labels[:n], targets=data.targets[:n], split=split)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A cubic polynomial of many toy spectra: close to the truth, and quick."""
    values = toy.labels(400, seed=9)
    data = toy.data(labels=values, targets=toy.spectra(values)[:, None], split={**toy.data().split, "train": []})
    recipe = toy.recipe("polynomial").replace(architecture={"degree": 3})
    return train(data, recipe, tmp_path_factory.mktemp("teacher") / "teacher.model")


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return toy.recipe("payne", steps=360, learning_rate=1e-2)


@pytest.fixture(scope="module")
def student(teacher: Model, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return distil(teacher, few(), recipe, tmp_path_factory.mktemp("student") / "m", FEW, name="teacher.model")


def test_a_student_knows_more_than_the_same_network_without_a_teacher(student, teacher, recipe, tmp_path) -> None:
    alone = train(few(), recipe, tmp_path / "alone")
    assert student.validation["mae"] < 0.7 * alone.validation["mae"]
    facts = student.training["distillation"]
    assert facts["teacher"]["digest"] == bundle.digest(teacher.emulator)
    assert facts["teacher"]["name"] == "teacher.model"
    assert facts["teacher"]["architecture"] == "polynomial"
    assert facts["teacher_mae"] == pytest.approx(teacher.validation["mae"], rel=1e-5)
    assert (facts["goal"], facts["reached"], facts["steps"]) == (0, False, 360)
    assert len(student.training["split"]["train"]) == 8


def test_a_student_is_an_ordinary_model(student: Model, tmp_path: Path) -> None:
    loaded = bundle.load(bundle.save(student, tmp_path / "m"))
    assert toy.same_weights(loaded, student)
    assert loaded.residuals is not None
    assert loaded.training["distillation"] == student.training["distillation"]
    np.testing.assert_array_equal(loaded.emulator.native_wavelength, toy.WAVELENGTH)


@pytest.mark.parametrize("steps", [(30,), (90, 210)])
def test_a_resumed_distillation_equals_an_uninterrupted_one(steps, student, teacher, recipe, tmp_path) -> None:
    left = set(steps)

    def progress(step: int, _: int, facts: object) -> None:
        if step in left and "loss" in facts:
            left.remove(step)
            raise KeyboardInterrupt

    for _ in steps:
        with pytest.raises(KeyboardInterrupt):
            distil(teacher, few(), recipe, tmp_path / "m", FEW, progress=progress)
    resumed = distil(teacher, few(), recipe, tmp_path / "m", FEW, progress=progress)
    assert toy.same_weights(resumed, student)
    assert resumed.training["history"] == student.training["history"]


def test_it_ends_when_the_student_is_near_enough(teacher: Model, recipe: Recipe, tmp_path: Path) -> None:
    seen: list[dict[str, float]] = []
    # So wide a margin that the first validation is inside of it.
    settings = replace(FEW, margin=1e6)
    model = distil(teacher, few(), recipe, tmp_path / "m", settings, progress=lambda *a: seen.append(dict(a[2])))
    facts = model.training["distillation"]
    assert facts["reached"]
    assert facts["steps"] == recipe.validate_every
    assert seen[0] == {"teacher_spectra": 64}
    # And it is finished: nothing is trained again.
    again = distil(teacher, few(), recipe, tmp_path / "m", settings)
    assert toy.same_weights(again, model)
    with pytest.raises(OutputExistsError, match=r"not this training \(margin was 1000000.0\); give another path"):
        distil(teacher, few(), recipe, tmp_path / "m", FEW)


def test_teacher_spectra_come_with_the_steps_and_are_the_teachers(teacher: Model, recipe: Recipe) -> None:
    told: list[tuple[int, int]] = []
    source = TeacherSpectra(
        teacher.emulator, few(), recipe, 0.25, 64, 256, lambda step, n: told.append((step, n))
    )  # fmt: skip
    start = source.take(0, 2)
    assert start.rows.shape == (2, 16)
    assert np.all(start.rows[:, :4] < 8)
    assert np.all((start.rows[:, 4:] >= 8) & (start.rows[:, 4:] < 8 + 64))
    later = source.take(180, 181)
    assert told == [(0, 64), (180, 128), (180, 192), (180, 256)]
    assert later.rows.max() >= 8 + 64
    labels = np.asarray(later.labels)[8:]
    assert np.all(toy.SPACE.inside(labels))
    assert len(np.unique(labels[:, 0])) == 256
    expected = teacher.emulator.predict(labels).flux
    np.testing.assert_allclose(np.asarray(later.targets)[8:, 0], expected, atol=1e-4)
    # Without a past, the same: this is what a resumed training sees.
    fresh = TeacherSpectra(teacher.emulator, few(), recipe, 0.25, 64, 256).take(180, 181)
    for one, other in zip(fresh, later, strict=True):
        np.testing.assert_array_equal(one, other)


def test_where_memory_is_short_the_newest_spectra_replace_the_oldest(teacher, recipe, monkeypatch) -> None:
    monkeypatch.setattr(pool_module, "MEMORY", 2 * 64 * 4 * len(toy.WAVELENGTH))
    source = TeacherSpectra(teacher.emulator, few(), recipe, 0.0, 64, 192)
    first = np.asarray(source.take(0, 1).labels)
    last = source.take(180, 181)
    assert len(last.labels) == 8 + 2 * 64
    assert not np.any(last.labels[8:72] == first[8:72])
    assert np.all(last.rows >= 8)
    fresh = TeacherSpectra(teacher.emulator, few(), recipe, 0.0, 64, 192).take(180, 181)
    np.testing.assert_array_equal(fresh.targets, last.targets)


def other_teacher(teacher: Model, **changes: object) -> Model:
    """The teacher with another label space or domain."""
    emulator = teacher.emulator
    assert isinstance(emulator, Polynomial)
    return replace(teacher, emulator=replace(emulator, **changes))


def test_a_teacher_of_other_labels_or_spectra_is_refused(teacher: Model, recipe: Recipe, tmp_path: Path) -> None:
    domain = teacher.emulator.domain
    renamed = LabelSpace((*toy.SPACE.labels[:4], Label("ca_fe", -0.5, 0.9)))
    for changed, error, message in (
        ({"space": renamed}, TrainingError, "it lacks ca_fe, and has besides mg_fe; fine-tune the teacher"),
        ({"domain": replace(domain, resolution=5000.0)}, TrainingError, "have resolution 5000.0, those of the grid"),
        ({"domain": replace(domain, high=5004.0)}, WavelengthError, "leave the model's range 5000.000 to 5004.000"),
        (
            {"space": LabelSpace((Label("teff", 100, 200), *toy.SPACE.labels[1:]))}, TrainingError,
            "0 training and 0 validation spectra of the grid are inside the teacher's label ranges",
        ),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            distil(other_teacher(teacher, **changed), few(), recipe, tmp_path / "m", FEW)
    both = toy.data(("flux", "log10_continuum"))
    with pytest.raises(TrainingError, match="the teacher does not give log10_continuum; it gives flux"):
        distil(teacher, both, recipe.replace(channels=both.channels), tmp_path / "m", FEW)
    with pytest.raises(TrainingError, match="the recipe's channels"):
        distil(teacher, both, recipe, tmp_path / "m", FEW)


def test_a_teacher_that_has_seen_the_validation_spectra_is_refused(teacher, recipe, tmp_path) -> None:
    seen = replace(teacher, training={**teacher.training, "split": {"train": [0, 41, 42]}})
    with pytest.raises(TrainingError, match=r"was trained on 2 of the validation spectra \(row 41 of the grid"):
        distil(seen, few(), recipe, tmp_path / "m", FEW)


def test_a_student_in_closed_form_is_refused(teacher: Model, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="a polynomial is solved for, not taught step by step"):
        distil(teacher, few(), toy.recipe("polynomial"), tmp_path / "m", FEW)
    with pytest.raises(RecipeError, match=r"true_fraction = 1\.0 is outside the range"):
        Distillation(true_fraction=1.0)
    with pytest.raises(RecipeError, match="spectra = 10 is outside the range 4096"):
        Distillation(spectra=10)


def test_labels_in_another_order_are_put_into_the_teachers(student, teacher, recipe, tmp_path) -> None:
    data, order = few(), [4, 3, 2, 1, 0]
    space = LabelSpace(tuple(toy.SPACE.labels[i] for i in order), toy.SPACE.constraints)
    turned = replace(
        data, space=space, labels=data.labels[:, order], validation_labels=data.validation_labels[:, order]
    )
    model = distil(teacher, turned, recipe, tmp_path / "m", FEW)
    assert model.emulator.space == toy.SPACE
    assert toy.same_weights(model, student)


def test_teacher_and_student_meet_the_same_unseen_spectra(student: Model, payne_model, finished_grid: Grid) -> None:
    own = {**payne_model.training, "source": {"fingerprint": finished_grid.fingerprint}}
    # The teacher was trained on the first test spectrum.
    teacher = replace(payne_model, training={**own, "split": {"train": [0, 1, finished_grid.split.test[0]]}})
    compared = compare_distilled(teacher, student, finished_grid, alone=payne_model)
    facts = compared.to_dict()
    assert facts["n_spectra"] == 9
    assert facts["student_over"]["teacher"] == pytest.approx(facts["student"]["mae"] / facts["teacher"]["mae"])
    assert facts["teacher"]["mae"] == facts["without the teacher"]["mae"]
    assert "9 test spectra of toy.zarr" in compared.as_text()
    assert f"{facts['student_over']['teacher']:.2f}" in compared.as_text()


def test_from_the_shell(teacher: Model, finished_grid: Grid, tmp_path: Path, monkeypatch, capsys) -> None:
    folder = bundle.save(teacher, tmp_path / "t.model")
    (tmp_path / "r.toml").write_text(
        "emulator = 'payne'\nsteps = 60\nvalidate_every = 20\nbatch_spectra = 16\n[architecture]\nhidden = [16]\n"
    )
    words = ["distil", folder, "--grid", finished_grid.path, "--student", tmp_path / "r.toml", "--spectra", 64]
    words += ["--n-train", 8, "--out", tmp_path / "s.model", "--baseline", tmp_path / "a.model"]
    said = run(*words, "--json", tmp_path / "j.json", "--figure", tmp_path / "f.png")
    facts = json.loads((tmp_path / "j.json").read_text())
    assert facts["settings"]["spectra"] == 64
    assert "payne taught by t.model (polynomial)" in said
    assert f"{facts['held_out']['without the teacher']['mae']:.5f}" in said
    assert (tmp_path / "f.png").stat().st_size > 10_000
    assert "distilled" in run("info", tmp_path / "s.model")
    assert "no recipe at payne_wid; did you mean 'payne_wide'?" in refuse(
        monkeypatch, capsys, *words[:4], "--student", "payne_wid", "--out", tmp_path / "x"
    )
