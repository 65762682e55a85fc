"""Running a study: complete, resumable, and a failure is a row; side by side where there are devices."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import toy
from tiny import PLAN

from starpayne import bundle
from starpayne.emulators import transformer
from starpayne.errors import SpectrumError, StudyError
from starpayne.grid import Grid
from starpayne.study import Study, run_study
from starpayne.study import job as study_job
from starpayne.study.cost import matrix_operations
from starpayne.study.report import summary, write_report
from starpayne.study.table import curve


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, finished_grid: Grid) -> tuple[Path, Study, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("study")
    study = Study.from_dict(PLAN)
    results = run_study(study, finished_grid, folder)
    write_report(study, results, folder)
    return folder, study, results


def test_every_job_has_a_result_and_a_model(finished) -> None:
    folder, study, results = finished
    assert [(r["emulator"], r["n_train"], r["seed"]) for r in results] == [
        (job.emulator, job.n_train, job.seed) for job in study.jobs()
    ]
    model = bundle.load(folder / "jobs" / "payne-N30-s1" / "model")
    assert len(model.training["split"]["train"]) == 30
    good = next(r for r in results if r["emulator"] == "payne" and r["n_train"] == 30)
    assert good["test"]["n_spectra"] == 10
    assert good["parameters"] == model.training["parameters"]
    assert good["cost"]["ms_per_spectrum_in_batch"] > 0
    assert good["matrix_product_gflops"] > 1
    assert set(good["recovery"]["summary"]) == set(toy.SPACE.names)


def test_operations_are_those_of_the_matrix_products(finished) -> None:
    good = next(r for r in finished[2] if r["emulator"] == "payne")
    assert good["cost"]["operations_per_spectrum"] == 2 * (5 * 8 + 8 * 8 + 8 * 40)


def test_operations_in_a_loop_count_as_often_as_it_runs(transformer_model, monkeypatch) -> None:
    rows = jnp.asarray(toy.labels(6), jnp.float32)

    def counted() -> float:
        return matrix_operations(transformer_model.emulator.on().batch, rows)

    whole = counted()
    d, n = transformer_model.emulator.hidden_width, len(toy.WAVELENGTH)
    assert whole > 6 * n * 16 * d**2  # the feed-forward layers alone
    monkeypatch.setattr(transformer, "CPU_PIECE", d * n)
    monkeypatch.setattr(transformer, "GPU_PIECE", d * n)
    assert counted() == whole


def test_what_cannot_be_trained_is_a_row_that_says_why(finished) -> None:
    folder, _, results = finished
    (failed,) = [r for r in results if "failed" in r]
    assert failed["emulator"] == "cubic"
    assert "56 terms, more than the 30 training spectra" in failed["failed"]
    assert "56 terms" in (folder / "study.html").read_text()


def test_tables_and_figures_are_written(finished) -> None:
    folder, _, results = finished
    rows = list(csv.DictReader((folder / "study.csv").open()))
    assert len(rows) == len(results)
    assert float(rows[0]["test_mae"]) == pytest.approx(results[0]["test"]["mae"])
    labels = {row["label"] for row in csv.DictReader((folder / "recovery.csv").open())}
    assert labels == set(toy.SPACE.names)
    assert json.loads((folder / "study.json").read_text())["study"] == "tiny"
    for name in ("error_against_size", "error_against_cost", "recovery_against_size"):
        for suffix in ("png", "pdf"):
            assert (folder / "figures" / f"{name}.{suffix}").stat().st_size > 1000
    assert (folder / "study.html").read_text().count("<figure>") == 3


def test_the_summary_averages_over_seeds(finished) -> None:
    head, rows = summary(finished[2])
    assert head == ["emulator", "N = 20", "N = 30"]
    sizes, values = curve(finished[2], "payne", lambda r: r["test"]["mae"])
    assert (list(sizes), values.shape) == ([20, 30], (2, 2))
    row = next(row for row in rows if row[0] == "payne")
    assert row[1].startswith(f"{values[0].mean():.5f} ± ")
    assert np.isfinite(values).all()
    assert "cubic" not in [row[0] for row in rows]


def test_finished_jobs_are_not_done_again(finished, finished_grid: Grid, tmp_path: Path, monkeypatch) -> None:
    folder, study, results = finished
    shutil.copytree(folder / "jobs", tmp_path / "jobs")
    (tmp_path / "jobs" / "line-N20-s0" / "result.json").unlink()

    notes: list[str] = []
    again = run_study(study, finished_grid, tmp_path, lambda done, total, text: notes.append(text))
    assert {n.split(":")[0] for n in notes if not n.endswith(": done")} == {"line-N20-s0"}
    assert [r["test"]["mae"] for r in again if "test" in r] == [r["test"]["mae"] for r in results if "test" in r]


def test_other_recovery_settings_do_not_train_again(finished, finished_grid: Grid, tmp_path: Path, plan) -> None:
    shutil.copytree(finished[0] / "jobs", tmp_path / "jobs")
    plan["recovery"] = {"n_spectra": 0}
    weights = tmp_path / "jobs" / "payne-N20-s0" / "model" / "weights.safetensors"
    before = weights.stat().st_mtime_ns
    results = run_study(Study.from_dict(plan), finished_grid, tmp_path)
    assert all(r["recovery"] is None for r in results if "failed" not in r)
    assert weights.stat().st_mtime_ns == before


def test_labels_that_cannot_be_recovered_cost_no_training(
    finished, finished_grid: Grid, tmp_path: Path, plan, monkeypatch
) -> None:
    def refuse(*_, **__):
        raise SpectrumError("no such star")

    monkeypatch.setattr(study_job, "recover", refuse)
    plan["emulators"] = {"line": plan["emulators"]["line"]}
    study = Study.from_dict(plan)
    results = run_study(study, finished_grid, tmp_path)
    assert [r["recovery_failed"] for r in results] == ["no such star"] * 2
    assert [r["test"]["mae"] for r in results] == [r["test"]["mae"] for r in finished[2] if r["emulator"] == "line"]
    assert "Labels not recovered" in write_report(study, results, tmp_path).read_text()


def test_a_recovery_that_the_grid_cannot_give_is_refused_before_any_work(
    finished_grid: Grid, tmp_path: Path, plan
) -> None:
    plan["recovery"] = {"n_spectra": 2, "resolution": 400_000}
    with pytest.raises(SpectrumError, match="resolution = 400000 is above half the sampling of the grid"):
        run_study(Study.from_dict(plan), finished_grid, tmp_path)
    assert not (tmp_path / "jobs").exists()


def test_a_folder_of_another_study_is_refused(finished, finished_grid: Grid, tmp_path: Path, plan) -> None:
    shutil.copytree(finished[0] / "jobs", tmp_path / "jobs")
    plan["emulators"]["payne"] = {**plan["emulators"]["payne"], "steps": 61}
    with pytest.raises(StudyError, match=r"payne-N20-s0 holds another training \(steps was 60\); give another --out"):
        run_study(Study.from_dict(plan), finished_grid, tmp_path)


def test_no_result_is_touched_where_one_is_of_another_study(
    finished, finished_grid: Grid, tmp_path: Path, plan
) -> None:
    shutil.copytree(finished[0] / "jobs", tmp_path / "jobs")
    before = (tmp_path / "jobs" / "line-N20-s0" / "result.json").read_bytes()
    plan["recovery"] = {"n_spectra": 0}
    plan["emulators"]["payne"] = {**plan["emulators"]["payne"], "steps": 61}
    with pytest.raises(StudyError, match="holds another training"):
        run_study(Study.from_dict(plan), finished_grid, tmp_path)
    assert (tmp_path / "jobs" / "line-N20-s0" / "result.json").read_bytes() == before


def test_a_size_that_the_grid_has_not_is_a_row_and_none_at_all_is_refused(
    finished_grid: Grid, tmp_path: Path, plan
) -> None:
    plan |= {"n_train": [20, 41], "recovery": {"n_spectra": 0}, "emulators": {"line": plan["emulators"]["line"]}}
    small, large = run_study(Study.from_dict(plan), finished_grid, tmp_path / "some")
    assert small["test"]["mae"] > 0
    assert "the grid's split has 40 usable training spectra" in large["failed"]
    plan["n_train"] = [41, 50]
    with pytest.raises(StudyError, match=r"the smallest n_train = 41 is more than the 40 usable training spectra of"):
        run_study(Study.from_dict(plan), finished_grid, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_an_interrupted_study_goes_on_to_the_same_result(finished, finished_grid: Grid, tmp_path: Path, plan) -> None:
    def interrupt(done: int, total: int, text: str) -> None:
        if text.startswith("payne-N20-s1: step 30"):
            raise KeyboardInterrupt

    plan["recovery"] = {"n_spectra": 0}
    study = Study.from_dict(plan)
    with pytest.raises(KeyboardInterrupt):
        run_study(study, finished_grid, tmp_path, interrupt)
    assert (tmp_path / "jobs" / "payne-N20-s1" / "model" / "checkpoint").is_dir()
    results = run_study(study, finished_grid, tmp_path)
    assert [r.get("test", {}).get("mae") for r in results] == [r.get("test", {}).get("mae") for r in finished[2]]


@pytest.mark.thorough
def test_jobs_run_side_by_side_on_two_devices(finished, finished_grid: Grid, tmp_path: Path) -> None:
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
    output = toy.python(
        """
        import sys
        from pathlib import Path
        import jax, toy
        sys.path.insert(0, str(Path(toy.__file__).parent / "study"))
        from tiny import PLAN, measure_for_a_moment
        from starpayne.grid import Grid
        from starpayne.study import Study, run_study

        measure_for_a_moment(setattr)
        plan = {**PLAN, "recovery": {"n_spectra": 0}}

        assert len(jax.devices()) == 2
        running, most = set(), 0
        def watch(done, total, text):
            global most
            name, what = text.split(": ", 1)
            (running.discard if what == "done" else running.add)(name)
            most = max(most, len(running))
        results = run_study(Study.from_dict(plan), Grid.open(sys.argv[1]), Path(sys.argv[2]), watch)
        print(most, [r.get("test", {}).get("mae") for r in results])
        """,
        finished_grid.path, tmp_path, environment={"XLA_FLAGS": flags},
    )  # fmt: skip
    most, maes = output.split(" ", 1)
    assert int(most) == 2
    expected = [r.get("test", {}).get("mae") for r in finished[2]]
    found = [None if item == "None" else float(item) for item in maes.strip().strip("[]").split(", ")]
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert one == pytest.approx(other, rel=1e-3)
