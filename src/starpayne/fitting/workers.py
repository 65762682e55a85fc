"""Fit many stars in several processes, each of which has some under way side by side.

XLA's functions for one star are too small to keep several cores busy, and threads that call them side by side have
been seen to wait for one another for ever (JAX 0.10 on a CPU): so there is one process per core or so. Spectra are read
here, and only arrays and settings travel.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection, wait

import jax

from starpayne.errors import SpectrumError, StarpayneError
from starpayne.fitting.observation import Source, taken
from starpayne.fitting.resolution import Resolution
from starpayne.fitting.result import FitResult
from starpayne.fitting.setup import Setup
from starpayne.spectra import ObservedSpectrum

MANY = 100
"""Stars for which a second process, which compiles for half a minute, is worth it."""

MOST = 16
"""Processes that are started without being asked for: each takes about 1 GB."""

Outcome = FitResult | StarpayneError


def cores() -> int:
    """Return how many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def suitable_workers(stars: int) -> int:
    """Return how many processes suit so many stars on this machine."""
    if stars < MANY or os.name != "posix" or jax.default_backend() != "cpu":
        return 1
    return min(cores(), MOST, stars // (MANY // 2))


def check_workers(workers: int) -> None:
    """Raise SpectrumError where so many processes cannot work."""
    if workers < 1:
        raise SpectrumError(f"workers = {workers} must be at least 1")
    if workers > 1 and os.name != "posix":
        raise SpectrumError("several workers need Linux or macOS: give workers = 1")
    if workers > 1 and jax.default_backend() != "cpu":
        raise SpectrumError(
            f"several workers are for the cores of a CPU, and JAX computes on {jax.default_backend()} here: give "
            "workers = 1, or set JAX_PLATFORMS=cpu"
        )


class _Worker:
    """A process, and the stars that it has."""

    def __init__(self, setup: Setup, resolution: Resolution, at_once: int, share: int) -> None:
        here, there = socket.socketpair()
        threads = dict.fromkeys(("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(share))
        flags = os.environ.get("XLA_FLAGS", "")
        if share == 1:
            flags += " --xla_cpu_multi_thread_eigen=false"
        with there:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "starpayne.fitting.worker", str(there.fileno())],
                pass_fds=[there.fileno()], stdin=subprocess.DEVNULL,
                env={**os.environ, **threads, "XLA_FLAGS": flags.strip(), "JAX_PLATFORMS": "cpu"},
            )  # fmt: skip
        self.connection = Connection(here.detach())
        self.stars: dict[int, ObservedSpectrum] = {}
        self.started = False
        self.alone = False
        with contextlib.suppress(OSError):  # a process that has ended is found out when it is listened to
            self.connection.send((setup.model, setup.options, resolution, at_once))

    def give(self, index: int, spectrum: ObservedSpectrum, alone: bool) -> None:
        self.stars[index], self.alone = spectrum, alone
        with contextlib.suppress(OSError):
            self.connection.send((index, spectrum))

    def close(self) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.wait()


def fit_in_processes(
    spectra: Iterable[Source], resolution: Resolution, setup: Setup, at_once: int, workers: int
) -> Iterator[Outcome]:
    """Fit many stars as :func:`starpayne.fitting.fit_many` does, in several processes with ``at_once`` stars each.

    A process that is lost (killed, out of memory) is replaced, and the stars it had are fitted again, one at a time;
    the star that a process is lost with again becomes an error of its own.
    """
    spectra = iter(spectra)
    share = max(1, cores() // workers)
    finished: dict[int, Outcome] = {}
    suspects: list[tuple[int, ObservedSpectrum]] = []
    next_in, next_out, more = 0, 0, True
    crew: list[_Worker] = []

    def hire() -> None:
        crew.append(_Worker(setup, resolution, at_once, share))

    def hand_out() -> None:
        nonlocal next_in, more
        for worker in crew:
            if suspects and not worker.stars:
                worker.give(*suspects.pop(), alone=True)
        while more and next_in < next_out + 4 * at_once * workers:
            worker = min((w for w in crew if not (w.alone and w.stars)), key=lambda w: len(w.stars), default=None)
            if worker is None or len(worker.stars) >= at_once:
                return
            try:
                source = next(spectra)
            except StopIteration:
                more = False
                return
            try:
                worker.give(next_in, taken(source), alone=False)
            except StarpayneError as error:
                finished[next_in] = error
            next_in += 1

    def lose(worker: _Worker) -> None:
        crew.remove(worker)
        worker.close()
        why = f"ended with status {worker.process.returncode} (killed, or out of memory?)"
        if not worker.started:
            raise SpectrumError(f"the process that was to fit stars {why} before it could start: give workers = 1")
        for index, spectrum in worker.stars.items():
            if worker.alone:
                finished[index] = SpectrumError(f"{spectrum.name}: the process that fitted it {why}, twice")
            else:
                suspects.append((index, spectrum))
        hire()

    try:
        for _ in range(workers):
            hire()
        while True:
            hand_out()
            while next_out in finished:
                yield finished.pop(next_out)
                next_out += 1
            if not more and not suspects and not any(worker.stars for worker in crew):
                return
            listening = {worker.connection: worker for worker in crew if worker.stars}
            for connection in wait(list(listening)):
                worker = listening[connection]  # pyright: ignore[reportArgumentType]
                try:
                    message = worker.connection.recv()
                except (EOFError, OSError):
                    lose(worker)
                    continue
                if message is None:
                    worker.started = True
                    continue
                index, finished[index] = message[0], message[1]
                del worker.stars[index]
    finally:
        for worker in crew:
            worker.close()
