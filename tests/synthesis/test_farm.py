"""Nothing that happens to a run loses finished spectra, and however it came about, a grid is the same."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from starpayne.emulators import disc_quadrature
from starpayne.errors import LabelError, OutputExistsError, SynthesisError
from starpayne.grid import DONE, FAILED, MISSING, Grid, normalised_intensity
from starpayne.labels import Label, LabelSpace
from starpayne.synthesis import Design, Synthesis, engine, run

pytestmark = pytest.mark.synthesis

PYSME = dataclasses.replace(Design.shipped("demo"), n_spectra=6, n_test=1, n_validation=1, low=5170, high=5173)


def _told(design: Design, **settings: Any) -> Design:
    return dataclasses.replace(design, settings=settings)


def _same(first: Grid, second: Grid) -> None:
    for name in ("labels", "wavelength", "flux", "continuum", "status"):
        np.testing.assert_array_equal(first.dataset[name].values, second.dataset[name].values)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("farm")


@pytest.fixture
def uninterrupted(design: Design, folder: Path) -> Grid:
    """The grid of ``design``, made once by two workers: a run finds it finished and leaves it alone."""
    return run(design, folder / "uninterrupted", workers=2)


def test_a_run_fills_the_grid_and_reports_progress(design: Design, tmp_path: Path) -> None:
    seen: list[tuple[int, int, int]] = []
    grid = run(design, tmp_path / "grid", progress=lambda *counts: seen.append(counts))
    assert np.all(grid.status == DONE)
    assert seen[0] == (0, 24, 0)
    assert seen[-1] == (24, 24, 0)
    assert [s[0] for s in seen] == sorted(s[0] for s in seen)
    assert len({s[0] for s in seen}) > 8, "rows are reported as they finish, not block by block only"
    assert grid.provenance["engine"] == "fake"
    np.testing.assert_array_equal(grid.labels, design.labels)
    np.testing.assert_allclose(grid.continuum()[:, 0], design.labels[:, 0] ** 4, rtol=1e-6)


def test_spectra_that_hang_or_crash_are_recorded_and_the_rest_goes_on(design: Design, tmp_path: Path) -> None:
    teff = design.labels[:, 0].tolist()
    told = _told(design, hang=[teff[4]], crash=[teff[5]], fail=[teff[20]])
    seen: list[tuple[int, int, int]] = []
    grid = run(told, tmp_path / "grid", limit=1.0, progress=lambda *counts: seen.append(counts))
    assert np.flatnonzero(grid.status == FAILED).tolist() == [4, 5, 20]
    assert np.sum(grid.status == DONE) == 21
    assert [f.row for f in grid.failures] == [4, 5, 20]
    assert grid.failures[0].reason == "no answer within 1 s"
    assert grid.failures[1].reason.startswith("the engine process was killed by signal 11")
    assert grid.failures[2].reason == "no convergence in layer 7"
    assert grid.failures[0].labels == pytest.approx({"teff": teff[4], "logg": design.labels[4, 1]})
    assert seen[-1] == (24, 24, 3)


def test_two_workers_make_the_same_grid_as_one(design: Design, uninterrupted: Grid, tmp_path: Path) -> None:
    _same(run(design, tmp_path / "one", workers=1), uninterrupted)


def test_a_finished_grid_is_left_alone(design: Design, tmp_path: Path) -> None:
    log = tmp_path / "log"
    told = _told(design, log=str(log))
    run(told, tmp_path / "grid")
    assert len(log.read_text().split()) == 24
    run(told, tmp_path / "grid")
    assert len(log.read_text().split()) == 24


def test_only_missing_rows_are_synthesized_again(design: Design, uninterrupted: Grid, tmp_path: Path) -> None:
    log = tmp_path / "log"
    told = _told(design, log=str(log))
    grid = run(told, tmp_path / "grid")
    log.unlink()
    writable = Grid.open(tmp_path / "grid", writable=True)
    for row in (3, 4, 17):
        writable._group["status"][row] = MISSING
        writable._group["flux"][row] = np.nan
    run(told, tmp_path / "grid")
    assert sorted(map(float, log.read_text().split())) == sorted(design.labels[[3, 4, 17], 0])
    _same(grid, uninterrupted)


def test_another_design_does_not_touch_an_existing_grid(design: Design, uninterrupted: Grid, tmp_path: Path) -> None:
    shutil.copytree(uninterrupted.path, tmp_path / "grid")
    for other, what in (
        (dataclasses.replace(design, seed=2), "labels"),
        (dataclasses.replace(design, sampling=10_000.0), "wavelengths"),
        (dataclasses.replace(design, n_test=5), "split"),
        (_told(design, shift=1), "settings"),
    ):
        with pytest.raises(OutputExistsError, match=f"holds the grid of another design .*{what}.*--overwrite"):
            run(other, tmp_path / "grid")
    replaced = run(_told(design, shift=1), tmp_path / "grid", overwrite=True)
    assert replaced.provenance["settings"] == {"shift": 1}


def test_a_path_that_holds_something_else_is_not_overwritten(design: Design, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        run(design, tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_design_the_engine_cannot_do_is_refused_before_anything_is_written(design: Design, tmp_path: Path) -> None:
    space = LabelSpace((Label("teff", 5000, 6000), Label("feh", -1, 0)))
    with pytest.raises(LabelError, match="unknown label 'feh'"):
        run(dataclasses.replace(design, space=space), tmp_path / "grid")
    with pytest.raises(SynthesisError, match="workers = 0: at least one is needed"):
        run(design, tmp_path / "grid", workers=0)
    assert not (tmp_path / "grid").exists()


_PROGRAM = """
import sys
from starpayne.labels import Label, LabelSpace
from starpayne.synthesis import Design, register, run
register("fake", "fake_engine:make")
space = LabelSpace((Label("teff", 4000, 6000), Label("logg", 1, 5)))
design = Design(space, 24, low=5000, high=5010, sampling=20_000, n_test=4, n_validation=2, seed=1, engine="fake",
                settings={"seconds": float(sys.argv[2])})
