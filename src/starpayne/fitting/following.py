"""Follow many stars side by side: some at a time, so that memory stays bounded, and what they ask for in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController

from starpayne.errors import SpectrumError, StarpayneError
from starpayne.fitting.course import Asked, Course, Request, course
from starpayne.fitting.lanes import sizes
from starpayne.fitting.lockstep import proceed
from starpayne.fitting.observation import Source, taken
from starpayne.fitting.problem import Descent, Glance, look
from starpayne.fitting.resolution import Resolution
from starpayne.fitting.search import Inquiry, search
from starpayne.fitting.setup import Setup

COMPANY = 4
"""Stars under way at a time, for each lane of a compiled call."""

T = TypeVar("T")


@dataclass(eq=False)
class _Star:
    """A star under way, and what it waits for."""

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


def company() -> int:
    """Return how many stars should be under way at a time for all compiled calls to be full."""
    return COMPANY * max(sizes())


def follow(
    spectra: Iterable[Source | None],
    resolution: Resolution,
    setup: Setup,
    finish: Callable[[Descent], T],
    at_once: int = 1,
) -> Iterator[T | StarpayneError]:
    """Fit many stars, and yield what ``finish`` makes of where each ended; otherwise as
    :func:`starpayne.fitting.fit_many`.

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
