"""``starpayne fit`` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import toy
from astropy.table import Table
from known_star import RESOLUTION, SPACE, TRUTH
from shell import refuse, run

from starpayne import bundle
from starpayne.cli.values import read_resolution
from starpayne.errors import SpectrumError
from starpayne.fitting import FitOptions, ResolutionCurve, TabulatedProfile, fit
from starpayne.prediction_files import write_spectrum
from starpayne.spectra import ObservedSpectrum


@pytest.fixture
def star_folder(star_model, tmp_path: Path) -> Path:
    return bundle.save(star_model, tmp_path / "star.model")


@pytest.fixture
def star_file(observe, tmp_path: Path) -> Path:
    spectrum = observe()
    path = tmp_path / "star.txt"
    columns = np.stack([spectrum.wavelength, spectrum.flux, spectrum.error])[:, spectrum.mask]
    np.savetxt(path, columns.T, header="wavelength flux error", comments="")
    return path


def test_fit_writes_table_json_and_figure_and_flags_a_corrupt_file(star_folder, star_file, tmp_path) -> None:
    corrupt = tmp_path / "corrupt.fits"
    corrupt.write_bytes(b"not a spectrum")
    out, facts = tmp_path / "stars.csv", tmp_path / "stars.json"
    run(
        "fit", star_file, corrupt, "--model", star_folder, "--resolution", 20_000, "--medium", "air",
        "--fix", "alpha_fe=0.15", "--out", out, "--json", facts, "--figures", tmp_path / "figures",
    )  # fmt: skip
    good, bad = json.loads(facts.read_text())
    assert {"file", "labels", "rv", "vsini", "chi2", "flags"} <= set(good)
    assert abs(good["labels"]["teff"]["value"] - 5600) < 5 * good["labels"]["teff"]["error"]
    assert good["labels"]["alpha_fe"] == {"value": pytest.approx(0.15), "error": 0.0, "raw_error": 0.0}
    assert bad["flags"] == ["failed"]
    assert "corrupt.fits" in bad["message"]
    assert bad["labels"]["teff"]["value"] is None
    assert len(out.read_text().splitlines()) == 3
    assert (tmp_path / "figures" / "star.png").stat().st_size > 10_000


def test_a_posterior_is_sampled_written_and_drawn(star_folder, star_file, tmp_path) -> None:
    out, figures = tmp_path / "stars.ecsv", tmp_path / "figures"
    corrupt = tmp_path / "corrupt.txt"
    corrupt.write_text("not a spectrum")
    known = [f"--fix={name}={value}" for name, value in zip(SPACE.names[:-1], TRUTH, strict=False)]
    run(
        "fit", star_file, corrupt, "--model", star_folder, "--resolution", 20_000, "--medium", "air", *known,
        "--fix", "rv=0", "--fix", "vsini=8", "--sample", 60, "--out", out, "--figures", figures,
    )  # fmt: skip
    table = Table.read(out)
    assert table["mg_fe_low"][0] < table["mg_fe_median"][0] < table["mg_fe_high"][0]
    assert abs(table["mg_fe_median"][0] - table["mg_fe"][0]) < 3 * table["mg_fe_error"][0]
    assert np.isnan(table["mg_fe_median"][1])
    assert (figures / "star-corner.png").stat().st_size > 5_000
    with np.load(figures / "star-posterior.npz") as file:
        assert file["samples"].shape == (2, 60, 1)


def test_a_resolution_is_a_number_or_a_table(tmp_path) -> None:
    assert read_resolution("47000") == 47000.0
    path = tmp_path / "r.txt"
    path.write_text("# wavelength resolution\n5000, 20000\n5100, 21000\n")
    curve = read_resolution(str(path))
    assert isinstance(curve, ResolutionCurve)
    assert curve(np.array([5050.0])) == pytest.approx([20500.0])
    path.write_text("velocity response\n-10 0\n0 1\n10 0\n")
    assert isinstance(read_resolution(str(path)), TabulatedProfile)
    for text, why in (
        ("lambda R\n5000 20000\n", "its first line must say 'wavelength resolution'"),
        ("wavelength resolution\n5000 high\n", "every line but the first needs two numbers"),
        ("wavelength resolution\n", "and two columns of numbers follow"),
    ):
        path.write_text(text)
        with pytest.raises(SpectrumError, match=why):
            read_resolution(str(path))
    with pytest.raises(SpectrumError, match="is neither a number"):
        read_resolution("sharp")


def test_fit_refuses_a_single_bad_file(star_folder, tmp_path, monkeypatch, capsys) -> None:
    bad = tmp_path / "bad.txt"
    bad.write_text("hello world\nthis is text\n")
    words = ["fit", bad, "--model", star_folder, "--resolution", 20_000, "--out", tmp_path / "t.csv"]
    assert "bad.txt" in refuse(monkeypatch, capsys, *words)
    assert "tables are written as .csv, .ecsv, .fits, .parquet" in refuse(
        monkeypatch, capsys, *words[:-1], tmp_path / "t.xls"
    )
    assert "not NAME=VALUE" in refuse(monkeypatch, capsys, *words, "--fix", "feh")
    assert "not LOW:HIGH" in refuse(monkeypatch, capsys, *words, "--mask", "5000-5010")


def test_a_table_says_units_what_was_fixed_and_why_a_file_failed(star_folder, star_file, tmp_path, capsys) -> None:
    words = ["fit", star_file, tmp_path / "none.txt", "--model", star_folder, "--resolution", 20_000, "--medium", "air"]
    text = run(*words, "--fix", "solar-scaled", "--fix", "vsini=8", "--out", tmp_path / "t.ecsv")
    table = Table.read(tmp_path / "t.ecsv")
    assert str(table["teff_error"].unit) == "K"
    assert str(table["rv"].unit) == "km / s"
    assert str(table["mg_fe"].unit) == "dex"
    assert table["fixed"][0] == "alpha_fe mg_fe"
    assert table["flags"][1] == "failed"
    assert "no file at" in table["message"][1]
    assert table["n_pixels"].dtype.kind == "i"
    assert "teff" in text
    assert "alpha_fe" not in text
    run(*words, "--fix", "solar-scaled", "--out", tmp_path / "t.fits")
    assert Table.read(tmp_path / "t.fits")["teff"].unit == "K"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--window", "5010:5020", "--window", "5030:5040"], "--window is given 2 times"),
        (["--window", "501:502"], "the window 501 to 502 Å holds no pixel that the model, 5000.00 to 50"),
        (["--windows-only"], "concern a line mask: give --line-mask"),
        (["--no-zero-points"], "concern a line mask: give --line-mask"),
        (["--sample", "60", "--workers", "2"], "--workers does not go with --sample"),
    ],
)
def test_options_that_would_be_ignored_are_refused(
    star_folder, star_file, tmp_path, monkeypatch, capsys, words, text
) -> None:
    words = ["fit", star_file, "--model", star_folder, "--resolution", 20_000, "--out", tmp_path / "t.csv", *words]
    assert text in refuse(monkeypatch, capsys, *words)


def test_a_medium_other_than_the_file_says_is_flagged(star_model, tmp_path) -> None:
    path = tmp_path / "s.txt"
    emulator = star_model.emulator
    prediction = emulator.predict(emulator.space.from_cube(np.full(len(emulator.space), 0.5)))
    write_spectrum(path, prediction, {})
    spectrum = ObservedSpectrum.read(path)
    assert (spectrum.medium, spectrum.notes) == ("air", ())  # as the file that predict wrote says
    assert ObservedSpectrum.read(path, medium="air").notes == ()
    assert ObservedSpectrum.read(path, medium="vacuum").notes == ("medium_overridden",)
    result = fit(spectrum, star_model, RESOLUTION, FitOptions(medium="vacuum", fix=dict.fromkeys(SPACE.names[2:], 0.0)))
    assert "medium_overridden" in result.flags


def test_what_is_no_spectrum_and_no_mask_is_said(star_folder) -> None:
    # Without the type checks of the tests, which users do not have.
    said = toy.python(
        """
        import sys
        from starpayne import bundle
        from starpayne.errors import SpectrumError
        from starpayne.fitting import FitOptions, fit_many

        print(*fit_many(["star.txt"], bundle.load(sys.argv[1]), 20_000))
        try:
            FitOptions(line_mask="m.json")
        except SpectrumError as error:
            print(error)
        """,
        star_folder,
    )
    assert "'star.txt' is no spectrum: give an ObservedSpectrum" in said
    assert "line_mask = 'm.json' is no LineMask: read a file with LineMask.read" in said
