"""Model folders that somebody has tampered with: refused with a sentence, whatever was changed; nothing else happens.

``STARPAYNE_FUZZ=100000`` tries so many changes of each kind rather than a few dozen.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from starpayne.bundle import Model, save

TRIES = int(os.environ.get("STARPAYNE_FUZZ", "30"))


@pytest.mark.parametrize("architecture", ["payne", "transformer", "additive"])
def test_a_model_that_was_tampered_with_is_refused_or_loads(
    architecture: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model: Model = request.getfixturevalue(f"{architecture}_model")
    original = save(model, tmp_path / "m.model")
    script = Path(__file__).with_name("hostile.py")
    done = subprocess.run(
        [sys.executable, script, original, tmp_path / "scratch", str(TRIES)], capture_output=True, text=True,
        timeout=300 + TRIES,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "refused or loaded\n"
