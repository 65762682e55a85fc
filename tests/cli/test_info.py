"""``info`` says what a folder is, ``verify`` whether it is whole, and ``predict --rest`` fills in a star."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import toy
from shell import refuse, run
from typer.testing import CliRunner

from starpayne import bundle
from starpayne.bundle import Model
from starpayne.cli import app
from starpayne.training import FineTuning, few_spectra, finetune
from starpayne.training.transfer import save_tuned


@pytest.fixture
def folder(payne_model: Model, tmp_path: Path) -> Path:
    return bundle.save(payne_model, tmp_path / "payne.model")


def test_info_of_a_model(payne_model: Model, folder: Path, tmp_path: Path) -> None:
    text = run("info", folder, "--json", tmp_path / "i.json")
    facts = json.loads((tmp_path / "i.json").read_text())
    assert facts["kind"] == "model"
    assert [label["name"] for label in facts["labels"]] == list(toy.SPACE.names)
    assert facts["wavelengths"]["low"] == payne_model.emulator.domain.low
    assert facts["training"]["spectra"] == len(payne_model.training["split"]["train"])
    assert facts["validation"]["mae"] == payne_model.validation["mae"]
    assert f"{payne_model.training['parameters']:,} parameters" in text
    assert f"mean absolute {payne_model.validation['mae']:.5f} of the continuum" in text
    teff = toy.SPACE["teff"]
    assert f"teff      {teff.low:g} to {teff.high:g} K" in text
    assert "ApJ 879, 69" in text


def test_info_of_a_grid(finished_grid, tmp_path: Path) -> None:
    text = run("info", finished_grid.path, "--json", tmp_path / "i.json")
    facts = json.loads((tmp_path / "i.json").read_text())
    assert facts["spectra"]["done"] == facts["spectra"]["in_all"] == len(finished_grid.labels)
    assert facts["spectra"]["train"] == len(finished_grid.split.train)
    assert facts["gives"] == ["flux", "continuum"]
    assert f"{len(toy.WAVELENGTH)} pixels" in text


def test_info_of_what_is_neither(tmp_path: Path, monkeypatch, capsys) -> None:
    assert "no model and no grid at" in refuse(monkeypatch, capsys, "info", tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "empty") in refuse(monkeypatch, capsys, "info", tmp_path / "empty")


def test_an_update_is_described_and_verified_with_its_base(payne_model: Model, deeper_grid, folder: Path) -> None:
    data = few_spectra(payne_model, deeper_grid, 20)
    tuned = finetune(payne_model, data, FineTuning(moves="lora", rank=2, steps=20))
    update = save_tuned(tuned, payne_model, folder, folder.with_name("update"))
    assert "payne" in run("info", update)
    found = bundle.verify(update)
    assert found.reproduced
    assert found.weights == "adapter.safetensors"
    assert found.digest == bundle.digest(tuned.model.emulator)


def test_verify_says_that_a_model_is_whole(payne_model: Model, folder: Path, tmp_path: Path) -> None:
    text = run("verify", folder, "--json", tmp_path / "v.json")
    facts = json.loads((tmp_path / "v.json").read_text())
    assert facts["reproduced"]
    assert facts["difference"] <= facts["allowed"]
    assert facts["digest"] == bundle.digest(payne_model.emulator)
    assert facts["bytes"] == (folder / bundle.WEIGHTS).stat().st_size
    assert "stored spectrum reproduced" in text


def test_verify_finds_a_spectrum_that_comes_out_different(folder: Path) -> None:
    manifest = json.loads((folder / bundle.MANIFEST).read_text())
    manifest["fingerprint"]["flux"][3] += 0.01
    manifest["fingerprint"]["platform"] = "another machine"
    (folder / bundle.MANIFEST).write_text(json.dumps(manifest))
    result = CliRunner().invoke(app, ["verify", str(folder)])
    assert result.exit_code == 1
    assert "stored spectrum NOT reproduced: differs by 1.0e-02 (allowed 1e-04)" in result.output
    assert "on another machine" in result.output


def test_verify_refuses_a_damaged_folder(folder: Path, monkeypatch, capsys) -> None:
    weights = folder / bundle.WEIGHTS
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    assert "does not match its checksum" in refuse(monkeypatch, capsys, "verify", folder)


def test_predict_fills_in_the_rest_and_says_so(folder: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    words = ["predict", "--model", folder, "--teff", 5500, "--logg", 4, "--vmic", 1, "--alpha_fe", 0.2]
    run(*words, "--rest", "solar-scaled", "--out", tmp_path / "s.csv", "--json", tmp_path / "s.json")
    assert json.loads((tmp_path / "s.json").read_text())["labels"]["mg_fe"] == 0.2
    words += ["--out", tmp_path / "t.csv"]
    assert "missing labels: mg_fe" in refuse(monkeypatch, capsys, *words)
    assert "--rest 'lunar' is not known" in refuse(monkeypatch, capsys, *words, "--rest", "lunar")
    refuse_text = refuse(monkeypatch, capsys, *words, "--rest", "solar-scaled", "--tef", "1")
    assert "unknown label 'tef'; did you mean 'teff'?" in refuse_text
