"""The process that fits for a server: ``python -m starpayne.explorer.fitting_process DESCRIPTOR``.

It is told a model over a socket, then stars, one at a time; it answers with the steps it has done, and at last with a
result. What it has compiled serves the next star. It ends with the process that started it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection

from starpayne.bundle import Model
from starpayne.errors import StarpayneError
from starpayne.fitting import FitResult
from starpayne.fitting.following import follow
from starpayne.fitting.setup import Setup
from starpayne.fitting.statistics import summarise
from starpayne.spectra import ObservedSpectrum

NICE = 5
"""The page comes first: its visitors wait for a redraw, and know that a fit takes a while."""


def main() -> None:
    """Fit what comes until nothing more does."""
    # Ctrl-C is for the parent, which closes the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(NICE)
    connection = Connection(int(sys.argv[1]))
    with contextlib.suppress(EOFError, OSError):
        model: Model = connection.recv()
        setup: Setup | None = None
        while True:
            spectrum, resolution, options = connection.recv()
            try:
                if setup is None or setup.options != options:
                    setup = Setup(model, options)
                outcome = fit_in_steps(spectrum, resolution, setup, connection)
            except StarpayneError as error:
                outcome = error
            connection.send(outcome)


def fit_in_steps(
    spectrum: ObservedSpectrum, resolution: float, setup: Setup, connection: Connection
) -> FitResult | StarpayneError:
    """Fit one star as :func:`starpayne.fit` does, and send the number of steps done after each."""

    def star() -> Iterator[ObservedSpectrum | None]:
        yield spectrum
        steps = 0
        # Asked for more stars before each step.
        while True:
            connection.send(steps)
            steps += 1
            yield None

    stars = follow(star(), resolution, setup, lambda descent: summarise(descent, setup), at_once=2)
    return next(stars)


if __name__ == "__main__":
    main()
