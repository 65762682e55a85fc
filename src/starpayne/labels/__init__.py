"""Stellar labels: names, units, bounds, transforms and constraints, and the space they span."""

from starpayne.labels.mapping import mapped_space, solar_scaled
from starpayne.labels.space import LabelSpace
from starpayne.labels.table import MU, SYMBOLS, TRANSFORMS, UNITS, Constraint, Label, is_abundance, symbol_of, unit_of

__all__ = [
    "Constraint",
    "Label",
    "LabelSpace",
    "MU",
    "SYMBOLS",
    "TRANSFORMS",
    "UNITS",
    "is_abundance",
    "mapped_space",
    "solar_scaled",
    "symbol_of",
    "unit_of",
]
