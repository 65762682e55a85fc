"""Fit many stars with Dask: batches of stars go to processes of this machine, or to the workers of a scheduler.

XLA's functions for one star are too small to keep several cores busy, and threads that call them side by side have
been seen to wait for one another for ever (JAX 0.10 on a CPU, whose Fourier transforms wait in the threads that they
need): so there is one process per core or so. Spectra are read here; arrays travel. What a worker is given does not
follow who finishes first, so a run gives the same numbers whatever happens to its workers.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import pickle
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from queue import Empty, SimpleQueue
from typing import Any

import jax
import numpy as np

from starpayne.errors import MissingExtraError, SpectrumError, StarpayneError
from starpayne.fitting.observation import Source, taken, trimmed
from starpayne.fitting.resolution import Resolution
from starpayne.fitting.result import FitResult
from starpayne.fitting.setup import Setup
from starpayne.machine import cores
from starpayne.spectra import ObservedSpectrum

MANY = 100
"""Stars for which a second process, which compiles for half a minute, is worth it."""

MOST = 16
"""Processes that are started without being asked for: each takes about 1 GB."""

AHEAD = 2
"""Batches that wait for each worker beside the one it has."""

PATIENCE = 120.0
"""Seconds to wait for a worker while there is none."""

Outcome = FitResult | StarpayneError
Batches = Iterable[tuple[int, Sequence[Source]]]
"""Numbered batches of stars."""

Heard = Callable[[int, int], None]
"""Called with the number of a batch, and how many of its stars are finished."""


def suitable_workers(stars: int) -> int:
    """Return how many processes suit so many stars on this machine."""
    if stars < MANY or os.name != "posix" or jax.default_backend() != "cpu" or find_spec("distributed") is None:
        return 1
    return min(cores(), MOST, stars // (MANY // 2))


def dask_is_missing(stars: int) -> bool:
    """Return whether so many stars would be fitted in several processes, were Dask installed."""
    return stars >= MANY and cores() > 1 and jax.default_backend() == "cpu" and find_spec("distributed") is None


def check_workers(workers: int) -> None:
    """Raise SpectrumError where so many processes cannot work."""
    if workers < 1:
        raise SpectrumError(f"workers = {workers} must be at least 1")
    if workers > 1 and os.name != "posix":
        raise SpectrumError("several workers need Linux or macOS: give workers = 1, or a scheduler")


@dataclass(eq=False)
class _Batch:
    """A batch under way; ``missing`` of its outcomes are to come."""

    index: int
    outcomes: list[Outcome | None]
    missing: int = 0


@dataclass(eq=False)
class _Piece:
    """What one task fits: some spectra of a batch, and where their outcomes belong; ``alone`` if no other task runs."""

    batch: _Batch
    places: list[int]
    spectra: list[ObservedSpectrum]
    alone: bool = False
    name: str = field(default_factory=lambda: f"starpayne-{uuid.uuid4().hex}")

    def parts(self) -> list[_Piece]:
        """Return it in about as many parts as each has stars; two stars are parted too."""
        size = math.isqrt(len(self.spectra))
        return [
            _Piece(self.batch, self.places[i : i + size], self.spectra[i : i + size])
            for i in range(0, len(self.spectra), size)
        ]


def fit_batches(
    batches: Batches, resolution: Resolution, setup: Setup, at_once: int, workers: int, scheduler: str | None,
    heard: Heard | None = None,
) -> Iterator[tuple[int, list[Outcome]]]:  # fmt: skip
    """Fit batches of stars, and yield each with its number when it is finished, whichever is first.

    Dask gives the batch of a lost worker to another. One that workers are lost with again and again is parted until the
    star at fault is alone. A worker takes what waits for it along, which is not at fault: so each such star is fitted
    once more with nothing beside it, and if that costs a worker too, it becomes an error of its own.

    Args:
        batches: are taken as workers need them.
        resolution, setup, at_once: as of :func:`starpayne.fitting.following.follow`.
        workers: processes to start on this machine, where there is no scheduler.
        scheduler: address of a running Dask scheduler, such as tcp://host:8786.
        heard: hears of stars that are finished.

    Raises:
        SpectrumError: no scheduler answers, its workers have no or another starpayne, or no worker is left.
        MissingExtraError: without Dask.
    """
    with _client(workers, scheduler) as client:
        from starpayne.fitting.worker import Fitter

        name = f"starpayne-fit-{uuid.uuid4().hex}"
        _check_versions(client, scheduler)
        # On a GPU much of a fit is done by the processor, for which one core is too few.
        crowd = workers if scheduler is None and jax.default_backend() == "cpu" else 0
        client.register_plugin(Fitter(name, setup.model, resolution, setup.options, at_once, crowd), name=name)
        if heard is not None:
            client.subscribe_topic(name, lambda event: heard(*event[1]))
        crew = _Crew(client, name)
        try:
            yield from _run(batches, crew, resolution, setup)
        finally:
            crew.cancel()
            if scheduler is not None:
                with contextlib.suppress(Exception):  # a scheduler that is gone must not hide why we stop
                    client.unregister_worker_plugin(name)


def _run(batches: Batches, crew: _Crew, resolution: Resolution, setup: Setup) -> Iterator[tuple[int, list[Outcome]]]:
    # A resolution per pixel belongs to the spectrum as it is.
    cut = not isinstance(resolution, np.ndarray)
    coming, more = iter(batches), True
    suspects: list[_Piece] = []
    while True:
        while more and crew.has_room and not suspects:
            item = next(coming, None)
            if item is None:
                more = False
                break
            batch = _Batch(item[0], [None] * len(item[1]))
            piece = _Piece(batch, [], [])
            for place, source in enumerate(item[1]):
                try:
                    spectrum = taken(source)
                    piece.spectra.append(trimmed(spectrum, setup) if cut else spectrum)
                    piece.places.append(place)
                except StarpayneError as error:
                    batch.outcomes[place] = error
            batch.missing = len(piece.places)
            if piece.places:
                crew.give(piece)
            else:
                yield batch.index, _whole(batch)
        if not crew.waiting:
            if suspects:
                suspect = suspects.pop()
                crew.give(_Piece(suspect.batch, suspect.places, suspect.spectra, alone=True))
            elif not more:
                return
            else:
                continue
        piece, outcomes = crew.next()
        if outcomes is None:
            if len(piece.spectra) > 1:
                for part in piece.parts():
                    crew.give(part)
                continue
            if not piece.alone:
                suspects.append(piece)
                continue
            star = piece.spectra[0].name
            outcomes = [SpectrumError(f"{star}: each worker that fitted it was lost (killed, or out of memory?)")]
        for place, outcome in zip(piece.places, outcomes, strict=True):
            piece.batch.outcomes[place] = outcome
        piece.batch.missing -= len(piece.places)
        if not piece.batch.missing:
            yield piece.batch.index, _whole(piece.batch)


def _whole(batch: _Batch) -> list[Outcome]:
    return [outcome for outcome in batch.outcomes if outcome is not None]


class _Crew:
    """The workers, and the tasks that they have."""

    def __init__(self, client: Any, name: str) -> None:
        self._client, self._name = client, name
        self._news: SimpleQueue[Any] = SimpleQueue()
        self.waiting: dict[Any, _Piece] = {}

    @property
    def has_room(self) -> bool:
        return len(self.waiting) < (1 + AHEAD) * max(1, len(self._client.nthreads()))

    def give(self, piece: _Piece) -> None:
        """Hand out a task."""
        from starpayne.fitting.worker import fit_batch

        with warnings.catch_warnings():
            # Spectra are what is to be sent: scattered data would be gone with the worker that holds them.
            warnings.filterwarnings("ignore", "Sending large graph")
            future = self._client.submit(
                fit_batch, self._name, piece.batch.index, pickle.dumps(piece.spectra), key=piece.name, pure=False
            )
        self.waiting[future] = piece
        future.add_done_callback(self._news.put)

    def next(self) -> tuple[_Piece, list[Outcome] | None]:
        """Wait for a task to end; None in place of its outcomes if workers were lost with it."""
        from distributed import CancelledError, KilledWorker

        alone_since = None
        while True:
            with contextlib.suppress(Empty):
                future = self._news.get(timeout=1.0)
                piece = self.waiting.pop(future)
                try:
                    return piece, future.result()
                except KilledWorker:
                    return piece, None
                except CancelledError as error:
                    raise SpectrumError("the connection to the Dask scheduler is lost") from error
            if self._client.status not in ("running", "connecting"):
                raise SpectrumError("the connection to the Dask scheduler is lost")
            with contextlib.suppress(OSError):
                if self._client.nthreads():
                    alone_since = None
                    continue
            alone_since = alone_since or time.monotonic()
            if time.monotonic() - alone_since > PATIENCE:
                raise SpectrumError(
                    f"no worker has been left on the Dask cluster for {PATIENCE:.0f} s: what is fitted so far stays"
                )

    def cancel(self) -> None:
        with contextlib.suppress(Exception):  # of a scheduler that is gone
            self._client.cancel(list(self.waiting), force=True)


def _check_versions(client: Any, scheduler: str | None) -> None:
    from starpayne.fitting.worker import installed

    if scheduler is None:
        return
    if not client.nthreads():
        raise SpectrumError(f"the Dask scheduler at {scheduler} has no workers: start some")
    try:
        theirs = client.run(installed)
    except ImportError as error:
        raise SpectrumError(f"the workers at {scheduler} have no starpayne ({error}): install it there") from error
    other = {address: v for address, v in theirs.items() if v != version("starpayne")}
    if other:
        address, found = next(iter(other.items()))
        raise SpectrumError(
            f"the worker {address} has starpayne {found}, this is {version('starpayne')}: install the same everywhere"
        )


@contextlib.contextmanager
def _client(workers: int, scheduler: str | None) -> Iterator[Any]:
    """Yield a Dask client of the given scheduler, or of processes on this machine."""
    try:
        from distributed import Client
    except ImportError as error:
        raise MissingExtraError(
            f'several processes need Dask ({error}): pip install "starpayne[survey]", or give one worker'
        ) from error
    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=10)
        except (OSError, TimeoutError, ValueError) as error:
            raise SpectrumError(f"no Dask scheduler answers at {scheduler!r} ({error})") from error
        with client:
            yield client
        return
    with _local_cluster(workers) as cluster, Client(cluster) as client:
        try:
            client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError as error:
            raise SpectrumError("the processes that were to fit stars do not start: give one worker") from error
        yield client


def device_settings(workers: int) -> dict[str, str]:
    """Return the environment that lets so many processes of this machine share what JAX computes on."""
    if jax.default_backend() == "cpu":
        return {"JAX_PLATFORMS": "cpu"}
    # Memory of the GPU that this process has not taken for itself, in equal parts, and taken as it is needed.
    free = 0.75 if os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE", "").lower() in ("false", "0") else 0.15
    return {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "XLA_PYTHON_CLIENT_MEM_FRACTION": f"{free / workers:.4f}"}


@contextlib.contextmanager
def _local_cluster(workers: int) -> Iterator[Any]:
    """Yield processes of this machine, each with its share of the cores; Dask's nannies replace those that are lost.

    Where there is a GPU they all compute on it: much of a fit is done by the processor, for which one core is too few.

    Not ``LocalCluster``, whose processes import the script that called them again, and run it where it lacks a guard.
    """
    from distributed import Scheduler, SpecCluster
    from distributed.deploy.subprocess import SubprocessWorker

    share = max(1, cores() // workers)
    flags = os.environ.get("XLA_FLAGS", "") + (" --xla_cpu_multi_thread_eigen=false" if share == 1 else "")
    threads = dict.fromkeys(
        ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(share)
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="starpayne-", ignore_cleanup_errors=True) as folder:
        common = {
            "nthreads": 1, "host": "127.0.0.1", "memory_limit": 0, "dashboard": False,
            "silence_logs": logging.CRITICAL, "local_directory": folder,
            "env": {**threads, **device_settings(workers), "XLA_FLAGS": flags.strip()},
            "config": {"distributed.worker.profile.enabled": False},
        }  # fmt: skip
        crew = {
            number: {"cls": SubprocessWorker, "options": {"worker_kwargs": {**common, "name": str(number)}}}
            for number in range(workers)
        }
        options = {"host": "127.0.0.1", "port": 0, "dashboard": False, "allowed_failures": 1}
        with SpecCluster(
            scheduler={"cls": Scheduler, "options": options}, workers=crew,
            silence_logs=logging.CRITICAL,  # pyright: ignore[reportArgumentType]  (a level, as of LocalCluster)
        ) as cluster:  # fmt: skip
            yield cluster
