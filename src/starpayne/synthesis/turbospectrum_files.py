"""What Turbospectrum reads and writes: atmosphere, line lists, molecules, control words, spectrum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from starpayne.errors import SynthesisError
from starpayne.synthesis.atmospheres import ModelAtmosphere
from starpayne.synthesis.elements import NUMBERS, SYMBOLS
from starpayne.synthesis.linelists import LineList, gaia_eso_file

HEAVIEST = 92
"""Turbospectrum knows the elements up to uranium."""

UNSOELD_FACTOR = 2.5
"""By which the Gaia-ESO list multiplies Unsöld's broadening of lines that it has no better value for."""

ABUNDANT = frozenset(
    NUMBERS[s] for s in ["H", "C", "N", "O", "Na", "Mg", "Al", "Si", "S", "Cl", "Ca", "Ti", "Cr", "Fe", "Ni"]
)
ELECTRON = 99


def atmosphere_text(model: ModelAtmosphere, pressure: np.ndarray, electrons: np.ndarray) -> str:
    """Return a model in Kurucz's format, with this gas pressure (dyn cm⁻²) and electron density (cm⁻³); no opacity."""
    columns = zip(model.column_mass, model.temperature, pressure, electrons, strict=True)
    layers = "\n".join(f"{m:.8E} {t:.3f} {p:.6E} {e:.6E} 1.0" for m, t, p, e in columns)
    return f"TEFF {model.teff:.1f} GRAVITY {model.logg:.4f}\nREAD DECK6{len(model.temperature):3d}\n{layers}\n"


def gas_pressure(printed: str) -> np.ndarray:
    """Return the gas pressure (dyn cm⁻²) of every layer from the table that ``babsma_lu`` prints last."""
    _, _, table = printed.rpartition("KURUCZ model converted to:")
    rows = [line.split() for line in table.splitlines()[2:]]
    try:
        return 10.0 ** np.array([float(row[3]) for row in rows if len(row) == 5])
    except ValueError:
        return np.empty(0)


def gaia_eso_text(low: float, high: float) -> tuple[str, int]:
    """Return the lines between low and high Å (air) of the Gaia-ESO list as they stand there, and their number."""
    kept: list[str] = []
    total = 0
    for header, name, lines in _blocks(gaia_eso_file()):
        inside = [line for line in lines if low < float(line.split(None, 1)[0]) < high]
        if inside:
            code, _, rest = header[1:].partition("'")
            kept += [f"'{code}' {rest.split()[0]} {len(inside)}", name, *inside]
            total += len(inside)
    return "\n".join([*kept, ""]), total


def _blocks(path: Path) -> Iterable[tuple[str, str, list[str]]]:
    """Yield header, name and lines of every species of a list in Turbospectrum's format."""
    header, name, lines = "", "", []
    with path.open(encoding="ascii", errors="replace") as text:
        for line in map(str.rstrip, text):
            if not line.startswith("'"):
                lines.append(line)
                continue
            if header:
                yield header, name, lines
            header, name, lines = line, next(text).rstrip(), []
    if header:
        yield header, name, lines


def line_list_text(lines: LineList) -> str:
    """Return a list in Turbospectrum's format, its isotopes already weighted.

    Raises:
        SynthesisError: for molecules, which Turbospectrum names by a code that a VALD extract does not have, and for
            elements heavier than uranium.
    """
    text = []
    for species in np.unique(lines.species):
        block = lines.take(lines.species == species)
        symbol, _, ion = str(species).partition(" ")
        number = NUMBERS.get(symbol, 0)
        if not 1 <= number <= HEAVIEST:
            raise SynthesisError(
                f"the line list has the species '{species}', which starpayne cannot hand to Turbospectrum: atoms up "
                "to uranium only; take it out of the list, or use the engine pysme"
            )
        if number == 1:
            continue  # hydrogen lines come from Turbospectrum's own table
        text += [f"'{number:3d}.000 ' {ion} {len(block)}", f"'{species}'"]
        for i in range(len(block)):
            waals = block.waals[i] or UNSOELD_FACTOR
            radiative = 10.0 ** block.radiative[i] if block.radiative[i] else 1e5
            text.append(
                f"{block.wavelength[i]:.4f} {block.excitation[i]:.4f} {block.log_gf[i]:.4f} {waals:.4f} 1.0 "
                f"{radiative:.3E} {block.stark[i]:.3f} 'x' 'x'"
            )
    return "\n".join([*text, ""])


