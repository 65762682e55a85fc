"""The command line as a user meets it: help with units and examples, JSON, one-sentence errors."""

from __future__ import annotations

import json
import re
from pathlib import Path

import intensities
import numpy as np
import pytest
import toy
from shell import refuse, run

from starpayne.cli import main

VERBS = (
    "synthesize", "import", "train", "finetune", "distil", "evaluate", "study", "predict", "fit", "info", "verify",
    "demo",
)  # fmt: skip


@pytest.fixture
def payne_folder(payne_model, tmp_path: Path) -> Path:
    from starpayne import bundle

    return bundle.save(payne_model, tmp_path / "payne.model")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    text = run(verb, "--help")
    assert "Example: starpayne" in text
    assert "--json" in text


def test_import_train_evaluate_predict_from_the_shell(write_folder, tmp_path) -> None:
    grid, model = tmp_path / "g.zarr", tmp_path / "p.model"
    assert "60 spectra" in run("import", write_folder(), "--out", grid)
    recipe = tmp_path / "tiny.toml"
    recipe.write_text("emulator = 'payne'\nsteps = 60\nvalidate_every = 20\n[architecture]\nhidden = [16]\n")
    run("train", grid, "--recipe", recipe, "--n-train", 30, "--out", model, "--json", tmp_path / "t.json")
    assert json.loads((tmp_path / "t.json").read_text())["emulator"] == "payne"
    text = run("evaluate", model, grid, "--figures", tmp_path / "figures", "--json", tmp_path / "e.json")
    facts = json.loads((tmp_path / "e.json").read_text())
    assert {"mae", "rmse", "n_spectra", "percentiles"} <= set(facts)
    assert f"{facts['mae']:.6f}" in text
    assert (tmp_path / "figures" / "examples.png").stat().st_size > 10_000
    labels = ["--teff", 5500, "--logg", 4, "--alpha_fe", -0.05, "--vmic", 1, "--mg_fe=0.1"]
    run("predict", "--model", model, *labels, "--out", tmp_path / "s.csv", "--json", tmp_path / "s.json")
    rows = np.loadtxt(tmp_path / "s.csv", delimiter=",", comments="#", skiprows=3 + 1)
    stored = json.loads((tmp_path / "s.json").read_text())
    assert np.allclose(rows[:, 1], stored["flux"][len(stored["flux"]) - len(rows) :], atol=1e-6)
    assert stored["labels"]["alpha_fe"] == -0.05


@pytest.mark.parametrize("suffix", [".txt", ".fits", ".npz"])
def test_a_spectrum_is_written_in_each_format(suffix: str, payne_folder, tmp_path) -> None:
    from starpayne.spectra import ObservedSpectrum

    labels = ["--teff", 5500, "--logg", 4, "--alpha_fe", 0, "--vmic", 1, "--mg_fe", 0]
    path = tmp_path / f"s{suffix}"
    run("predict", "--model", payne_folder, *labels, "--out", path)
    wavelength = np.load(path)["wavelength"] if suffix == ".npz" else ObservedSpectrum.read(path).wavelength
    assert np.allclose(wavelength, toy.WAVELENGTH, atol=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--teff", 5500], r"missing labels: logg \(1 to 5 dex\(cm/s2\)\), alpha_fe"),
        (["--Teff", 5500], r"unknown label 'Teff'; did you mean 'teff'\?"),
        (["--teff", "hot"], r"--teff 'hot' is not a number"),
        (["--teff", 5500, "--teff", 5600], r"--teff is given twice"),
        (["5500"], r"'5500' is not understood; give labels as --name value"),
    ],
)
def test_predict_says_what_is_wrong_with_the_labels(
    words, message, payne_folder, tmp_path, monkeypatch, capsys
) -> None:
    said = refuse(monkeypatch, capsys, "predict", "--model", payne_folder, *words, "--out", tmp_path / "s.csv")
    assert re.search(message, said), said


