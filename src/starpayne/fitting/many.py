"""Fit many stars with one model, in this process or in several."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from itertools import islice
from typing import TypeVar

from starpayne.bundle import Model
from starpayne.errors import StarpayneError
from starpayne.fitting import cluster
from starpayne.fitting.following import company, follow
from starpayne.fitting.lanes import lanes, sizes
from starpayne.fitting.observation import Source
from starpayne.fitting.options import FitOptions
from starpayne.fitting.resolution import Resolution
from starpayne.fitting.result import FitResult
from starpayne.fitting.setup import Setup
from starpayne.fitting.statistics import summarise

BATCH = 24
"""Stars of a batch that goes to another process, for each lane of a compiled call."""

T = TypeVar("T")


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
