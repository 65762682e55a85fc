"""The queue of fits of a server: one at a time, in a process of its own, watched by one thread.

Not in a thread of the server: JAX calls of two threads have been seen to wait for one another for ever on a CPU (0.10),
and the page must answer while a fit runs.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Literal

from starpayne.bundle import Model
from starpayne.errors import SpectrumError, StarpayneError
from starpayne.fitting import FitOptions, FitResult
from starpayne.fitting.setup import Setup
from starpayne.spectra import ObservedSpectrum

MOST_WAITING = 20
Stage = Literal["waiting", "fitting", "done", "cancelled"]


@dataclass(eq=False)
class Ticket:
    """One fit that was asked for; its page looks at it from time to time.

    Args:
        spectrum, resolution, options: of the fit.
        stage: what has become of it.
        steps: rounds of the solver so far.
        outcome: the result, or the error that keeps it from one, once ``stage`` is "done".
    """

    spectrum: ObservedSpectrum
    resolution: float
    options: FitOptions
    stage: Stage = "waiting"
    steps: int = 0
    outcome: FitResult | StarpayneError | None = None
    _since: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """How long this stage has lasted."""
        return time.monotonic() - self._since

    def _enter(self, stage: Stage) -> None:
        self.stage, self._since = stage, time.monotonic()


class FitQueue:
    """Fits of all sessions of a server, in the order in which they were asked for."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._waiting: deque[Ticket] = deque()
        self._running: Ticket | None = None
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._closed = False

    def submit(self, spectrum: ObservedSpectrum, resolution: float, options: FitOptions) -> Ticket:
        """Put a fit into the queue.

        Raises:
            SpectrumError: too many wait already, or this system has no such processes.
            LabelError: for options that do not suit the model.
        """
        if os.name != "posix":
            raise SpectrumError("fits from the page need Linux or macOS: use starpayne fit")
        Setup(self.model, options)
        ticket = Ticket(spectrum, resolution, options)
        with self._change:
            if len(self._waiting) >= MOST_WAITING:
                raise SpectrumError(f"{MOST_WAITING} fits are waiting already: try again later")
            self._waiting.append(ticket)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="starpayne-fits", daemon=True)
                self._thread.start()
            self._change.notify_all()
        return ticket

    def ahead(self, ticket: Ticket) -> int:
        """Return how many fits come before a ticket that waits."""
        with self._change:
            if ticket not in self._waiting:
                return 0
            return self._waiting.index(ticket) + (self._running is not None)

    def cancel(self, ticket: Ticket) -> None:
        """Take a fit out of the queue, or stop it."""
        with self._change:
            if ticket.stage not in ("waiting", "fitting"):
                return
            running = ticket is self._running
            if not running:
                self._waiting.remove(ticket)
            ticket._enter("cancelled")
            if running and self._process is not None:
                # The thread notices that its process is gone.
                self._process.kill()

    def close(self) -> None:
        """End the process and give up what waits; for tests, and for the end of a server."""
        with self._change:
            self._closed = True
            for ticket in self._waiting:
                ticket._enter("cancelled")
            self._waiting.clear()
            if self._running is not None:
                self._running._enter("cancelled")
            if self._process is not None:
                self._process.kill()
            self._change.notify_all()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _work(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    self._stop()
                    return
                ticket = self._running = self._waiting.popleft()
                ticket._enter("fitting")
            outcome: FitResult | StarpayneError
            lost = False
            try:
                connection = self._started()
                with self._change:
                    if ticket.stage != "fitting":  # cancelled while its process started
                        raise EOFError
                connection.send((ticket.spectrum, ticket.resolution, ticket.options))
                while isinstance(answer := connection.recv(), int):
                    ticket.steps = answer
                outcome = answer
            except (EOFError, OSError):
                lost = True
                outcome = SpectrumError("the process that fitted has ended (killed, or out of memory?): try again")
            with self._change:
                self._running = None
                # A process that was told to end may still have answered.
                if lost or ticket.stage == "cancelled":
                    self._stop()
                if ticket.stage == "fitting":
                    ticket.outcome = outcome
                    ticket._enter("done")

    def _started(self) -> Connection:
        """Return the way to the process, which is started, and told the model, where it does not run."""
        if self._process is None or self._connection is None:
            here, there = socket.socketpair()
            with there:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "starpayne.explorer.fitting_process", str(there.fileno())],
                    pass_fds=[there.fileno()], stdin=subprocess.DEVNULL, env={**os.environ, "JAX_PLATFORMS": "cpu"},
                )  # fmt: skip
            self._connection = Connection(here.detach())
            self._connection.send(self.model)
        return self._connection

    def _stop(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._connection = self._process = None
