"""``starpayne finetune`` and ``starpayne merge`` as a user meets them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import toy
from shell import refuse, run

from starpayne import bundle
from starpayne.bundle import Model
from starpayne.evaluation import drift, evaluate, forgotten
from starpayne.grid import Grid
from starpayne.labels import LabelSpace

FAST = ["--steps", 40, "--learning-rate", 0.005]


@pytest.fixture
def base(payne_model: Model, tmp_path: Path) -> Path:
    return bundle.save(payne_model, tmp_path / "base.model")


@pytest.fixture
def without_magnesium(tmp_path: Path) -> Path:
    """A grid of [Mg/Fe] = 0 that does not have it as a label."""
    values = toy.labels()
    values[:, 4] = 0
    space = LabelSpace(toy.SPACE.labels[:4])
    grid = toy.empty_grid(tmp_path / "no_mg.zarr", space=space, labels=values[:, :4])
    grid.write_all(toy.deeper_spectra(values), toy.continua(values))
    return grid.path


def test_finetune_says_what_it_made_and_what_it_did(
    base: Path, deeper_grid: Grid, finished_grid: Grid, tmp_path: Path
) -> None:
    out, facts_path = tmp_path / "new.model", tmp_path / "f.json"
    words = ["--n-train", 20, "--old-grid", finished_grid.path, "--out", out, "--json", facts_path]
    text = run("finetune", base, deeper_grid.path, *FAST, *words)
    model, old = bundle.load(out), bundle.load(base)
    facts = json.loads(facts_path.read_text())
    assert facts["test_mae"] == evaluate(model, deeper_grid).mae < evaluate(old, deeper_grid).mae
    assert facts["drift"] == drift(old.emulator, model.emulator)
    assert facts["forgotten"] == forgotten(old, model, finished_grid)
    assert facts["validation"] == model.validation
    assert facts["base"]["name"] == "base.model"
    assert (facts["model"], facts["n_spectra"], facts["folds"]) == (str(out), 20, 5)
    assert (facts["settings"]["steps"], facts["settings"]["learning_rate"]) == (40, 0.005)
    assert f"payne fine-tuned on 20 spectra (all), {facts['best_step']} steps" in text
    assert f"{facts['weights_stored']:,} of {facts['weights_in_all']:,} weights moved" in text
    assert f"held-out spectra: MAE {model.validation['mae']:.5f} (before: {facts['mae_before']:.5f})" in text
    assert f"test spectra of deeper.zarr: MAE {facts['test_mae']:.5f}" in text
    assert f"moved from the base model by: MAE {facts['drift']['mae']:.5f}" in text
    old_and_new = "MAE {before:.5f} → {after:.5f}".format(**facts["forgotten"])
    assert f"test spectra of the old grid toy.zarr: {old_and_new}" in text
    assert "did not make" not in text


def test_finetune_says_that_no_step_helped(base: Path, payne_model: Model, tmp_path: Path) -> None:
    grid = toy.empty_grid(tmp_path / "g.zarr")
    grid.write_all(payne_model.emulator.predict(toy.labels()).flux, toy.continua(toy.labels()))
    text = run("finetune", base, grid.path, "--n-train", 10, "--steps", 10, "--out", tmp_path / "new.model")
    assert "it did not make the held-out error smaller: this is the base model, adapted to the grid" in text
    assert toy.same_weights(bundle.load(tmp_path / "new.model"), payne_model)


def test_an_update_is_made_merged_and_needs_its_base(
    base: Path, deeper_grid: Grid, monkeypatch, capsys, tmp_path: Path
) -> None:
    update, whole = tmp_path / "new.lora", tmp_path / "whole.model"
    words = [*FAST, "--moves", "lora", "--rank", 2, "--n-train", 10]
    text = run("finetune", base, deeper_grid.path, *words, "--out", update)
    assert "fine-tuned on 10 spectra (lora)" in text
    model = bundle.load(update)
    assert f"payne, validation MAE {model.validation['mae']:.5f}" in run("merge", update, "--out", whole)
    assert toy.same_weights(bundle.load(whole), model)
    assert evaluate(bundle.load(whole), deeper_grid).mae == evaluate(model, deeper_grid).mae
    # An update of the update, or in the place of its base, could never be read again.
    again = refuse(monkeypatch, capsys, "finetune", update, deeper_grid.path, *words, "--out", tmp_path / "two.lora")
    assert "new.lora is a low-rank update itself; merge it into its base first: starpayne merge" in again
    said = refuse(monkeypatch, capsys, "finetune", base, deeper_grid.path, *words, "--out", base, "--overwrite")
    assert "base.model is the base model, which a low-rank update of it needs; give another path" in said
    assert bundle.load(base).training["identity"]

    shutil.move(base, tmp_path / "elsewhere.model")
    said = refuse(monkeypatch, capsys, "merge", update, "--out", tmp_path / "again.model")
    assert "is an update of a base model that is not at" in said
    run("merge", update, "--base", tmp_path / "elsewhere.model", "--out", tmp_path / "again.model")
    assert toy.same_weights(bundle.load(tmp_path / "again.model"), model)
    said = refuse(monkeypatch, capsys, "merge", update, "--out", whole)
    assert "whole.model exists; give another path, or --overwrite" in said
    said = refuse(monkeypatch, capsys, "merge", whole, "--out", tmp_path / "more.model")
    assert "whole.model holds no adapter.json: it is no low-rank update of a model" in said


@pytest.mark.parametrize(
    ("hold", "text"),
    [
        ([], r"the grid lacks labels of the model: mg_fe \(-0\.5 to 0\.9 dex\); say where to hold each, as in mg_fe=0"),
        (["mg_fe"], r"--hold mg_fe: write NAME=VALUE, as in --hold na_fe=0, or solar-scaled"),
        (["mg_fe=low"], r"--hold mg_fe=low: write NAME=VALUE"),
        (["mg_fe=2"], r"mg_fe cannot be held at 2: the model knows -0\.5 to 0\.9"),
        (["mg_fe=nan"], r"mg_fe cannot be held at nan"),
        (["mg_fe=0", "mgfe=0"], r"a label to hold: unknown label 'mgfe'; did you mean 'mg_fe'\?"),
        (["mg_fe=0", "teff=5772"], r"teff is a label of the grid; it cannot be held at 5772"),
    ],
)
def test_a_label_that_cannot_be_held_so_is_refused(
    hold: list[str], text: str, base: Path, without_magnesium: Path, monkeypatch, capsys, tmp_path: Path
) -> None:
    words = [w for name in hold for w in ("--hold", name)]
    said = refuse(monkeypatch, capsys, "finetune", base, without_magnesium, *words, "--out", tmp_path / "new.model")
    assert re.search(text, said), said
    assert not (tmp_path / "new.model").exists()


@pytest.mark.parametrize(
    ("hold", "held", "line"),
    [
        (["solar-scaled"], 0.0, "held solar-scaled: mg_fe=0"),
        (["mg_fe=0.2", "solar-scaled"], 0.2, "held solar-scaled: nothing"),
        (["solar-scaled", "mg_fe=0.2"], 0.2, "held solar-scaled: nothing"),
    ],
)
def test_labels_are_held_solar_scaled_and_said(
    hold: list[str], held: float, line: str, base: Path, without_magnesium: Path, monkeypatch, capsys, tmp_path: Path
) -> None:
    words = [w for name in hold for w in ("--hold", name)]
    # More spectra than there are: what is held is said before it is refused.
    said = refuse(
        monkeypatch, capsys, "finetune", base, without_magnesium, *words, "--n-train", 99, "--out", tmp_path / "m"
    )
    assert line in said
    assert "99 spectra asked for" in said
    if held:
        return
    words += [*FAST, "--n-train", 10, "--out", tmp_path / "m", "--json", tmp_path / "f.json"]
    run("finetune", base, without_magnesium, *words)
    assert json.loads((tmp_path / "f.json").read_text())["held"] == {"mg_fe": 0.0}
    assert bundle.load(tmp_path / "m").emulator.space.names == toy.SPACE.names[:4]


def test_plan_says_how_many_spectra_are_needed(base: Path, deeper_grid: Grid, tmp_path: Path) -> None:
    words = ["--sizes", "40,10", "--goal", 0.001, "--figure", tmp_path / "f.png", "--json", tmp_path / "p.json"]
    text = run("finetune", base, deeper_grid.path, *FAST, "--plan", *words)
    facts = json.loads((tmp_path / "p.json").read_text())
    assert facts["n"] == [10, 40]
    assert facts["mae_before"] == evaluate(bundle.load(base), deeper_grid).mae
    assert max(facts["mae"]) < facts["mae_before"]
    law = facts["law"]
    np.testing.assert_allclose([law["scale"] * n ** law["slope"] for n in facts["n"]], facts["mae"], rtol=1e-6)
    assert "MAE on the test spectra of deeper.zarr" in text
    for n, mae in [("base model", facts["mae_before"]), *zip(facts["n"], facts["mae"], strict=True)]:
        assert re.search(rf"^ *{n}  {mae:.5f}$", text, re.MULTILINE)
    assert f"law: MAE = {law['scale']:.4g} N^{law['slope']:.3f} (extrapolated, not promised)" in text
    for n in (80, 200):
        assert f"{n}  {law['scale'] * n ** law['slope']:.5f}  expected" in text
    assert re.search(r"for MAE 0\.001: (about [\d,]+ spectra|not by this law)", text)
    assert (tmp_path / "f.png").stat().st_size > 10_000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base.model", "f.png", "p.json"]


def test_plan_without_a_law_says_so(base: Path, payne_model: Model, tmp_path: Path) -> None:
    grid = toy.empty_grid(tmp_path / "g.zarr")
    grid.write_all(payne_model.emulator.predict(toy.labels()).flux, toy.continua(toy.labels()))
    words = ["--plan", "--sizes", "10", "--steps", 5, "--json", tmp_path / "p.json"]
    assert "no law can be fitted; try more spectra" in run("finetune", base, grid.path, *words)
    assert json.loads((tmp_path / "p.json").read_text())["law"] is None


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], r"give either --out MODEL for a fine-tuned model, or --plan for a learning curve"),
        (["--plan", "--out", "m"], r"give either --out MODEL for a fine-tuned model, or --plan for a learning curve"),
        (["--out", "m", "--sizes", "5,10"], r"--sizes, --goal and --figure belong to --plan, which makes no model"),
        (["--out", "m", "--goal", "0.001"], r"belong to --plan"),
        (["--plan", "--n-train", "10"], r"--n-train and --old-grid belong to --out; --plan takes its numbers of spe"),
        (["--plan", "--sizes", "ten"], r"--sizes ten: whole numbers with commas between them are wanted"),
        (["--plan", "--sizes", "10,99"], r"a learning curve over \[10, 99\] spectra: the grid has 50 to train"),
        (["--out", "m", "--n-train", "4"], r"4 spectra asked for; the grid has 50 usable ones"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    words: list[str], text: str, base: Path, deeper_grid: Grid, monkeypatch, capsys, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    said = refuse(monkeypatch, capsys, "finetune", base, deeper_grid.path, *words)
    assert re.search(text, said), said


def test_nothing_is_deleted_that_is_no_model(
    base: Path, deeper_grid: Grid, monkeypatch, capsys, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("my only copy")
    words = ["--n-train", 10, "--steps", 2, "--out", tmp_path / "home"]
    said = refuse(monkeypatch, capsys, "finetune", base, deeper_grid.path, *words, "--overwrite")
    assert "so it is no earlier output; delete it yourself, or give another path" in said
    said = refuse(monkeypatch, capsys, "finetune", base, deeper_grid.path, *words)
    assert "exists; give another path, or --overwrite" in said
    assert (tmp_path / "home" / "thesis.tex").read_text() == "my only copy"
    run("finetune", base, deeper_grid.path, "--n-train", 10, "--steps", 2, "--out", base, "--overwrite")
    assert bundle.load(base).training["finetuning"]["n_spectra"] == 10
