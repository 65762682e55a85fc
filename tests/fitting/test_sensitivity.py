"""``starpayne.sensitivity`` and its command: the tables agree with each other, and bad requests are one sentence."""

from __future__ import annotations

import json

import numpy as np
import pytest
from known_star import RESOLUTION, SPACE, TRUTH
from shell import refuse, run

import starpayne
from starpayne import bundle
from starpayne.errors import LabelError, SpectrumError
from starpayne.fitting import FitOptions
from starpayne.inside import Sensitivity
from starpayne.inside.sensitivity import ERRORS, held_at

STAR = dict(zip(SPACE.names, TRUTH.tolist(), strict=True))
SEEN = {"snr": 100.0, "resolution": RESOLUTION, "rv": 0.0, "vsini": 8.0}
MOTIONS = FitOptions(rv=0.0, vsini=8.0)


@pytest.fixture(scope="module")
def found(star_model) -> Sensitivity:
    return starpayne.sensitivity(star_model, STAR, options=MOTIONS, **SEEN)


def test_tables_agree_with_each_other(found) -> None:
    n, p = len(found.wavelength), 5
    assert found.names == SPACE.names
    assert found.derivatives.shape == found.unique.shape == (p, n)
    assert set(found.errors) == set(ERRORS)
    assert np.sqrt(np.diag(found.covariance)) == pytest.approx(found.errors["fit"])
    assert np.diag(found.correlation) == pytest.approx(1)
    assert found.fisher == pytest.approx(found.fisher.T)
    assert np.all(found.errors["alone"] <= found.errors["fit"] * 1.0001)
    for share in (found.share, found.share_alone):
        assert share.sum(axis=1) == pytest.approx(1)
    assert found.windows_for("teff", 0.5) <= found.windows_for("teff", 0.9) <= found.share.shape[1]
    assert {len(best.order) for best in found.best.values()} == {10}


def test_derivatives_are_those_of_the_emulator_seen_by_the_instrument(star_model, found) -> None:
    above, below = (
        starpayne.sensitivity(star_model, STAR | {"teff": 5600.0 + step}, options=MOTIONS, **SEEN).flux
        for step in (10.0, -10.0)
    )
    difference = (above - below) / 20
    off = (found.derivatives[0] - difference)[found.used]
    assert np.sqrt(np.mean(off**2)) < 0.02 * np.sqrt(np.mean(difference[found.used] ** 2))


def test_information_with_all_else_known_is_the_square_of_the_derivative(found) -> None:
    """The emulator has no error here, and the photon noise is the same on all pixels."""
    place = np.clip(np.searchsorted(found.windows, found.wavelength, side="right") - 1, 0, len(found.windows) - 2)
    squares = np.bincount(place, np.where(found.used, found.derivatives[1] ** 2, 0.0))
    assert found.share_alone[1] == pytest.approx(squares / squares.sum(), rel=1e-3, abs=1e-5)


def test_the_command_writes_tables_and_figures(star_model, tmp_path) -> None:
    from astropy.table import Table

    path, out = bundle.save(star_model, tmp_path / "m"), tmp_path / "told"
    text = run(
        "sensitivity", "--model", path, "--at", "teff=5600,logg=3.6,feh=-0.2,solar-scaled", "--labels", "teff,mg_fe",
        "--resolution", 20_000, "--fix", "rv,vsini,alpha_fe", "--prior", "logg=0.1", "--out", out,
        "--json", tmp_path / "s.json", "--window-width", 1,
    )  # fmt: skip
    facts = json.loads((tmp_path / "s.json").read_text())
    assert facts["parameters"] == ["teff", "logg", "feh", "mg_fe"]
    assert set(facts["best_windows"]) == {"teff", "mg_fe"}
    assert facts["errors"]["fit"]["logg"] < 0.1
    assert f"{facts['errors']['fit']['teff']:.3g}" in text
    table = Table.read(out / "precision.ecsv")
    assert list(table["error_fit"]) == pytest.approx(list(facts["errors"]["fit"].values()))
    assert Table.read(out / "derivatives.ecsv")["d_teff"].unit == "1/K"
    names = {"derivatives", "precision", "correlations", "information", "best_windows"}
    assert {p.stem for p in out.glob("*.png")} == names
    assert len((out / "windows.csv").read_text().splitlines()) == len(facts["window_edges"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--at", "teff=5600,logg=3"], "missing"),
        (["--at", "teff=9000,logg=3.5,feh=0,solar-scaled"], "teff = 9000"),
        (["--snr", "0"], "snr = 0 must be a positive number"),
        (["--fix", "teff=5500"], "what is held has the star's value, so give its name alone"),
        (["--fix", "oxygen"], "'oxygen' cannot be held"),
        (["--prior", "oxygen=1"], "--prior oxygen: there is no such label"),
        (["--low", "5200", "--high", "5300"], "does not overlap the model"),
        (["--labels", "oxygen"], "oxygen"),
    ],
)
def test_bad_requests_are_one_sentence(words, sentence, star_model, tmp_path, monkeypatch, capsys) -> None:
    path = bundle.save(star_model, tmp_path / "m")
    given = [] if "--at" in words else ["--at", "teff=5600,logg=3.6,feh=0,solar-scaled"]
    text = refuse(monkeypatch, capsys, "sensitivity", "--model", path, "--out", tmp_path / "out", *given, *words)
    assert sentence in text
    assert not (tmp_path / "out").exists()


def test_impossible_values_are_refused(star_model) -> None:
    options = held_at(STAR, MOTIONS, ["mg_fe"], 0.0, 8.0)
    with pytest.raises(LabelError, match="mg_fe is held, so no window tells it"):
        starpayne.sensitivity(star_model, STAR, options=options, labels=["mg_fe"], **SEEN)
    with pytest.raises(SpectrumError, match=r"is \d+ pixels; they must be 2 to 1000000"):
        starpayne.sensitivity(star_model, STAR, sampling=1e12, **SEEN)
    with pytest.raises(SpectrumError, match=r"window_width = 0.001 Å makes \d+ windows"):
        starpayne.sensitivity(star_model, STAR, options=MOTIONS, window_width=0.001, **SEEN)
