"""Stars fitted by Dask's workers: the results of one process, whatever happens to a worker."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import jax
import pytest
import toy
from known_star import RESOLUTION, SPACE, TRUTH

from starpayne.bundle import Model
from starpayne.errors import MissingExtraError, SpectrumError
from starpayne.fitting import FitOptions, FitResult, cluster, fit_many, many
from starpayne.fitting.setup import Setup
from starpayne.spectra import ObservedSpectrum

Observe = Callable[..., ObservedSpectrum]

FEW = FitOptions(fix=dict(zip(SPACE.names[1:], TRUTH[1:], strict=True)), vsini=8.0, rv_range=(-50.0, 50.0))
"""One label and the velocity: what the processes do is tested, not the fit."""


class Deadly(ObservedSpectrum):
    """A spectrum that ends the process it is sent to."""

    def __reduce__(self) -> tuple:
        return os._exit, (7,)


@pytest.fixture
def batches_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "batch_size", lambda setup: 3)


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The process of the worker that is killed as soon as a first batch is finished, before others can be lost."""
    seen, run = [], cluster._run

    def watched(batches, crew, resolution, setup) -> Iterator:
        for found in run(batches, crew, resolution, setup):
            if not seen:
                # On a busy machine another may be lost already.
                seen.append(next(iter(crew._client.run(os.getpid, on_error="ignore").values())))
                os.kill(seen[0], signal.SIGKILL)
            yield found

    monkeypatch.setattr(cluster, "_run", watched)
    return seen


@pytest.mark.usefixtures("batches_of_three")
@pytest.mark.slow
def test_two_processes_give_what_one_does_though_one_is_killed_and_a_star_kills_others(
    with_residuals: Model, observe: Observe, killed: list[int]
) -> None:
    def missing() -> ObservedSpectrum:
        raise SpectrumError("no such file")

    spectra = [observe(rv=3.0 * i, seed=i, name=f"star {i}") for i in range(13)]
    sources = [*spectra[:3], missing, lambda: spectra[3], *spectra[4:]]
    one = list(fit_many(sources, with_residuals, RESOLUTION, FEW, at_once=2))
    bad = observe(name="bad")
    deadly = Deadly(bad.wavelength, bad.flux, bad.error, medium="air", name="bad")
    # In the last batch, whose other stars are to be fitted all the same.
    with_it = [*sources, deadly]
    two = list(fit_many(with_it, with_residuals, RESOLUTION, FEW, at_once=2, workers=2))
    assert len(killed) == 1
    assert str(two.pop()) == "bad: each worker that fitted it was lost (killed, or out of memory?)"
    assert len(two) == 14
    assert str(two[3]) == "no such file"
    for mine, theirs in zip(one, two, strict=True):
        if isinstance(mine, FitResult):
            assert isinstance(theirs, FitResult)
            assert theirs.name == mine.name
            assert abs(theirs.labels["teff"] - mine.labels["teff"]) < 0.1 * mine.errors["teff"]
            assert theirs.flags == mine.flags


def test_the_workers_of_a_running_scheduler_can_be_used(star_model: Model, observe: Observe) -> None:
    from distributed import LocalCluster

    spectra = [observe(rv=float(i), name=f"star {i}") for i in range(3)]
    # Two threads, as the workers of clusters usually have several.
    with LocalCluster(n_workers=1, processes=False, threads_per_worker=2, dashboard_address=None) as running:
        found = list(fit_many(spectra, star_model, RESOLUTION, FEW, scheduler=running.scheduler_address))
        assert all(not worker.plugins or not any("starpayne" in name for name in worker.plugins)
                   for worker in running.workers.values())  # fmt: skip
    assert [outcome.name for outcome in found] == ["star 0", "star 1", "star 2"]  # pyright: ignore[reportAttributeAccessIssue]


