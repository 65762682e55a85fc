"""What runs on the workers of a Dask cluster: one model, made ready and compiled once, and batches of stars to fit.

Imported on the workers, and by :mod:`starpayne.fitting.cluster` when there is a cluster, as it needs Dask.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import sys
import threading
from functools import cached_property
from importlib.metadata import version
from typing import Any

from distributed import WorkerPlugin, get_worker

from starpayne.bundle import Model
from starpayne.errors import StarpayneError
from starpayne.fitting.following import follow
from starpayne.fitting.options import FitOptions
from starpayne.fitting.resolution import Resolution
from starpayne.fitting.result import FitResult
from starpayne.fitting.setup import Setup
from starpayne.fitting.statistics import summarise
from starpayne.spectra import ObservedSpectrum

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""


def keep_freed_memory() -> None:
    """Let this process keep up to 1 GB of freed memory for its next arrays.

    Dask starts its workers so that they give back all they can (``MALLOC_TRIM_THRESHOLD_``); then every array of a fit
    is new memory to the system, and fits take twice as long.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 32 * 2**20)  # the most that it takes
        mallopt(M_TRIM_THRESHOLD, 2**30)


def keep_to_cores(number: int, of: int) -> None:
    """Let this process run on its part of the cores that it may use: part ``number`` of so many equal ones.

    Moved from core to core by the system, a fit takes a quarter more processor time.
    """
    if not hasattr(os, "sched_setaffinity"):
        return
    allowed = sorted(os.sched_getaffinity(0))
    share = len(allowed) // of
    if not share:
        return
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):  # it has ended
            os.sched_setaffinity(int(thread), allowed[number * share : (number + 1) * share])


class Fitter(WorkerPlugin):
    """What all stars of a run share, given to every worker there is, and to those that come later.

    Args:
        name: of the run.
        model, resolution, options, at_once: as of :func:`starpayne.fitting.fit_many`.
        crowd: how many workers, numbered, share the cores of this machine; 0 where others have started them.
    """

    def __init__(
        self, name: str, model: Model, resolution: Resolution, options: FitOptions, at_once: int, crowd: int = 0
    ) -> None:
        self.name, self._crowd = name, crowd
        # As bytes, which Dask does not look into; it is trusted like the code that Dask itself sends.
        self._packed = pickle.dumps((model, resolution, options, at_once))
        self._lock: threading.Lock | None = None

    def setup(self, worker: Any) -> None:
        self._lock = threading.Lock()
        keep_freed_memory()
        if self._crowd:
            keep_to_cores(int(worker.name), self._crowd)

    @cached_property
    def _run(self) -> tuple[Setup, Resolution, int]:
        model, resolution, options, at_once = pickle.loads(self._packed)
        return Setup(model, options), resolution, at_once

    def fit(self, index: int, spectra: list[ObservedSpectrum]) -> list[FitResult | StarpayneError]:
        worker, outcomes = get_worker(), []
        assert self._lock is not None
        # JAX calls of two threads of a worker have been seen to wait for one another for ever.
        with self._lock:
            setup, resolution, at_once = self._run
            for outcome in follow(spectra, resolution, setup, lambda descent: summarise(descent, setup), at_once):
                outcomes.append(outcome)
                worker.log_event(self.name, (index, len(outcomes)))
        return outcomes


def fit_batch(name: str, index: int, packed: bytes) -> list[FitResult | StarpayneError]:
    """Fit a batch of stars, pickled, with the :class:`Fitter` of that name."""
    fitter = get_worker().plugins[name]
    assert isinstance(fitter, Fitter)
    return fitter.fit(index, pickle.loads(packed))


def installed() -> str:
    """Return the version of starpayne on this worker."""
    return version("starpayne")
