"""One process of a survey: ``python -m starpayne.fitting.worker DESCRIPTOR``, spoken to over a socket.

It is told a model, a resolution and options, then stars, and answers with their results. It ends with the process that
started it, as that closes the socket by ending.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection

from starpayne.fitting.setup import Setup
from starpayne.fitting.statistics import summarise
from starpayne.fitting.survey import follow
from starpayne.spectra import ObservedSpectrum


def main() -> None:
    """Fit what comes until nothing more does."""
    # Ctrl-C is for the parent, which closes the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(int(sys.argv[1]))
    model, options, resolution, at_once = connection.recv()
    setup = Setup(model, options)
    connection.send(None)
    arrived: queue.SimpleQueue[tuple[int, ObservedSpectrum]] = queue.SimpleQueue()
    under_way: list[int] = []

    def receive() -> None:
        # In a thread of its own: the parent must never wait for room in the socket while this process waits for it.
        while True:
            try:
                arrived.put(connection.recv())
            except (EOFError, OSError):
                os._exit(0)

    def stars() -> Iterator[ObservedSpectrum | None]:
        while True:
            try:
                index, spectrum = arrived.get(block=not under_way)
            except queue.Empty:
                yield None
                continue
            under_way.append(index)
            yield spectrum

    threading.Thread(target=receive, daemon=True).start()
    for outcome in follow(stars(), resolution, setup, lambda descent: summarise(descent, setup), at_once):
        connection.send((under_way.pop(0), outcome))


if __name__ == "__main__":
    main()