def test_a_scheduler_that_cannot_be_used_is_refused(
    star_model: Model, observe: Observe, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed import LocalCluster

    with pytest.raises(SpectrumError, match="no Dask scheduler answers at 'nonsense'"):
        list(fit_many([observe()], star_model, RESOLUTION, FEW, scheduler="nonsense"))
    with LocalCluster(n_workers=0, processes=False, dashboard_address=None) as running:
        address = running.scheduler_address
        with pytest.raises(SpectrumError, match=f"scheduler at {address} has no workers: start some"):
            list(fit_many([observe()], star_model, RESOLUTION, FEW, scheduler=address))
        running.scale(1)
        running.wait_for_workers(1)
        monkeypatch.setattr(cluster, "version", lambda name: "0.0.1")
        with pytest.raises(SpectrumError, match=r"the worker .* has starpayne .*, this is 0.0.1: install the same"):
            list(fit_many([observe()], star_model, RESOLUTION, FEW, scheduler=address))


def test_a_run_without_workers_ends(star_model: Model, observe: Observe, monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import LocalCluster

    monkeypatch.setattr(cluster, "PATIENCE", 1.0)
    with LocalCluster(n_workers=1, processes=False, threads_per_worker=1, dashboard_address=None) as running:

        def last() -> ObservedSpectrum:
            running.scale(0)
            return observe()

        found = fit_many([last], star_model, RESOLUTION, FEW, scheduler=running.scheduler_address)
        with pytest.raises(SpectrumError, match="no worker has been left on the Dask cluster for 1 s"):
            list(found)


def test_where_there_can_be_but_one_process(star_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpectrumError, match="workers = 0 must be at least 1"):
        fit_many([], star_model, RESOLUTION, workers=0)
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(MissingExtraError, match=r'pip install "starpayne\[survey\]", or give one worker'):
        list(fit_many([], star_model, RESOLUTION, workers=2))


def test_processes_are_chosen_by_stars_and_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "cores", lambda: 8)
    assert [cluster.suitable_workers(n) for n in (1, 99, 100, 170, 10_000)] == [1, 1, 2, 3, 8]
    assert not cluster.dask_is_missing(10_000)
    with monkeypatch.context() as gpu:
        gpu.setattr(jax, "default_backend", lambda: "gpu")
        assert cluster.suitable_workers(10_000) == 1
    monkeypatch.setattr(cluster, "find_spec", lambda name: None if name == "distributed" else find_spec(name))
    assert cluster.suitable_workers(10_000) == 1
    assert cluster.dask_is_missing(10_000)


def test_processes_share_the_memory_that_is_left_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cluster.device_settings(4) == {"JAX_PLATFORMS": "cpu"}
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.delenv("XLA_PYTHON_CLIENT_PREALLOCATE", raising=False)
    settings = cluster.device_settings(4)
    assert settings["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    assert 4 * float(settings["XLA_PYTHON_CLIENT_MEM_FRACTION"]) == pytest.approx(0.15)  # JAX takes 0.75 for the first
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    assert 4 * float(cluster.device_settings(4)["XLA_PYTHON_CLIENT_MEM_FRACTION"]) == pytest.approx(0.75)


def test_batches_are_as_large_as_calls_are_wide(star_model: Model) -> None:
    assert many.batch_size(Setup(star_model, FEW)) == 24 * 16


def test_of_few_stars_each_process_has_some(
    star_model: Model, observe: Observe, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def as_they_come(batches, *settings: object) -> Iterator:
        for index, batch in batches:
            sizes.append(len(batch))
            yield index, batch

    monkeypatch.setattr(cluster, "fit_batches", as_they_come)
    stars = [observe()] * 13
    assert list(fit_many(stars, star_model, RESOLUTION, FEW, workers=2)) == stars
    assert sizes == [4, 4, 4, 1]
    sizes.clear()
    assert list(fit_many(iter(stars), star_model, RESOLUTION, FEW, workers=2)) == stars  # as many as may come
    assert sizes == [13]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not say which cores a process uses")
def test_workers_share_the_cores() -> None:
    before, *after = json.loads(
        toy.python(
            """
            import json, os, threading
            from starpayne.fitting.worker import keep_to_cores

            wait = threading.Event()
            threading.Thread(target=wait.wait, daemon=True).start()
            allowed = sorted(os.sched_getaffinity(0))

            def used():
                return sorted({tuple(sorted(os.sched_getaffinity(int(t)))) for t in os.listdir("/proc/self/task")})

            found = [allowed]
            for number, of in ((len(allowed), len(allowed) + 1), (len(allowed) - 1, len(allowed)), (0, 1)):
                keep_to_cores(number, of)
                found.append(used())
                for t in os.listdir("/proc/self/task"):
                    os.sched_setaffinity(int(t), allowed)
            print(json.dumps(found))
            """
        )
    )
    # More workers than cores are left to the system; the last of as many as there are cores has the last core.
    assert after == [[before], [before[-1:]], [before]]