try:
    run(design, sys.argv[1])
except KeyboardInterrupt:
    sys.exit(130)
"""


def _start(path: Path, seconds: float = 0.15) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(path), str(seconds)], env=environment, stderr=subprocess.PIPE
    )


def _wait_for_rows(path: Path, n: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and np.sum(Grid.open(path).status == DONE) >= n:
            return
        threading.Event().wait(0.05)
    raise AssertionError(f"no {n} rows: {process.stderr.read().decode() if process.stderr else ''}")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["SIGKILL", "Ctrl-C"])
def test_a_stopped_run_keeps_its_rows_and_a_second_run_equals_an_uninterrupted_one(
    design: Design, uninterrupted: Grid, tmp_path: Path, how: signal.Signals
) -> None:
    # Slow spectra, so that on a busy machine too the run is stopped long before its end.
    process = _start(tmp_path / "grid", seconds=0.6)
    _wait_for_rows(tmp_path / "grid", 6, process)
    process.send_signal(how)
    start = time.monotonic()
    code = process.wait(timeout=30)
    assert time.monotonic() - start < 10
    assert code == (-signal.SIGKILL if how == signal.SIGKILL else 130)
    kept = np.sum(Grid.open(tmp_path / "grid").status == DONE)
    assert 6 <= kept < 24
    log = tmp_path / "log"
    completed = run(_told(design, seconds=0.0, log=str(log)), tmp_path / "grid")
    assert np.all(completed.status == DONE)
    assert len(log.read_text().split()) == 24 - kept, "finished rows are not synthesized again"
    _same(completed, uninterrupted)


def test_workers_of_a_running_scheduler_can_be_used(design: Design, tmp_path: Path) -> None:
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, processes=False, threads_per_worker=2, dashboard_address=None) as cluster:
        grid = run(design, tmp_path / "grid", scheduler=cluster.scheduler_address)
    assert np.all(grid.status == DONE)
    with pytest.raises(SynthesisError, match="no Dask scheduler answers at"):
        run(design, tmp_path / "other", scheduler="not-an-address")


@pytest.fixture(scope="module")
def alone() -> dict[int, Synthesis]:
    """The first and the last star of PYSME, synthesized in this process."""
    pysme = engine("pysme", PYSME.engine_settings())
    stars = {row: dict(zip(PYSME.space.names, PYSME.labels[row].tolist(), strict=True)) for row in (0, 5)}
    return {row: pysme.synthesize(star, PYSME.wavelength) for row, star in stars.items()}


def test_pysme_on_the_farm_equals_pysme_in_this_process(alone, tmp_path: Path) -> None:
    grid = run(PYSME, tmp_path / "grid", workers=2)
    assert grid.failures == []
    assert grid.physics == ("no_molecules", "lte", "plane_parallel")
    for row, spectrum in alone.items():
        np.testing.assert_array_equal(grid.flux([row])[0], spectrum.flux.astype(np.float32))
        np.testing.assert_array_equal(grid.continuum([row])[0], spectrum.continuum.astype(np.float32))


def test_intensities_are_stored_where_a_design_asks_for_them_and_integrate_to_the_flux(tmp_path: Path) -> None:
    shipped = Design.shipped("intensities")
    design = dataclasses.replace(shipped, n_spectra=2, n_test=0, n_validation=0, low=5172, high=5174)
    grid = run(design, tmp_path / "grid", workers=1)
    quadrature = disc_quadrature(grid.mu)
    i = normalised_intensity(grid, np.arange(2)).reshape(2, 12, -1)
    np.testing.assert_allclose(np.einsum("m,nmw->nw", quadrature.weight, i), grid.flux(), rtol=1e-6)
    # Angles that are not the engine's rings, by the integral itself: the two rules differ by no more than this.
    mu = [0.05, *np.linspace(0.1, 1.0, 19).tolist()]
    dense = run(dataclasses.replace(design, settings={**shipped.settings, "mu": mu}), tmp_path / "dense", workers=1)
    assert dense.dataset["mu"].values.tolist() == mu
    assert dense.intensity().shape == (2, 20, len(design.wavelength))
    assert np.all(np.diff(dense.intensity().mean(axis=2)) > 0), "the limb is darker"
    rule = disc_quadrature(dense.mu)
    i = normalised_intensity(dense, np.arange(2)).reshape(2, 20, -1)
    at_nodes = np.stack([np.apply_along_axis(lambda y: np.interp(rule.mu, dense.mu, y), 0, x) for x in i])
    np.testing.assert_allclose(np.einsum("m,nmw->nw", rule.weight, at_nodes), grid.flux(), rtol=5e-3)
