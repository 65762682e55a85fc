"""Read line lists extracted from VALD: "extract stellar" and "extract all", long format, atoms and molecules."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from starpayne.errors import SynthesisError
from starpayne.synthesis.hydrogen import CM_PER_EV
from starpayne.synthesis.linelists import LineList, make_linelist
from starpayne.wavelengths import vacuum_to_air

_LONG = "Lande"
_SHORT = "Damping"
_RECORD = 4
"""Text lines per spectral line in the long format: numbers, lower term, upper term, references."""


def read_vald(path: str | Path) -> LineList:
    """Return the lines of a VALD extract in long format, with wavelengths in air and energies in eV.

    Args:
        path: the file VALD sent, uncompressed.

    Raises:
        SynthesisError: if the file is missing, in short format, truncated, or no VALD extract.

    Source:
        http://vald.astro.uu.se; damping columns as VALD gives them are those SMElib expects.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise SynthesisError(f"the line list {path} cannot be read: {error.strerror}") from error
    text = [line for line in text if not line.lstrip().startswith("WARNING")]
    if any("NOT scaled by the solar isotopic ratios" in line for line in text[-200:]):
        raise SynthesisError(
            f"{path.name}: its gf values are not scaled by isotopic fractions; ask VALD for isotopic scaling 'on'"
        )
    start, header = _header(path, text)
    vacuum, nanometre, wavenumber, energy_cm = _units(path, header)
    rows = []
    expected = _declared(text[0]) if start == 3 else None
    while (expected is None or len(rows) < expected) and start < len(text) and text[start].startswith("'"):
        record = text[start : start + _RECORD]
        if len(record) < _RECORD:
            break
        if len(rows) == 0 or record[0].count(",") >= 12:
            rows.append(_row(path, start + 1, record[0]))
        else:
            break  # the model and abundances that end an "extract stellar"
        start += _RECORD
    if not rows or (expected is not None and len(rows) < expected):
        raise SynthesisError(
            f"{path.name} is truncated or not a VALD extract: it has {len(rows)} lines"
            + (f", and its header promises {expected}" if expected is not None else "")
        )
    numbers = np.array([row[1:] for row in rows])
    if wavenumber:
        numbers[:, 0] = 1e8 / numbers[:, 0]
    numbers[:, 0] *= 10.0 if nanometre else 1.0
    if vacuum:
        numbers[:, 0] = vacuum_to_air(numbers[:, 0])
    if energy_cm:
        numbers[:, 1] /= CM_PER_EV
    return make_linelist([(row[0], *n) for row, n in zip(rows, numbers, strict=True)], name=f"vald:{path.name}")


def _header(path: Path, text: list[str]) -> tuple[int, str]:
    """Return the index of the first record and the line that names the columns."""
    for i in range(min(2, len(text) - 1)):
        word = (text[i].split() or [""])[0]
        if word == _LONG:
            return i + 2, text[i + 1]
        if word == _SHORT:
            raise SynthesisError(
                f"{path.name} is a VALD extract in short format; ask VALD for the long format, which names the levels"
            )
    raise SynthesisError(f"{path.name} is not a VALD extract: its first lines have no 'Lande factors' heading")


def _declared(line: str) -> int | None:
    """Return how many lines the first line of an "extract stellar" promises."""
    words = line.split(",")
    try:
        return int(words[2])
    except (IndexError, ValueError):
        return None


def _units(path: Path, header: str) -> tuple[bool, bool, bool, bool]:
    """Return whether wavelengths are in vacuum, in nm, are wavenumbers in cm⁻¹, and energies are in cm⁻¹."""
    wavelength = re.search(r"W[LN]_(air|vac)\((A|nm|cm\^-1)\)", header)
    energy = re.search(r"(?:E_low|Excit)\((eV|cm\^-1)\)", header)
    if wavelength is None or energy is None:
        raise SynthesisError(f"{path.name}: the units of wavelength and energy cannot be read from {header.strip()!r}")
    unit = wavelength.group(2)
    return wavelength.group(1) == "vac", unit == "nm", unit == "cm^-1", energy.group(1) == "cm^-1"


def _row(path: Path, number: int, line: str) -> tuple[str, float, float, float, float, float, float]:
    """Return species, wavelength, excitation, log gf and the three damping constants of a record's first line."""
    try:
        quoted, _, rest = line[1:].partition("'")
        # λ, log gf, E_low, J_low, E_up, J_up, three Landé factors, radiative, Stark, van der Waals
        v = [float(word) for word in rest.strip(" ,").split(",")[:12]]
        wavelength, log_gf, excitation, radiative, stark, waals = v[0], v[1], v[2], v[9], v[10], v[11]
    except (ValueError, IndexError) as error:
        raise SynthesisError(f"{path.name}, line {number}: not a VALD record: {line.strip()!r}") from error
    # "(46)Ti 1" and "(12)C(14)N 1" name isotopes; their gf is already scaled (see read_vald).
    species = re.sub(r"\(\d+\)", "", quoted).strip()
    return species, wavelength, excitation, log_gf, radiative, stark, waals
