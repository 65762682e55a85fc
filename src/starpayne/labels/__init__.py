"""Stellar labels: names, units, bounds, transforms and constraints, and the space they span."""

from starpayne.labels.mapping import mapped_space, solar_scaled
from starpayne.labels.solar import fill_solar_scaled, microturbulence, solar_abundances
from starpayne.labels.space import LabelSpace
from starpayne.labels.table import (
    ALPHA,
    MU,
    SYMBOLS,
    TRANSFORMS,
    UNITS,
    Constraint,
    Label,
    is_abundance,
    symbol_of,
    unit_of,
)

__all__ = [
    "ALPHA",
    "Constraint",
    "Label",
    "LabelSpace",
    "MU",
    "SYMBOLS",
    "TRANSFORMS",
    "UNITS",
    "fill_solar_scaled",
    "is_abundance",
    "mapped_space",
    "microturbulence",
    "solar_abundances",
    "solar_scaled",
    "symbol_of",
    "unit_of",
]
