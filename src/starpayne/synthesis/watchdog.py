"""The parent's side of an engine process: it waits up to a limit, kills what hangs, and starts afresh."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from starpayne import errors
from starpayne.errors import SynthesisError
from starpayne.labels import LabelSpace
from starpayne.synthesis.engine import Synthesis, target_of
from starpayne.synthesis.protocol import SCRATCH, ProtocolError, decode, encode

LIMIT = 60.0
"""Seconds that one spectrum may take."""

START_LIMIT = 600.0
"""Seconds for importing the engine, reading its line list and pruning it."""

TAIL = 300
"""Characters of what a dying process printed that are quoted."""


class SynthesisFailure(SynthesisError):
    """One spectrum could not be synthesized; ``reason`` says why in plain words."""

    @property
    def reason(self) -> str:
        return str(self)


class ChildEngine:
    """An engine in a process of its own, which may hang or crash without harm.

    Args:
        name: a registered engine.
        settings: its settings, plain JSON data.
        wavelength: (n_wavelength,) Å, on which every spectrum is wanted.
        limit: seconds per spectrum before the process is killed.

    The process starts at the first request. Use as a context manager, or call :meth:`close`.
    """

    def __init__(self, name: str, settings: Mapping[str, Any], wavelength: np.ndarray, limit: float = LIMIT) -> None:
        if not limit > 0:
            raise SynthesisError(f"the time limit must be positive, got {limit:g} s")
        self._target = target_of(name)
        self._settings = dict(settings)
        self._wavelength = np.asarray(wavelength, dtype=np.float64)
        self.limit = float(limit)
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._busy = threading.Lock()
        self._printed: Any = None
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> ChildEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the Engine protocol --------------------------------------------------------------------------------

    def synthesize(self, labels: Mapping[str, float], wavelength: np.ndarray | None = None) -> Synthesis:
        """Return the spectrum of ``labels`` on the wavelengths this engine was made with.

        Raises:
            SynthesisFailure: if there is none within the limit, the process dies, or the engine reports an error.
        """
        if wavelength is not None and not np.array_equal(wavelength, self._wavelength):
            raise SynthesisError("an engine process works on the wavelengths it was started with")
        self._ready()
        request = {"do": "synthesize", "labels": {k: float(v) for k, v in labels.items()}}
        header, arrays = self._ask(request, (), self.limit)
        if not header["ok"]:
            raise SynthesisFailure(header["error"] or header["type"])
        if len(arrays) not in (2, 3) or any(a.shape[-1:] != self._wavelength.shape for a in arrays):
            raise SynthesisFailure("the engine answered with arrays of the wrong shape")
        if not all(np.all(np.isfinite(a)) for a in arrays):
            raise SynthesisFailure("NaN in flux")
        return Synthesis(*arrays)

    def provenance(self) -> dict[str, Any]:
        """Return what the engine says about itself (see :class:`~starpayne.synthesis.engine.Engine`)."""
        return self._say({"do": "provenance"})["provenance"]

    def check(self, space: LabelSpace) -> None:
        """Raise LabelError or SynthesisError for labels or ranges that the engine cannot do."""
        self._say({"do": "check", "space": space.to_dict()})

    def close(self) -> None:
        """Kill the process for good; a request under way in another thread fails at once."""
        self._closed = True
        if self._busy.acquire(blocking=False):
            try:
                self._kill()
            finally:
                self._busy.release()
        elif (process := self._process) is not None:
            # The thread that waits for the answer sees its end, and closes the pipes that it reads from.
            _kill_with_children(process)

    # -- the process ----------------------------------------------------------------------------------------

    def _say(self, request: dict[str, Any]) -> dict[str, Any]:
        """Ask for something that is not a spectrum; the engine's errors are raised here as what they are."""
        self._ready()
        header, _ = self._ask(request, (), START_LIMIT)
        _raise(header)
        return header

    def _ready(self) -> None:
        if self._closed:
            self._kill()
            raise SynthesisFailure("stopped")
        if self._process is not None:
            return
        self._printed = tempfile.TemporaryFile(mode="a+b")  # noqa: SIM115 (closed by _kill)
        # A killed engine cannot clear up after itself.
        self._scratch = tempfile.TemporaryDirectory(prefix="starpayne-engine-", ignore_cleanup_errors=True)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "starpayne.synthesis.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
            env={**_environment(), SCRATCH: self._scratch.name},
            # Ctrl-C in the terminal is for the program, which then kills its engines in good order.
            start_new_session=True,
        )
        request = {"do": "start", "target": self._target, "settings": self._settings}
        header, _ = self._ask(request, (self._wavelength,), START_LIMIT)
        if not header["ok"]:
            self._kill()
        _raise(header)

    def _ask(
        self, request: dict[str, Any], arrays: tuple[np.ndarray, ...], limit: float
    ) -> tuple[dict[str, Any], list[np.ndarray]]:
        with self._busy:
            return self._exchange(request, arrays, limit)

    def _exchange(
        self, request: dict[str, Any], arrays: tuple[np.ndarray, ...], limit: float
    ) -> tuple[dict[str, Any], list[np.ndarray]]:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise SynthesisFailure("stopped")
        descriptor, deadline = process.stdout.fileno(), time.monotonic() + limit
        try:
            process.stdin.write(encode({**request, "limit": limit}, arrays))
            process.stdin.flush()
            return decode(lambda n: _read(descriptor, n, deadline))
        except TimeoutError:
            self._kill()
            raise SynthesisFailure(f"no answer within {limit:g} s") from None
        except (EOFError, OSError, ValueError) as error:
            # OSError and ValueError: the pipe broke, or was closed by close() in another thread.
            raise SynthesisFailure(self._obituary(process)) from error
        except ProtocolError as error:
            self._kill()
            raise SynthesisFailure(f"the engine process sent {error}") from error
        except BaseException:
            # Ctrl-C while waiting: the answer would come at the wrong moment.
            self._kill()
            raise

    def _obituary(self, process: subprocess.Popen[bytes]) -> str:
        """Say how the process ended, with the last words it printed."""
        if self._closed:
            return "stopped"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5.0)
        code, words = process.poll(), self._last_words()
        self._kill()
        if code is not None and code < 0:
            return f"the engine process was killed by signal {-code} ({signal.Signals(-code).name}){words}"
        return f"the engine process ended with exit code {code}{words}"

    def _last_words(self) -> str:
        try:
            size = self._printed.seek(0, os.SEEK_END)
            self._printed.seek(max(0, size - TAIL))
            text = self._printed.read().decode(errors="replace").strip()
        except (OSError, ValueError):
            return ""
        return f": {text.splitlines()[-1].strip()}" if text else ""

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        _kill_with_children(process)
        process.wait()
        if self._scratch is not None:
            self._scratch.cleanup()
        for stream in (process.stdin, process.stdout, self._printed):
            with contextlib.suppress(OSError, ValueError):
                if stream is not None:
                    stream.close()


def _kill_with_children(process: subprocess.Popen[bytes]) -> None:
    """Kill an engine process and whatever programs it runs: it leads a group of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _raise(header: Mapping[str, Any]) -> None:
    """Raise what the child reported, as the class of ours that it was."""
    if header["ok"]:
        return
    kind = getattr(errors, header["type"], None)
    if isinstance(kind, type) and issubclass(kind, errors.StarpayneError):
        raise kind(header["error"])
    raise SynthesisError(f"the synthesis engine failed: {header['type']}: {header['error']}")


def _read(descriptor: int, n: int, deadline: float) -> bytes:
    """Return exactly n bytes, or raise TimeoutError at the deadline or EOFError at the end of the stream."""
    data = bytearray()
    while len(data) < n:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([descriptor], [], [], left)[0]:
            raise TimeoutError
        piece = os.read(descriptor, min(n - len(data), 1 << 20))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


def _environment() -> dict[str, str]:
    """Return the child's environment: our import path, and one thread, since every worker has a core of its own."""
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return {**os.environ, **dict.fromkeys(threads, "1"), "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}