def test_predict_refuses_and_flags_extrapolation(payne_folder, tmp_path, monkeypatch, capsys) -> None:
    words = [
        "predict",
        "--model",
        payne_folder,
        "--teff",
        9000,
        "--logg",
        4,
        "--alpha_fe",
        0,
        "--vmic",
        1,
        "--mg_fe",
        0,
    ]
    said = refuse(monkeypatch, capsys, *words, "--out", tmp_path / "s.csv")
    assert "teff = 9000 K is outside the range 4000 to 7000" in said
    run(*words, "--extrapolate", "--out", tmp_path / "s.csv", "--json", tmp_path / "s.json")
    assert json.loads((tmp_path / "s.json").read_text())["flags"] == ["extrapolated"]


def test_an_existing_output_is_not_overwritten(payne_folder, tmp_path, monkeypatch, capsys) -> None:
    out = tmp_path / "s.csv"
    out.write_text("mine")
    said = refuse(monkeypatch, capsys, "predict", "--model", payne_folder, "--teff", 5500, "--out", out)
    assert "exists; give another path, or --overwrite" in said
    assert out.read_text() == "mine"


def test_train_wants_one_of_emulator_and_recipe(finished_grid, tmp_path, monkeypatch, capsys) -> None:
    said = refuse(monkeypatch, capsys, "train", finished_grid.path, "--out", tmp_path / "m")
    assert "give either --emulator NAME or --recipe NAME|FILE; names are additive" in said


def test_a_missing_grid_or_model_is_one_sentence(tmp_path, monkeypatch, capsys) -> None:
    assert "no grid at" in refuse(monkeypatch, capsys, "train", tmp_path / "no", "--emulator", "payne", "--out", "m")
    assert "no model folder at" in refuse(monkeypatch, capsys, "evaluate", tmp_path / "no", tmp_path / "no")


def test_ctrl_c_says_that_nothing_is_lost(finished_grid, tmp_path, monkeypatch, capsys) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("starpayne.training.train", interrupt)
    words = ["starpayne", "train", finished_grid.path, "--emulator", "payne", "--out", tmp_path / "m"]
    monkeypatch.setattr("sys.argv", [str(w) for w in words])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 130
    assert "finished work is kept, and the same command goes on" in " ".join(capsys.readouterr().err.split())


def test_intensities_from_the_shell(tmp_path, monkeypatch, capsys) -> None:
    grid, model = intensities.write_grid(tmp_path / "g.zarr").path, tmp_path / "m.model"
    words = ["--recipe", "polynomial2", "--quantity", "intensity", "--n-train", 40]
    said = run("train", grid, *words, "--out", model, "--json", tmp_path / "t.json")
    assert "40 spectra, validation MAE" in said
    assert "(normalised intensity)" in said
    assert json.loads((tmp_path / "t.json").read_text())["n_train"] == 40
    text = run("evaluate", model, grid, "--figures", tmp_path / "figures", "--json", tmp_path / "e.json")
    assert "(normalised intensity)" in text
    mean = json.loads((tmp_path / "e.json").read_text())["disc_flux_error"]["mean"]
    assert f"mean: {mean:.5f}" in text
    labels = ["--teff", 5500, "--logg", 4, "--alpha_fe", 0, "--vmic", 1, "--mg_fe", 0]
    predict = ["predict", "--model", model, *labels, "--out", tmp_path / "s.csv", "--json", tmp_path / "s.json"]
    assert "missing labels: mu (0.316228 to 0.948683)" in refuse(monkeypatch, capsys, *predict)
    assert "normalised intensity 0." in run(*predict, "--mu", 0.5)
    assert len(json.loads((tmp_path / "s.json").read_text())["intensity"]) == 40
    written = (tmp_path / "s.csv").read_text()
    assert "intensity times pi over the continuum flux" in written
    assert "\nwavelength,intensity\n" in written
    fit = ["fit", tmp_path / "s.csv", "--model", model, "--resolution", 5000, "--out", tmp_path / "f.csv"]
    said = refuse(monkeypatch, capsys, *fit)
    assert "gives intensities at one viewing angle" in said
