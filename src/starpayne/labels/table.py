"""One label and one constraint: names, units, bounds and transforms."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from starpayne.errors import LabelError

TRANSFORMS = ("linear", "log10", "inverse")
"""Scale on which a label is min–max scaled; ``inverse`` is 1/x, the natural scale of 5040/Teff."""

UNITS = {"teff": "K", "logg": "dex(cm/s2)", "feh": "dex", "alpha_fe": "dex", "vmic": "km/s", "mu": ""}
"""Units of the labels every grid may have; any ``xx_fe`` is in dex; ``mu`` is the cosine of the viewing angle."""

MU = "mu"
"""The cosine of the viewing angle: the last label of an emulator of intensities."""

ALPHA = ("O", "Ne", "Mg", "Si", "S", "Ar", "Ca", "Ti")
"""The elements that follow ``alpha_fe`` unless they are labels themselves."""

SYMBOLS = {
    "teff": "$T_\\mathrm{eff}$",
    "logg": "$\\log g$",
    "feh": "[Fe/H]",
    "alpha_fe": "[α/Fe]",
    "vmic": "$v_\\mathrm{mic}$",
    "mu": "$\\mu$",
}


def unit_of(name: str) -> str:
    """Return the unit of a label the field knows by name ("" if it is not one of them)."""
    return UNITS.get(name, "dex" if name.endswith("_fe") else "")


def is_abundance(name: str) -> bool:
    """Return whether a label is the abundance [X/Fe] of a single element (``alpha_fe`` stands for several)."""
    return name.endswith("_fe") and name != "alpha_fe"


def symbol_of(name: str) -> str:
    """Return how a label is written on a figure: ``mg_fe`` → ``[Mg/Fe]``."""
    if name in SYMBOLS:
        return SYMBOLS[name]
    if name.endswith("_fe"):
        return f"[{name[:-3].capitalize()}/Fe]"
    return name


@dataclass(frozen=True)
class Label:
    """One stellar label: its name, unit, lower and upper bound, and the scale it is interpolated on.

    Args:
        name: lower-case identifier, such as ``teff`` or ``mg_fe``.
        low, high: bounds in physical units, ``low < high``.
        unit: unit string; by default the field's unit for that name.
        transform: ``linear``, ``log10`` or ``inverse``.
        scale: lower and upper value by which a network's input is scaled, where these are not the bounds: those of the
            grid that a network was first trained on, before it was adapted to another.

    Raises:
        LabelError: for bounds that are not finite or not increasing, or an unknown transform.
    """

    name: str
    low: float
    high: float
    unit: str = ""
    transform: str = "linear"
    scale: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise LabelError(f"label name {self.name!r} is not an identifier (letters, digits, underscore)")
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise LabelError(
                f"label {self.name}: bounds must be finite and increasing, got low = {self.low}, high = {self.high}"
            )
        if self.transform not in TRANSFORMS:
            raise LabelError(
                f"label {self.name}: unknown transform {self.transform!r}; choose one of {', '.join(TRANSFORMS)}"
            )
        if self.transform != "linear" and self.low <= 0:
            raise LabelError(f"label {self.name}: transform {self.transform} needs low > 0, got {self.low}")
        if self.scale is not None:
            low, high = (float(x) for x in self.scale)
            if not (np.isfinite(low) and np.isfinite(high) and low < high) or (self.transform != "linear" and low <= 0):
                raise LabelError(f"label {self.name}: scale = {self.scale} must be two increasing numbers on its scale")
            object.__setattr__(self, "scale", None if (low, high) == (self.low, self.high) else (low, high))
        if not self.unit:
            object.__setattr__(self, "unit", unit_of(self.name))

    @property
    def ends(self) -> tuple[float, float]:
        """The values that are scaled to 0 and 1."""
        return self.scale or (self.low, self.high)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        data = {"name": self.name, "unit": self.unit, "low": self.low, "high": self.high, "transform": self.transform}
        return data if self.scale is None else {**data, "scale": list(self.scale)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Label:
        """Read what :meth:`to_dict` writes; KeyError, TypeError or ValueError for what is no label."""
        low, high = data.get("scale") or (data["low"], data["high"])
        return cls(
            str(data["name"]), float(data["low"]), float(data["high"]), str(data.get("unit", "")),
            str(data.get("transform", "linear")), (float(low), float(high)),
        )  # fmt: skip


@dataclass(frozen=True)
class Constraint:
    """A linear constraint between labels: ``low <= sum(coefficient * label) <= high``."""

    coefficients: Mapping[str, float]
    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.coefficients or not all(np.isfinite(c) and c != 0 for c in self.coefficients.values()):
            raise LabelError(f"constraint {self}: coefficients must be finite and not zero")
        if not self.low < self.high:
            raise LabelError(f"constraint {self}: low must be below high")

    def __str__(self) -> str:
        terms = " ".join(
            f"{'-' if c < 0 else '+'} {'' if abs(c) == 1 else f'{_exactly(abs(c))} '}{name}"
            for name, c in self.coefficients.items()
        )
        return f"{_exactly(self.low)} <= {terms.removeprefix('+ ')} <= {_exactly(self.high)}"

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """Read ``"-0.4 <= mg_fe - alpha_fe <= 0.4"`` (terms ``name`` or ``number name``, signs + and -)."""
        remedy = f"constraint {text!r}: write it as 'low <= label - label <= high'"
        parts = text.split("<=")
        if len(parts) != 3 or not (terms := parts[1].strip()):
            raise LabelError(remedy)
        coefficients: dict[str, float] = {}
        end = 0
        while end < len(terms):
            term = _TERM.match(terms, end)
            # Only the first term may leave out its sign, and a label stands in one term.
            if term is None or term["name"] in coefficients or not (term["sign"] or end == 0):
                raise LabelError(remedy)
            coefficients[term["name"]] = float(f"{term['sign']}{term['factor'] or 1}")
            end = term.end()
        try:
            low, high = float(parts[0]), float(parts[2])
        except ValueError as error:
            raise LabelError(remedy) from error
        return cls(coefficients, low, high)


_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_TERM = re.compile(rf"\s*(?P<sign>[+-]?)\s*(?P<factor>{_NUMBER})?\s*\*?\s*(?P<name>[^\W\d]\w*)")
"""A term of a constraint: sign, number, label."""


def _exactly(value: float) -> str:
    """Return the shortest text that reads back as this number."""
    return short if float(short := f"{value:g}") == value else repr(float(value))
