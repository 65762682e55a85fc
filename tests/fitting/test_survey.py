"""A survey in one table: kept part by part, gone on with after a stop, over Dask or in this process."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from known_star import RESOLUTION, SPACE, TRUTH
from shell import refuse, run

from starpayne import bundle
from starpayne.bundle import Model
from starpayne.errors import OutputExistsError, SpectrumError
from starpayne.fitting import FitOptions, cluster, fit_survey, survey
from starpayne.spectra import ObservedSpectrum
from starpayne.spectrum_tables import open_spectra

FEW = FitOptions(fix=dict(zip(SPACE.names[1:], TRUTH[1:], strict=True)), vsini=8.0, rv_range=(-50.0, 50.0))


class Observed:
    """Spectra in memory; ``read`` counts how often each is asked for, and stops the run at ``stop``."""

    def __init__(self, observe: Callable[..., ObservedSpectrum], n: int) -> None:
        self._spectra = [observe(rv=2.0 * i, seed=i, name=f"star {i}") for i in range(n)]
        self.reads: list[int] = []
        self.stop: int | None = None
        self.damaged: int | None = None

    def __len__(self) -> int:
        return len(self._spectra)

    def name(self, i: int) -> str:
        return self._spectra[i].name

    def read(self, i: int) -> ObservedSpectrum:
        if i == self.stop:
            raise KeyboardInterrupt
        if i == self.damaged:
            raise SpectrumError("damaged")
        self.reads.append(i)
        return self._spectra[i]

    @property
    def identity(self) -> list:
        return [len(self._spectra)]


@pytest.fixture(autouse=True)
def parts_of_four(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "batch_size", lambda setup: 4)
    monkeypatch.setattr(survey, "company", lambda: 3)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".fits"])
def test_a_stopped_survey_goes_on_and_fits_no_star_twice(
    star_model: Model, observe: Callable[..., ObservedSpectrum], tmp_path: Path, suffix: str
) -> None:
    stars, out, bars = Observed(observe, 11), tmp_path / f"stars{suffix}", []
    stars.damaged, stars.stop = 2, 9
    with pytest.raises(KeyboardInterrupt):
        fit_survey(stars, star_model, RESOLUTION, out, FEW)
    first = Table.read(out)
    assert 4 <= len(first) < 9
    assert (tmp_path / f"stars{suffix}.parts").is_dir()
    known, stars.reads, stars.stop = set(first["file"]), [], None
    found = fit_survey(stars, star_model, RESOLUTION, out, FEW, progress=lambda n, of: bars.append((n, of)))
    assert not known & {f"star {i}" for i in stars.reads}
    assert bars[0][0] > len(known)
    assert bars[-1] == (11, 11)
    assert (found.stars, found.failed, found.flags["failed"]) == (11, 1, 1)
    table = Table.read(out)
    assert list(table["file"]) == [f"star {i}" for i in range(11)]
    assert table["message"][2] == "damaged"
    assert np.isnan(np.ma.filled(table["teff"], np.nan)[2])
    assert list(tmp_path.glob("*.parts")) == []


def test_what_belongs_to_another_survey_is_refused(
    star_model: Model, observe: Callable[..., ObservedSpectrum], tmp_path: Path
) -> None:
    stars, out = Observed(observe, 6), tmp_path / "stars.csv"
    stars.stop = 5
    with pytest.raises(KeyboardInterrupt):
        fit_survey(stars, star_model, RESOLUTION, out, FEW)
    stars.stop = None
    with pytest.raises(OutputExistsError, match=r"parts of another survey \(fix, rv_range, resolution not the same\)"):
        fit_survey(stars, star_model, 0.9 * RESOLUTION, out, FitOptions(vsini=8.0))
    fit_survey(stars, star_model, RESOLUTION, out, FEW, overwrite=True)
    with pytest.raises(OutputExistsError, match=r"stars.csv exists; give another path"):
        fit_survey(stars, star_model, RESOLUTION, out, FEW)
    with pytest.raises(SpectrumError, match="no Dask scheduler answers"):
        fit_survey(stars, star_model, RESOLUTION, tmp_path / "t.csv", FEW, scheduler="nonsense")
    # Nothing was finished, so nothing stands in the way of another attempt.
    assert not (tmp_path / "t.csv.parts").exists()
    (tmp_path / "t.csv.parts").mkdir()
    (tmp_path / "t.csv.parts" / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputExistsError, match=r"holds no survey.json, so it is no earlier output"):
        fit_survey(stars, star_model, RESOLUTION, tmp_path / "t.csv", FEW, overwrite=True)


@pytest.mark.slow
def test_a_killed_worker_changes_no_row(
    star_model: Model, observe: Callable[..., ObservedSpectrum], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stars, killed, run_all = Observed(observe, 24), [], cluster._run

    def murderous(batches, crew, resolution, setup) -> Iterator:
        for i, found in enumerate(run_all(batches, crew, resolution, setup)):
            if i == 1:
                killed.append(next(iter(crew._client.run(os.getpid).values())))
                os.kill(killed[0], signal.SIGKILL)
            yield found

    fit_survey(stars, star_model, RESOLUTION, tmp_path / "calm.csv", FEW, workers=2)
    monkeypatch.setattr(cluster, "_run", murderous)
    fit_survey(stars, star_model, RESOLUTION, tmp_path / "killed.csv", FEW, workers=2)
    assert len(killed) == 1
    rows = (tmp_path / "killed.csv").read_text()
    assert len(rows.splitlines()) == 25
    assert rows == (tmp_path / "calm.csv").read_text()


def test_the_command_fits_a_table_of_spectra(
    star_model: Model, observe: Callable[..., ObservedSpectrum], tmp_path: Path, monkeypatch, capsys
) -> None:
    spectra = [observe(rv=5.0 * i, seed=i) for i in range(5)]
    wavelength = spectra[0].wavelength
    usable = np.all([s.used for s in spectra], axis=0)
    table = Table({
        "wavelength": np.tile(wavelength, (5, 1)), "flux": [s.flux for s in spectra],
        "ivar": [np.where(usable, 1 / np.asarray(s.error) ** 2, 0) for s in spectra], "gaia_id": np.arange(5) + 10**18,
    })  # fmt: skip
    table.write(tmp_path / "survey.fits")
    folder = bundle.save(star_model, tmp_path / "star.model")
    words = ["fit", tmp_path / "survey.fits", "--model", folder, "--resolution", RESOLUTION, "--medium", "air"]
    held = [f"--fix={name}={value}" for name, value in FEW.fix.items()]
    text = run(*words, *held, "--fix=vsini=8", "--out", tmp_path / "t.csv", "--json", tmp_path / "t.json")
    assert "t.csv: 5 stars, 0 of them failed" in text
    assert f"{10**18 + 3}: " in text
    rows = json.loads((tmp_path / "t.json").read_text())
    assert [row["file"] for row in rows] == [str(10**18 + i) for i in range(5)]
    assert all(abs(row["rv"] - 5.0 * i) < 5 * row["rv_error"] for i, row in enumerate(rows))
    assert "--scheduler does not go with --sample" in refuse(
        monkeypatch, capsys, *words, "--sample", "60", "--scheduler", "tcp://x:1", "--out", tmp_path / "u.csv"
    )
    assert "t.csv exists" in refuse(monkeypatch, capsys, *words, "--out", tmp_path / "t.csv")
    assert len(open_spectra([tmp_path / "survey.fits"])) == 5
