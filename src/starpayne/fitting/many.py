"""Fit many stars: some at a time, so that memory stays bounded, their descents side by side in compiled functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController

from starpayne.bundle import Model
from starpayne.errors import SpectrumError, StarpayneError
from starpayne.fitting import cluster
from starpayne.fitting.course import Asked, Course, Request, course
from starpayne.fitting.lanes import lanes, sizes
from starpayne.fitting.lockstep import proceed
from starpayne.fitting.observation import Source, taken
from starpayne.fitting.options import FitOptions
from starpayne.fitting.problem import Descent, Glance, look
from starpayne.fitting.resolution import Resolution
from starpayne.fitting.result import FitResult
from starpayne.fitting.search import Inquiry, search
from starpayne.fitting.setup import Setup
from starpayne.fitting.statistics import summarise

COMPANY = 4
"""Stars under way at a time, for each lane of a compiled call."""

BATCH = 24
"""Stars of a batch that goes to another process, for each lane of a compiled call."""

T = TypeVar("T")


@dataclass(eq=False)
class _Star:
    """A star under way, and the descents it waits for."""

    index: int
    name: str
    course: Course
    waiting: list[Asked]

    def go_on(self) -> Descent | None:
        """Do its own part, up to its next questions; return where it ended, if it has."""
        try:
            self.waiting = self.course.send(None)
        except StopIteration as end:
            return end.value
        return None


def fit_many(
    spectra: Iterable[Source],
    model: Model,
    resolution: Resolution,
    options: FitOptions | None = None,
    at_once: int | None = None,
    workers: int = 1,
    scheduler: str | None = None,
) -> Iterator[FitResult | StarpayneError]:
    """Fit many stars with one model; each gets what :func:`fit` would give it.

    Descents of several stars share one call of a compiled function. Memory is bounded by ``at_once``, whatever the
    number of stars: spectra are taken from the iterable as others are finished.

    Args:
        spectra: the observations, or functions that return them (such as readers of files), called when their turn
            comes.
        model, resolution, options: as of :func:`fit`; a resolution per pixel must suit every spectrum.
        at_once: stars under way at a time, in each process; by default enough to fill the compiled calls.
        workers: processes to fit in, started by Dask on this machine. Each takes about 1 GB and compiles for itself:
            worth it from some hundred stars on, where there are several cores, with a GPU or without.
        scheduler: address of a running Dask scheduler whose workers to use instead, such as tcp://host:8786.

    Yields:
        for each star, in the order given, its result, or the error that keeps it from being fitted.

    Raises:
        SpectrumError, LabelError: for a model or options with which no star can be fitted, more than one worker
            where there can be but one (no CPU, not POSIX), or a scheduler that does not answer.
        MissingExtraError: for more than one process without Dask.

    Example:
        ``for result in fit_many(map(ObservedSpectrum.read, paths), model, 40000): ...``
    """
    setup = Setup(model, options or FitOptions())
    at_once = company() if at_once is None else max(1, at_once)
    cluster.check_workers(workers)
    if workers == 1 and scheduler is None:
        return follow(spectra, resolution, setup, lambda descent: summarise(descent, setup), at_once)
    size = batch_size(setup)
    if scheduler is None and isinstance(spectra, Sized):
        # Of few stars, each process has some.
        size = max(1, min(size, -(-len(spectra) // (2 * workers))))
    batches = enumerate(_in_batches(spectra, size))
    return _in_order(cluster.fit_batches(batches, resolution, setup, at_once, workers, scheduler))


def company() -> int:
    """Return how many stars should be under way at a time for all compiled calls to be full."""
    return COMPANY * max(sizes())


def batch_size(setup: Setup) -> int:
    """Return how many stars make a batch: enough for all to have company for most of the time, and few enough that one
    is done in a minute or so."""
    return BATCH * lanes(setup.model.emulator.on(), len(setup.parameters), max(sizes()))


def _in_batches(spectra: Iterable[Source], size: int) -> Iterator[list[Source]]:
    coming = iter(spectra)
    while batch := list(islice(coming, size)):
        yield batch


def _in_order(batches: Iterator[tuple[int, list[T]]]) -> Iterator[T]:
    waiting: dict[int, list[T]] = {}
    following = 0
    for index, outcomes in batches:
        waiting[index] = outcomes
        while following in waiting:
            yield from waiting.pop(following)
            following += 1


def follow(
    spectra: Iterable[Source | None],
    resolution: Resolution,
    setup: Setup,
    finish: Callable[[Descent], T],
    at_once: int = 1,
) -> Iterator[T | StarpayneError]:
    """Fit many stars, and yield what ``finish`` makes of where each ended; otherwise as :func:`fit_many`.

    A None among the spectra says that there is none at the moment: the page of the explorer counts steps so.
    """
    spectra = iter(spectra)
    under_way: list[_Star] = []
    finished: dict[int, T | StarpayneError] = {}
    next_in, next_out, more = 0, 0, True

    def go_on(star: _Star) -> None:
        try:
            descent = star.go_on()
            if descent is None:
                under_way.append(star)
            else:
                finished[star.index] = finish(descent)
        except StarpayneError as error:
            finished[star.index] = error
        except np.linalg.LinAlgError as error:
            # One star that breaks the algebra must not cost the others.
            finished[star.index] = SpectrumError(f"{star.name}: the fit broke down numerically ({error})")

    while True:
        # One star that takes long must not pile up the results of those behind it.
        while more and len(under_way) < at_once and next_in < next_out + 4 * at_once:
            try:
                source = next(spectra)
            except StopIteration:
                more = False
                break
            if source is None:
                break
            try:
                spectrum = taken(source)
                with _one_thread():
                    go_on(_Star(next_in, spectrum.name, course(spectrum, resolution, setup), []))
            except StarpayneError as error:
                finished[next_in] = error
            next_in += 1
        while next_out in finished:
            yield finished.pop(next_out)
            next_out += 1
        if not under_way:
            if not more:
                return
            continue
        _proceed(under_way, setup)
        ready = [star for star in under_way if all(request.done for request in star.waiting)]
        under_way[:] = [star for star in under_way if star not in ready]
        with _one_thread():
            for star in ready:
                go_on(star)


def _one_thread() -> AbstractContextManager[object]:
    """Let a star's own part use one thread: its matrices are small, and threads would wait for each other for longer
    than they compute."""
    return _libraries().limit(limits=1, user_api="blas")


@cache
def _libraries() -> ThreadpoolController:
    # To find them takes milliseconds, to tell them how many threads to use microseconds.
    return ThreadpoolController()


def _proceed(under_way: list[_Star], setup: Setup) -> None:
    """Take one batch of requests a round further: of those that can share a call, the largest group."""
    groups: dict[object, list[Asked]] = {}
    for star in under_way:
        for request in star.waiting:
            if not request.done:
                groups.setdefault(request.shape, []).append(request)
    group = max(groups.values(), key=len)
    if inquiries := [request for request in group if isinstance(request, Inquiry)]:
        search(inquiries)
    elif glances := [request for request in group if isinstance(request, Glance)]:
        look(setup, glances)
    else:
        descents = [request for request in group if isinstance(request, Request)]
        proceed(descents[0].bound, setup.parameters, [request.lane for request in descents])
