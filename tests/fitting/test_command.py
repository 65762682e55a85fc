"""``starpayne fit`` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from shell import refuse, run

from starpayne import bundle


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
    assert bad["flags"][0].startswith("failed:")
    assert bad["labels"]["teff"]["value"] is None
    assert len(out.read_text().splitlines()) == 3
    assert (tmp_path / "figures" / "star.png").stat().st_size > 10_000


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
