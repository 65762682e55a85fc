"""Read single model atmospheres that users bring: MARCS ``.mod`` files, and Kurucz's ATLAS9 and ATLAS12."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from starpayne.errors import SynthesisError
from starpayne.synthesis.atmospheres import BOLTZMANN, ModelAtmosphere, optical_depth


def read_model(path: str | Path) -> ModelAtmosphere:
    """Return the model atmosphere of a MARCS or Kurucz file, told apart by its content.

    A spherical MARCS model is used as if it were plane-parallel: its temperature and pressure against column mass.

    Raises:
        SynthesisError: if the file is missing, of neither kind, or damaged.

    Example:
        ``engine("pysme").synthesize({"vmic": 1.0}, wavelength, atmosphere=read_model("sun.mod"))``

    Source:
        Gustafsson et al. 2008, A&A 486, 951 (MARCS); Castelli & Kurucz 2003, IAU Symp. 210, A20 (ATLAS9).
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError as error:
        raise SynthesisError(f"the model atmosphere {path} cannot be read: {error.strerror}") from error
    try:
        if any(line.startswith("READ DECK") for line in lines):
            return _kurucz(lines, path.name)
        if any("Number of depth points" in line for line in lines):
            return _marcs(lines, path.name)
    except (ValueError, IndexError, StopIteration) as error:
        raise SynthesisError(f"the model atmosphere {path.name} is damaged: {error}") from error
    raise SynthesisError(f"{path.name} is neither a MARCS model (.mod) nor a Kurucz model ('READ DECK6')")


def _kurucz(lines: list[str], name: str) -> ModelAtmosphere:
    header = "\n".join(lines)
    teff, logg = _number(r"TEFF\s+([\d.]+)", header), _number(r"GRAVITY\s+([-\d.]+)", header)
    scale = re.search(r"ABUNDANCE SCALE\s+([\d.E+-]+)", header)
    start = next(i for i, line in enumerate(lines) if line.startswith("READ DECK"))
    n_layers = int(lines[start].split()[2])
    table = _table(lines[start + 1 : start + 1 + n_layers], n_layers)
    column_mass, temperature, pressure, electrons, opacity = table.T[:5]
    return ModelAtmosphere(
        teff=teff,
        logg=logg,
        feh=float(np.log10(float(scale.group(1)))) if scale else 0.0,
        alpha_fe=0.0,
        column_mass=column_mass,
        temperature=temperature,
        electron_density=electrons,
        atom_density=pressure / (BOLTZMANN * temperature) - electrons,
        log_tau_ross=np.log10(optical_depth(column_mass, opacity)),
        source=f"kurucz:{name}",
    )


def _marcs(lines: list[str], name: str) -> ModelAtmosphere:
    header = "\n".join(lines[:14])
    metallicity = r"([+-][\d.]+)\s+([+-][\d.]+)\s+Metallicity"
    n_layers = int(next(line for line in lines if "Number of depth points" in line).split()[0])
    heads = [i for i, line in enumerate(lines) if line.split()[:2] == ["k", "lgTauR"]]
    structure, second = (_table(lines[i + 1 : i + 1 + n_layers], n_layers) for i in heads[:2])
    temperature = structure[:, 4]
    # Pe and Pg: electron pressure, and gas pressure of everything else.
    return ModelAtmosphere(
        teff=_number(r"([\d.]+)\s+Teff", header),
        logg=float(np.log10(_number(r"([\d.E+-]+)\s+Surface gravity", header))),
        feh=_number(metallicity, header),
        alpha_fe=_number(metallicity, header, group=2),
        column_mass=second[:, 7],
        temperature=temperature,
        electron_density=structure[:, 5] / (BOLTZMANN * temperature),
        atom_density=(structure[:, 6] - structure[:, 5]) / (BOLTZMANN * temperature),
        log_tau_ross=structure[:, 1],
        source=f"marcs:{name}",
    )


def _number(pattern: str, text: str, group: int = 1) -> float:
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"nothing matches {pattern!r} in its header")
    return float(found.group(group))


def _table(lines: list[str], n_layers: int) -> np.ndarray:
    rows = [[float(word) for word in line.split()] for line in lines]
    if len(rows) < n_layers or len({len(row) for row in rows}) != 1:
        raise ValueError(f"its table has not {n_layers} complete rows")
    return np.array(rows)
