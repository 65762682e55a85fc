"""What Turbospectrum's programs do wrong is said in a sentence that quotes them, and nothing of them stays behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from starpayne.errors import SynthesisError
from starpayne.synthesis import ChildEngine, SynthesisFailure
from starpayne.synthesis.turbospectrum import TurbospectrumEngine, _interpolated
from starpayne.synthesis.turbospectrum_files import read_spectrum
from starpayne.wavelengths import log_grid

pytestmark = pytest.mark.synthesis

SUN = {"teff": 5772.0, "logg": 4.438}
WAVELENGTH = log_grid(5172, 5174, 100_000)
TABLE = r"""awk 'BEGIN {print "KURUCZ model converted to:\nlog(tau), T, log(Pe), log(Pg), Xi"}
NR > 2 {print 0, $2, 0, log(%s) / log(10), 1}' model; echo opacities > opacity"""
"""Prints what ``babsma_lu`` prints of the gas pressure of every layer."""
FINE = TABLE % "$3"

Programs = Callable[[str, str], Path]


@pytest.mark.parametrize(
    ("babsma", "bsyn", "message"),
    [
        ("echo 'model has no layers'; echo; echo 'STOP in babsma'", "", r"babsma_lu failed \(status 0\): model has no"),
        ("echo many words; echo opacities > opacity", "", "babsma_lu printed no gas pressure for every layer"),
        (TABLE % "-1" + "; echo '1 2 3 NaN 5'", "", "babsma_lu printed no gas pressure for every layer"),
        (TABLE % "2 * $3", "", r"no electron density found at which .*: 12 tries left a difference of 69.3%"),
        (FINE, "echo 'STOP bsyn: too many wavelengths'", r"bsyn_lu failed \(status 0\): STOP bsyn: too many wave"),
        (FINE, "echo 'half of it' > spectrum; echo 'At line 7'; exit 2", r"bsyn_lu failed \(status 2\): At line 7$"),
        (FINE, "touch spectrum", r"bsyn_lu failed \(status 0\): $"),
        (FINE, "kill -SEGV $$", r"bsyn_lu failed \(status -11\)"),
        (FINE, "printf '\\377 is no text'", r"bsyn_lu failed \(status 0\): \ufffd is no text"),
        (FINE, "echo 'nothing but words' > spectrum", "left no spectrum that can be read"),
        (FINE, "echo '5172.000 ******** 1.0' > spectrum", "left no spectrum that can be read"),
        (FINE, "echo '4000.000 1.0 1.0' > spectrum", "left a spectrum on other wavelengths than asked for"),
    ],
    ids=[
        "no opacities",
        "no table",
        "no pressure",
        "no solution",
        "stop",
        "status",
        "empty",
        "signal",
        "no text",
        "words",
        "stars",
        "elsewhere",
    ],
)
def test_programs_that_fail_are_quoted(fake_programs: Programs, babsma: str, bsyn: str, message: str) -> None:
    fake_programs(babsma, bsyn)
    with pytest.raises(SynthesisError, match=message):
        TurbospectrumEngine().synthesize(SUN, WAVELENGTH)


@pytest.mark.parametrize("how", ["missing", "forbidden"])
def test_a_program_that_cannot_be_run_is_named_with_the_remedy(fake_programs: Programs, how: str) -> None:
    folder = fake_programs(FINE, "")
    engine = TurbospectrumEngine()
    if how == "missing":
        (folder / "bsyn_lu").unlink()
    else:
        (folder / "bsyn_lu").chmod(0o644)
    said = r"bsyn_lu failed \(status 12[67]\): .*bsyn_lu.*; run: starpayne engines install turbospectrum --overwrite$"
    with pytest.raises(SynthesisError, match=said):
        engine.synthesize(SUN, WAVELENGTH)