def abundant_molecules(table: str) -> str:
    """Return the rows of Turbospectrum's table of molecules that matter in stars hotter than 3500 K.

    A row is a quoted name, five coefficients, the number of kinds of atoms, then atomic number and count of each.
    """
    kept = []
    for row in table.splitlines():
        if not row.strip():
            continue
        words = row.rpartition("'")[2].split()[5:]
        kinds = int(words[0])
        atoms = {int(words[1 + 2 * i]): int(words[2 + 2 * i]) for i in range(kinds)}
        atoms.pop(ELECTRON, None)
        if set(atoms) <= ABUNDANT and sum(atoms.values()) <= 3:
            kept.append(row)
    return "\n".join([*kept, ""])


def composition_words(abundances: Mapping[str, float], feh: float, alpha_fe: float) -> list[str]:
    """Return the control words of a composition: every element has its own A(X), so that no table of theirs counts."""
    own = [(NUMBERS[s], a) for s, a in abundances.items() if NUMBERS[s] <= HEAVIEST]
    absent = [(n, -29.0) for n, s in enumerate(SYMBOLS[:HEAVIEST], start=1) if s not in abundances]
    return [
        f"'METALLICITY:' '{feh:.5f}'", f"'ALPHA/Fe:' '{alpha_fe:.5f}'", "'HELIUM:' '0.0'", "'R-PROCESS:' '0.0'",
        "'S-PROCESS:' '0.0'", f"'INDIVIDUAL ABUNDANCES:' '{len(own) + len(absent)}'",
        *(f"{n} {a:.5f}" for n, a in sorted(own + absent)),
    ]  # fmt: skip


def window_words(low: float, high: float, step: float) -> list[str]:
    return [f"'LAMBDA_MIN:' '{low:.6f}'", f"'LAMBDA_MAX:' '{high:.6f}'", f"'LAMBDA_STEP:' '{step:.8f}'"]


def opacity_words(window: Sequence[str], composition: Sequence[str], vmic: float, molecules: str) -> str:
    """Return what ``babsma_lu`` reads: continuous opacities and chemical equilibrium of a model."""
    return "\n".join(
        [*window, "'MODELINPUT:' 'model'", "'MARCS-FILE:' '.false.'", "'MODELOPAC:' 'opacity'",
         f"'MOLECULES:' '{molecules}'", *composition, "'XIFIX:' 'T'", f"{vmic:.4f}", ""]
    )  # fmt: skip


def spectrum_words(window: Sequence[str], composition: Sequence[str], lists: Sequence[str], molecules: str) -> str:
    """Return what ``bsyn_lu`` reads: a flux spectrum in LTE and plane-parallel layers."""
    return "\n".join(
        ["'NLTE :' '.false.'", *window, "'INTENSITY/FLUX:' 'Flux'", "'MODELOPAC:' 'opacity'",
         "'RESULTFILE :' 'spectrum'", f"'MOLECULES:' '{molecules}'", *composition, f"'NFILES :' '{len(lists)}'",
         *lists, "'SPHERICAL:' 'F'", "30", "300.00", "15", "1.30", ""]
    )  # fmt: skip


def read_spectrum(path: Path, low: float, step: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return wavelength (Å, air), normalised flux and continuum (erg s⁻¹ cm⁻² Å⁻¹) of a result file.

    The file rounds wavelengths to 0.001 Å; they are recomputed as Turbospectrum does.
    """
    try:
        table = np.loadtxt(path, ndmin=2)
    except (OSError, ValueError) as error:
        raise SynthesisError(f"Turbospectrum left no spectrum that can be read ({error})") from error
    wavelength = low + step * np.arange(len(table))
    if table.shape[1] != 3 or np.max(np.abs(wavelength - table[:, 0])) > 6e-4:
        raise SynthesisError("Turbospectrum left a spectrum on other wavelengths than asked for")
    flux, absolute = table[:, 1], table[:, 2]
    return wavelength, flux, np.divide(absolute, flux, out=np.full_like(flux, np.nan), where=flux > 1e-3)
