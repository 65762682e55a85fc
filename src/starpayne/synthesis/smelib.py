"""The way to SMElib: importing PySME in silence and safely, and line lists and atmospheres in the form it reads."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from starpayne.errors import MissingExtraError, SynthesisError
from starpayne.synthesis.atmospheres import ModelAtmosphere
from starpayne.synthesis.elements import SYMBOLS
from starpayne.synthesis.linelists import LineList


def lines_for_sme(lines: LineList) -> np.ndarray:
    """Return the structured array that SME_DLL.InputLineList reads.

    Raises:
        SynthesisError: for a species made of anything but elements, at which SMElib would end the whole process.
    """
    for species in np.unique(lines.species):
        name = str(species).partition(" ")[0]
        atoms = re.findall(r"[A-Z][a-z]?", name)
        if not re.fullmatch(r"([A-Z][a-z]?\d*)+[+-]?", name) or not set(atoms) <= set(SYMBOLS):
            raise SynthesisError(f"the line list has the species '{species}', which is neither an atom nor a molecule")
    table = np.zeros(len(lines), dtype=[("species", "U8"), ("ionization", "f8"), ("atomic", "f8", (8,))])
    table["species"], table["ionization"] = lines.species, lines.ion
    table["atomic"] = np.column_stack(
        [
            lines.atomic_number, lines.ion, lines.wavelength, lines.excitation, lines.log_gf,
            lines.radiative, lines.stark, lines.waals,
        ]
    )  # fmt: skip
    return table


def model_for_sme(model: ModelAtmosphere) -> dict[str, Any]:
    """Return what SME_DLL.InputModel reads; the mass density is a first guess that Ionization replaces."""
    return {
        "depth": "RHOX",
        "RHOX": model.column_mass,
        "temp": model.temperature,
        "xne": model.electron_density,
        "xna": model.atom_density,
        "rho": model.atom_density * 2.1e-24,
        "wlstd": 5000.0,
        "opflag": np.ones(20, dtype=np.int64),
        "geom": "PP",
    }


def solar_abundances(composition: str) -> dict[str, float]:
    """Return A(X) = log10 N(X)/N(H) + 12 by element symbol of a solar composition that PySME carries."""
    with quiet_import():
        from pysme.abund import Abund
    pattern: Any = Abund(monh=0, pattern=composition)
    return {e: float(pattern.A[e]) for e in pattern.elem if np.isfinite(pattern.A[e])}


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Import PySME in silence, one process at a time: at its first import it writes its settings to ~/.sme.

    Raises:
        MissingExtraError: if PySME is not installed.
    """
    logging.getLogger("pysme").setLevel(logging.ERROR)
    try:
        with _one_process_at_a_time(), contextlib.redirect_stdout(io.StringIO()):
            yield
    except ImportError as error:
        raise MissingExtraError(f'PySME is not installed ({error}); run: pip install "starpayne[synthesis]"') from error
    except (OSError, ValueError) as error:
        raise SynthesisError(
            f"PySME cannot be set up ({error}): it keeps its settings in ~/.sme, which must be writable and whole; "
            "delete that folder and try again"
        ) from error
    finally:
        # PySME sets its own level and console handler when it is imported.
        logging.getLogger("pysme").setLevel(logging.ERROR)


@contextlib.contextmanager
def _one_process_at_a_time() -> Iterator[None]:
    """Hold a lock file of this user while the body runs; where there is no such lock (Windows), do without."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    path = os.path.join(tempfile.gettempdir(), f"starpayne-pysme-{os.getuid()}.lock")
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