@pytest.mark.parametrize(("allowed", "expected"), [("100", "100"), ("", "300")], ids=["stricter", "unlimited"])
def test_programs_have_limited_processor_time(
    fake_programs: Programs, tmp_path: Path, allowed: str, expected: str
) -> None:
    """Once both the engine process and its parent are gone, nobody else ends a program that loops for ever."""
    folder = fake_programs(f"ulimit -H -t > {tmp_path / 'limit'}", "")
    code = f"""
import resource
if "{allowed}":
    resource.setrlimit(resource.RLIMIT_CPU, (100, 100))
from starpayne.synthesis.turbospectrum import TurbospectrumEngine
import numpy as np
TurbospectrumEngine().synthesize({SUN}, np.linspace(5172.0, 5174.0, 41))
"""
    environment = {**os.environ, "STARPAYNE_ENGINES": str(folder.parent)}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True)
    assert "babsma_lu failed (status 0)" in done.stderr, done.stderr
    # Root may raise a limit again, where nothing else forbids it.
    limits = {expected, "300"} if os.geteuid() == 0 else {expected}
    assert (tmp_path / "limit").read_text().strip() in limits


def test_a_failed_spectrum_leaves_no_files(
    fake_programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    fake_programs(f"pwd >> {tmp_path / 'used'}", "")
    with pytest.raises(SynthesisError):
        TurbospectrumEngine().synthesize(SUN, WAVELENGTH)
    assert Path((tmp_path / "used").read_text().strip()).parent == tmp_path
    assert not list(tmp_path.glob("starpayne-turbospectrum-*"))


def test_closing_an_engine_process_ends_the_program_it_runs(
    fake_programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = tmp_path / "pid"
    # A process that is killed cannot delete its folder; this one's goes with the test's.
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    fake_programs(f"echo $$ > {number}.draft; mv {number}.draft {number}; exec sleep 60", "")
    child = ChildEngine("turbospectrum", {}, WAVELENGTH)

    def close_when_it_runs() -> None:
        _wait_until(number.exists)
        child.close()

    thread = threading.Thread(target=close_when_it_runs)
    thread.start()
    with pytest.raises(SynthesisFailure, match=r"^stopped$"):
        child.synthesize(SUN)
    thread.join()
    assert _wait_until(lambda: not _runs(int(number.read_text())))


def test_a_spectrum_that_is_none_is_refused(tmp_path: Path) -> None:
    own = np.linspace(5171.9, 5174.1, 221)
    fine, level = np.full(221, 0.9), np.full(221, 1e7)
    np.testing.assert_allclose(_interpolated(own, fine, level, WAVELENGTH).flux, 0.9)
    broken = fine.copy()
    broken[100] = np.nan
    for flux, continuum, where in (
        (broken, level, own),
        (fine, -level, own),
        (fine, level, own - 1),
        (0 * fine, 0 * level, own),
    ):
        with pytest.raises(SynthesisError, match="NaN, no continuum or too short a window in the flux that Turbospec"):
            _interpolated(where, flux, continuum, WAVELENGTH)
    with pytest.raises(SynthesisError, match="left no spectrum that can be read"):
        read_spectrum(tmp_path / "none", 5172.0, 0.01)


def test_a_dark_line_core_does_not_spoil_the_continuum() -> None:
    """The continuum is a ratio of rounded numbers: where hardly any flux is left, its neighbours count."""
    own = np.linspace(5171.9, 5174.1, 221)
    flux = 1 - 0.999 * np.exp(-(((own - 5173) / 0.2) ** 2))
    level = np.where(flux < 0.1, 3e7, 1e7)
    np.testing.assert_allclose(_interpolated(own, flux, level, WAVELENGTH).continuum, 1e7)


def _runs(pid: int) -> bool:
    try:
        # An orphan that nobody has reaped yet is still listed, as a zombie.
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z" and os.kill(pid, 0) is None
    except (ProcessLookupError, FileNotFoundError):
        return False


def _wait_until(true: Callable[[], bool], within: float = 30.0) -> bool:
    deadline = time.monotonic() + within
    while not (done := true()) and time.monotonic() < deadline:
        threading.Event().wait(0.02)
    return done
