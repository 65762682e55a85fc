"""An engine that hangs, crashes or talks nonsense is noticed, killed and started afresh; no orphan stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from starpayne.errors import LabelError, SynthesisError
from starpayne.labels import Label, LabelSpace
from starpayne.synthesis import ChildEngine, SynthesisFailure
from starpayne.synthesis.protocol import PREFIX, ProtocolError, decode, encode

WAVELENGTH = np.linspace(5000, 5010, 101)
STAR = {"teff": 5000.0, "logg": 4.0}


def _child(limit: float = 60.0, **settings: Any) -> ChildEngine:
    return ChildEngine("fake", settings, WAVELENGTH, limit=limit)


def test_a_spectrum_crosses_the_pipe_unchanged_though_libraries_print(fake: None) -> None:
    import fake_engine

    with _child() as child:
        for _ in range(2):
            spectrum = child.synthesize(STAR)
            expected = fake_engine.make({}).synthesize(STAR, WAVELENGTH)
            np.testing.assert_array_equal(spectrum.flux, expected.flux)
            np.testing.assert_array_equal(spectrum.continuum, expected.continuum)
            assert spectrum.intensity is None


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"hang": [5000.0]}, r"^no answer within 0.5 s$"),
        ({"crash": [5000.0]}, r"^the engine process was killed by signal 11 \(SIGSEGV\)"),
        ({"quit": [5000.0]}, r"^the engine process ended with exit code 3: STOP in subroutine EOS$"),
        ({"nan": [5000.0]}, r"^NaN in flux$"),
        ({"fail": [5000.0]}, r"^no convergence in layer 7$"),
    ],
    ids=["hang", "crash", "quit", "nan", "fail"],
)
def test_a_spectrum_that_goes_wrong_says_why_and_the_next_one_is_right(
    fake: None, settings: dict[str, Any], reason: str
) -> None:
    with _child(limit=0.5, **settings) as child:
        child.synthesize({"teff": 4000, "logg": 1})
        with pytest.raises(SynthesisFailure, match=reason):
            child.synthesize(STAR)
        assert np.all(np.isfinite(child.synthesize({"teff": 4000, "logg": 1}).flux))


def test_closing_from_another_thread_ends_a_request_at_once(fake: None) -> None:
    child = _child(hang=[5000.0])
    child.provenance()
    threading.Timer(0.3, child.close).start()
    start = time.monotonic()
    with pytest.raises(SynthesisFailure, match=r"^stopped$"):
        child.synthesize(STAR)
    assert time.monotonic() - start < 5
    with pytest.raises(SynthesisFailure, match=r"^stopped$"):
        child.synthesize(STAR)


@pytest.mark.parametrize(
    ("limit", "reason"), [(1.0, r"^no answer within 1 s$"), (60.0, r"^stopped$")], ids=["limit", "close"]
)
def test_a_program_that_the_engine_runs_is_killed_with_it_and_leaves_no_files(
    fake: None, tmp_path: Path, limit: float, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    number = tmp_path / "pid"
    child = _child(limit=limit, program=str(number))
    if reason == "^stopped$":
        threading.Thread(target=lambda: (_appears(number), child.close())).start()
    with child, pytest.raises(SynthesisFailure, match=reason):
        child.synthesize(STAR)
    assert _gone(int(number.read_text()), within=5.0)
    assert not list(temporary.iterdir())


def test_errors_of_the_engine_keep_their_kind(fake: None) -> None:
    with _child() as child, pytest.raises(LabelError, match="unknown label 'feh'"):
        child.check(LabelSpace((Label("feh", -1, 0),)))
    with pytest.raises(SynthesisError, match=r"the synthesis engine failed: RuntimeError: cannot be built"):
        _child(broken=True).provenance()
    with pytest.raises(SynthesisError, match=r"unknown synthesis engine 'marcs'; registered engines: .*pysme"):
        ChildEngine("marcs", {}, WAVELENGTH)
    with pytest.raises(SynthesisError, match="the time limit must be positive, got 0 s"):
        _child(limit=0)


_ORPHAN = """
import os, signal, sys
import numpy as np
from starpayne.synthesis import ChildEngine, register
register("fake", "fake_engine:make")
child = ChildEngine("fake", {}, np.linspace(5000, 5010, 11))
child.provenance()
print(child._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_engine_process_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", _ORPHAN], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert _gone(int(done.stdout), within=10.0)


def test_an_orphan_stuck_in_c_code_is_ended_by_its_alarm() -> None:
    code = "from starpayne.synthesis import child; child.GRACE = 0.2; child.main()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env=environment,
    )  # fmt: skip
    assert process.stdin is not None
    start = {"do": "start", "target": "fake_engine:make", "settings": {"hang": [5000.0]}, "limit": 60}
    process.stdin.write(encode(start, (WAVELENGTH,)) + encode({"do": "synthesize", "labels": STAR, "limit": 0.3}))
    process.stdin.flush()
    assert process.wait(timeout=60) == -signal.SIGALRM
    process.stdin.close()


def _gone(pid: int, within: float) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            # An orphan that nobody has reaped yet is still listed, as a zombie.
            if Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] == "Z":
                return True
            os.kill(pid, 0)
        except (ProcessLookupError, FileNotFoundError):
            return True
        threading.Event().wait(0.05)
    return False


def _appears(path: Path) -> bool:
    deadline = time.monotonic() + 30
    while not path.exists() and time.monotonic() < deadline:
        threading.Event().wait(0.02)
    return path.exists()


def _reader(data: bytes) -> Any:
    position = 0

    def read(n: int) -> bytes:
        nonlocal position
        if position + n > len(data):
            raise EOFError
        position += n
        return data[position - n : position]

    return read


def test_messages_survive_the_pipe() -> None:
    arrays = (np.arange(3.0), np.arange(6.0).reshape(2, 3))
    header, back = decode(_reader(encode({"do": "x"}, arrays)))
    assert header == {"do": "x"}
    for sent, got in zip(arrays, back, strict=True):
        np.testing.assert_array_equal(sent, got)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (PREFIX.pack(2**31, 0), "a header of 2147483648 bytes"),
        (PREFIX.pack(3, 0) + b"{x}", "not JSON"),
        (PREFIX.pack(2, 0) + b"[]", "not an object"),
        (
            encode({}, (np.arange(2.0),)).replace(b"\x01\x00\x00\x00\x02", b"\x01\x00\x00\x00\xff\xff\xff\xff", 1),
            "array",
        ),
    ],
)
def test_what_is_no_message_is_refused_before_memory_is_set_aside(data: bytes, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        decode(_reader(data + b"\xff" * 64))
