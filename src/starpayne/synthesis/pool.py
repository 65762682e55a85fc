"""The engine processes of a run in this process: a worker takes one, or starts one, and gives it back."""

from __future__ import annotations

import threading
from collections.abc import Callable

from starpayne.synthesis.watchdog import ChildEngine, SynthesisFailure

_POOLS: dict[str, Pool] = {}
_LOCK = threading.Lock()


class Pool:
    """Engines of one run, as many as workers ask for at a time."""

    def __init__(self, make: Callable[[], ChildEngine]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._idle: list[ChildEngine] = []
        self._all: list[ChildEngine] = []
        self.stopped = False

    def take(self) -> ChildEngine:
        """Return an idle engine, or a new one; it is the caller's alone until given back."""
        with self._lock:
            if self.stopped:
                raise SynthesisFailure("stopped")
            if not self._idle:
                engine = self._make()
                self._all.append(engine)
                return engine
            return self._idle.pop()

    def give(self, engine: ChildEngine) -> None:
        """Take back an engine, or take over one made elsewhere."""
        with self._lock:
            if engine not in self._all:
                self._all.append(engine)
            self._idle.append(engine)

    def stop(self) -> None:
        """Kill every engine, also those at work; nothing more can be taken."""
        with self._lock:
            self.stopped = True
            engines, self._all, self._idle = self._all, [], []
        for engine in engines:
            engine.close()


def pool_of(job: str, make: Callable[[], ChildEngine]) -> Pool:
    """Return the pool of a run in this process, made at the first call."""
    with _LOCK:
        if job not in _POOLS:
            _POOLS[job] = Pool(make)
        return _POOLS[job]


def stop_pool(job: str) -> None:
    """Kill the engines of a run in this process."""
    with _LOCK:
        pool = _POOLS.get(job)
    if pool is not None:
        # It stays in the table, stopped: a task that starts late must not open it again.
        pool.stop()
