"""Chemical elements: symbols in order of atomic number, the α elements, and isotopic fractions."""

from __future__ import annotations

SYMBOLS = (
    "H", "He", "Li", "Be", "B", "C", "N", "O", "F", "Ne", "Na", "Mg", "Al", "Si", "P", "S", "Cl", "Ar", "K", "Ca",
    "Sc", "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga", "Ge", "As", "Se", "Br", "Kr", "Rb", "Sr", "Y",
    "Zr", "Nb", "Mo", "Tc", "Ru", "Rh", "Pd", "Ag", "Cd", "In", "Sn", "Sb", "Te", "I", "Xe", "Cs", "Ba", "La", "Ce",
    "Pr", "Nd", "Pm", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm", "Yb", "Lu", "Hf", "Ta", "W", "Re", "Os", "Ir",
    "Pt", "Au", "Hg", "Tl", "Pb", "Bi", "Po", "At", "Rn", "Fr", "Ra", "Ac", "Th", "Pa", "U", "Np", "Pu", "Am", "Cm",
    "Bk", "Cf", "Es",
)  # fmt: skip
"""SYMBOLS[Z - 1] is the symbol of atomic number Z."""

NUMBERS = {symbol: number for number, symbol in enumerate(SYMBOLS, start=1)}

ISOTOPES = {
    (3, 6): 0.0759, (3, 7): 0.9241,
    (29, 63): 0.6917, (29, 65): 0.3083,
    (56, 130): 0.00106, (56, 132): 0.00101, (56, 134): 0.02417, (56, 135): 0.06592, (56, 136): 0.07854,
    (56, 137): 0.11232, (56, 138): 0.71698,
    (57, 138): 0.00091, (57, 139): 0.99909,
    (59, 141): 1.0,
    (60, 142): 0.27044, (60, 143): 0.12023, (60, 144): 0.23729, (60, 145): 0.08763, (60, 146): 0.17130,
    (60, 148): 0.05716, (60, 150): 0.05596,
    (62, 144): 0.0307, (62, 147): 0.1499, (62, 148): 0.1124, (62, 149): 0.1382, (62, 150): 0.0738,
    (62, 152): 0.2675, (62, 154): 0.2275,
    (63, 151): 0.4781, (63, 153): 0.5219,
}  # fmt: skip
"""(atomic number, mass number) → fraction by number in the Solar System (Asplund et al. 2009, ARA&A 47, 481, table 3),
for the isotopes that the Gaia-ESO list splits lines into."""


def element_of(label: str) -> str | None:
    """Return the element of an abundance label (``mg_fe`` → ``Mg``), or None if it names none heavier than helium."""
    symbol = label[:-3].capitalize() if label.endswith("_fe") and label.islower() else ""
    return symbol if NUMBERS.get(symbol, 0) > 2 and symbol != "Fe" else None
