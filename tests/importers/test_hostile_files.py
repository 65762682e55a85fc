"""Damaged files of other codes: refused in a sentence or imported, whatever was changed.

``STARPAYNE_FUZZ=100000`` tries so many changes rather than a few dozen.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import foreign_networks
import numpy as np
import pytest

from starpayne.errors import BundleError
from starpayne.importers import ImportOptions, import_any

TRIES = int(os.environ.get("STARPAYNE_FUZZ", "25"))


def test_a_damaged_file_of_another_code_is_refused_or_imported(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    script = Path(__file__).with_name("hostile_files.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path / "scratch", str(TRIES)], capture_output=True, text=True,
        timeout=300 + TRIES,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "refused or imported\n"


def test_a_header_that_does_not_end_is_one_sentence(tmp_path: Path) -> None:
    """Found by the fuzz: NumPy's reader then raises the error of Python's tokenizer."""
    np.savez(tmp_path / "n.npz", **foreign_networks.payne_arrays())
    np.save(tmp_path / "wavelength.npy", np.linspace(5000, 5010, 41))
    whole = (tmp_path / "wavelength.npy").read_bytes()
    (tmp_path / "wavelength.npy").write_bytes(whole[:10] + whole[11:])
    options = ImportOptions(medium="vacuum", names=foreign_networks.NAMES)
    with pytest.raises(BundleError, match=r"wavelength\.npy cannot be read"):
        import_any(tmp_path / "n.npz", tmp_path / "m", options=options)
