"""Run the jobs of a study: one per device at a time, resumable, a failure is a row of the table."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import jax

from starpayne.errors import StudyError
from starpayne.evaluation.observed import observe_rows
from starpayne.grid import Grid
from starpayne.study.job import PIXELS_PER_FWHM, run_job, stored_result
from starpayne.study.plan import Job, Study

Progress = Callable[[int, int, str], None]
"""Called as ``progress(jobs done, jobs, what goes on)``."""


def run_study(study: Study, grid: Grid, folder: Path, progress: Progress | None = None) -> list[dict[str, Any]]:
    """Do every job of a study that is not done yet, as many side by side as there are devices.

    Args:
        study: the plan.
        grid: the grid; its split decides which spectra train, validate and test.
        folder: gets ``jobs/NAME/``, with the model and the result of each.
        progress: told what goes on.

    Returns:
        the results in the order of :meth:`Study.jobs`.

    Raises:
        StudyError: no size that the grid has, no test spectra, or a folder that holds another study's trainings.
        SpectrumError: labels cannot be recovered from this grid as the study says.
    """
    jobs = study.jobs()
    check(study, jobs, grid, folder)
    desk = _Desk(len(jobs), progress)

    def work(job: Job) -> dict[str, Any]:
        with desk.device() as device, jax.default_device(device):
            result = run_job(job, study.recovery, grid, folder / "jobs" / job.name, lambda text: desk.note(job, text))
        desk.finish(job)
        return result

    n = len(jax.local_devices())
    if n == 1:
        return [work(job) for job in jobs]
    with ThreadPoolExecutor(n) as pool:
        futures = {pool.submit(work, job): job for job in jobs}
        try:
            waiting = set(futures)
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
        except BaseException:
            # Each training stops at its next report, after writing its checkpoint.
            desk.stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [future.result() for future in futures]


def check(study: Study, jobs: list[Job], grid: Grid, folder: Path) -> None:
    """Raise, before any work, for what would come to light only after hours of it."""
    available = len(grid.usable(grid.split.train))
    least = min(job.n_train for job in jobs)
    if least > available:
        raise StudyError(
            f"the smallest n_train = {least} is more than the {available} usable training spectra of {grid.path}; "
            "lower n_train in the study, or synthesize more"
        )
    test = grid.usable(grid.split.test)
    if len(test) == 0:
        raise StudyError(f"{grid.path} has no test spectra, which a study compares emulators on")
    for job in jobs:
        stored_result(folder / "jobs" / job.name, job, grid)
    recovery = study.recovery
    if recovery.n_spectra:
        observe_rows(
            grid, test[:1], resolution=recovery.resolution, snr=recovery.snr, pixels_per_fwhm=PIXELS_PER_FWHM, seed=0
        )


class _Desk:
    """Hands out devices and collects what the workers report."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.total, self.progress, self.done = total, progress, 0
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.devices: SimpleQueue[Any] = SimpleQueue()
        for device in jax.local_devices():
            self.devices.put(device)

    def device(self) -> _Lease:
        return _Lease(self.devices)

    def note(self, job: Job, text: str) -> None:
        if self.stop.is_set():
            raise KeyboardInterrupt
        if self.progress is not None:
            with self.lock:
                self.progress(self.done, self.total, f"{job.name}: {text}")

    def finish(self, job: Job) -> None:
        with self.lock:
            self.done += 1
            if self.progress is not None:
                self.progress(self.done, self.total, f"{job.name}: done")


class _Lease:
    """A device for as long as the block runs."""

    def __init__(self, devices: SimpleQueue[Any]) -> None:
        self.devices = devices

    def __enter__(self) -> Any:
        self.held = self.devices.get()
        return self.held

    def __exit__(self, *_: object) -> None:
        self.devices.put(self.held)
