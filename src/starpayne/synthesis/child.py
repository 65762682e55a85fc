"""The engine process: ``python -m starpayne.synthesis.child``, spoken to over stdin and stdout.

It runs C and Fortran code that can crash, loop for ever or print at will. The parent kills it at the time limit; should
the parent be gone, the end of stdin or an alarm ends it.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import numpy as np

from starpayne.labels import LabelSpace
from starpayne.synthesis.engine import Engine, build
from starpayne.synthesis.protocol import decode, encode

GRACE = 30.0
"""Seconds beyond the parent's own limit after which an orphan ends itself."""


def main() -> None:
    """Answer requests until stdin ends."""
    answers = os.dup(1)
    # Whatever the libraries print must not end up between the messages.
    os.dup2(2, 1)
    engine: Engine | None = None
    wavelength = np.empty(0)
    while True:
        try:
            request, arrays = decode(_read)
        except EOFError:
            return
        _alarm(float(request.get("limit", 0.0)) + GRACE)
        try:
            if request["do"] == "start":
                wavelength = arrays[0]
                engine = build(request["target"], request["settings"])
                answer: tuple[dict[str, Any], tuple[np.ndarray, ...]] = ({"ok": True}, ())
            else:
                assert engine is not None, "the first request must be 'start'"
                answer = _answer(engine, request, wavelength)
        except Exception as error:  # the boundary of the process: whatever it is, the parent has to hear of it
            answer = {"ok": False, "type": type(error).__name__, "error": str(error)}, ()
        _alarm(0.0)
        try:
            _write(answers, encode(*answer))
        except BrokenPipeError:
            return


def _answer(
    engine: Engine, request: dict[str, Any], wavelength: np.ndarray
) -> tuple[dict[str, Any], tuple[np.ndarray, ...]]:
    if request["do"] == "check":
        engine.check(LabelSpace.from_dict(request["space"]))
        return {"ok": True}, ()
    if request["do"] == "provenance":
        return {"ok": True, "provenance": engine.provenance()}, ()
    spectrum = engine.synthesize(request["labels"], wavelength)
    arrays = (spectrum.flux, spectrum.continuum)
    return {"ok": True}, arrays if spectrum.intensity is None else (*arrays, spectrum.intensity)


def _alarm(seconds: float) -> None:
    """End this process after so many seconds (0: never) by a signal that C code cannot hold up."""
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _read(n: int) -> bytes:
    data = sys.stdin.buffer.read(n)
    if len(data) < n:
        raise EOFError
    return data


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


if __name__ == "__main__":
    main()
