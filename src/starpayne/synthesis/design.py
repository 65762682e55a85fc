"""A design: which spectra to synthesize, on which wavelengths, with which engine; read from a TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from starpayne.errors import SynthesisError
from starpayne.grid import Split
from starpayne.labels import Constraint, Label, LabelSpace
from starpayne.synthesis.engine import target_of
from starpayne.wavelengths import check_medium, log_grid, sampling_needed

KEYS = {
    "": (
        "name",
        "n_spectra",
        "rows",
        "seed",
        "constraints",
        "line_corners",
        "labels",
        "fixed",
        "wavelength",
        "engine",
        "split",
    ),
    "wavelength": ("low", "high", "medium", "sampling"),
    "engine": ("name", "settings"),
    "split": ("n_test", "n_validation"),
    "label": ("low", "high", "transform"),
}
"""The keys a design file may have, by table."""


@dataclass(frozen=True)
class Design:
    """Everything that determines a grid.

    Args:
        space: the label table; rows are a Sobol sequence in it, so that the first N rows fill it evenly for any N.
        n_spectra: number of spectra.
        low, high: the window in Å, in ``medium``.
        medium: "air" or "vacuum".
        sampling: λ/Δλ of the wavelengths, at equal steps of ln λ.
        n_test, n_validation: the last rows are the test set, those just before them the validation set.
        seed: of the Sobol sequence.
        engine: name of a registered engine.
        settings: the engine's settings, plain data.
        line_corners: labels at which the depths of lines are measured, to leave out lines that never show; by default
            hot and cool, dwarf and giant corners of the label box at its highest metallicity.
        name: what the grid is called.
        fixed: labels that have one value in all spectra, and stay labels of the grid: a cheap design to pre-train on
            fixes Teff and log g and varies the abundances (arXiv:2306.15703).
        rows: only these rows of the sequence are synthesized, in this order; ``n_spectra`` is their number.

    Example:
        ``Design.from_toml("design.toml").labels``
    """

    space: LabelSpace
    n_spectra: int
    low: float
    high: float
    medium: str = "air"
    sampling: float = 200_000.0
    n_test: int = 0
    n_validation: int = 0
    seed: int = 0
    engine: str = "pysme"
    settings: Mapping[str, Any] = field(default_factory=dict)
    line_corners: tuple[Mapping[str, float], ...] = ()
    name: str = ""
    fixed: Mapping[str, float] = field(default_factory=dict)
    rows: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        target_of(self.engine)
        check_medium(self.medium)
        for key in ("window", "medium", "corners"):
            if key in self.settings:
                raise SynthesisError(f"engine setting {key!r} follows from the design; leave it out")
        if not (0 < self.low < self.high and self.sampling > 1):
            raise SynthesisError(
                f"wavelength: need 0 < low < high and sampling > 1, got {self.low:g}, {self.high:g}, {self.sampling:g}"
            )
        self.space.sobol(1, 0, self.fixed)  # refuses fixed labels that are unknown or out of bounds
        if self.n_spectra < 1:
            raise SynthesisError(f"n_spectra = {self.n_spectra}: a grid needs at least one spectrum")
        if self.rows and (len(set(self.rows)) != self.n_spectra or len(self.rows) != self.n_spectra):
            raise SynthesisError(
                f"rows names {len(set(self.rows))} different rows, n_spectra = {self.n_spectra}: they must agree"
            )
        if any(row < 0 for row in self.rows):
            raise SynthesisError(f"rows: {min(self.rows)} is no row of a sequence; they count from 0")
        if self.n_spectra > 1:
            Split.last_rows(self.n_spectra, self.n_validation, self.n_test)

    # -- what follows from it -------------------------------------------------------------------------------

    @cached_property
    def wavelength(self) -> np.ndarray:
        """(n_wavelength,) float64 Å."""
        return log_grid(self.low, self.high, self.sampling)

    @cached_property
    def labels(self) -> np.ndarray:
        """(n_spectra, n_labels) float64: a prefix of the same design with more spectra, or its ``rows``."""
        if self.rows:
            return self.space.sobol(max(self.rows) + 1, self.seed, self.fixed)[list(self.rows)]
        return self.space.sobol(self.n_spectra, self.seed, self.fixed)

    def only(self, rows: Iterable[int]) -> Design:
        """Return the design of some rows of this one alone, all of them to train on."""
        rows = tuple(int(row) for row in rows)
        if self.rows:
            rows = tuple(self.rows[row] for row in rows)
        return replace(self, rows=rows, n_spectra=len(rows), n_test=0, n_validation=0)

    @property
    def split(self) -> Split:
        if self.n_spectra == 1:
            return Split((0,), (), ())
        return Split.last_rows(self.n_spectra, self.n_validation, self.n_test)

    @property
    def sampling_needed(self) -> float:
        """λ/Δλ that holds the narrowest lines of the grid, those at the lowest Teff and vmic."""
        bounds = {label.name: label.low for label in self.space.labels}
        fixed = self.settings.get("fixed", {})
        teff = bounds.get("teff", float(fixed.get("teff", 5000.0)))
        return sampling_needed(teff, bounds.get("vmic", float(fixed.get("vmic", 1.0))))

    @property
    def undersampled(self) -> bool:
        """Whether the wavelengths are too coarse to hold the grid's narrowest lines; such a grid is flagged."""
        return self.sampling < self.sampling_needed

    def provenance(self, engine: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the engine says about itself, with ``undersampled`` among the physics flags where it is so."""
        extra = ["undersampled"] if self.undersampled else []
        return {**engine, "physics": [*engine.get("physics", ()), *extra]}

    def engine_settings(self) -> dict[str, Any]:
        """Return the settings of the engine with window, medium and line corners filled in."""
        settings = dict(self.settings)
        if self.engine in ("pysme", "turbospectrum"):
            settings |= {"window": [float(self.wavelength[0]), float(self.wavelength[-1])], "medium": self.medium}
        if self.engine == "pysme":
            settings["corners"] = self.corners()
        return settings

    def corners(self) -> list[dict[str, float]]:
        """Return the labels at which lines are selected: where any line of the grid may be at its deepest.

        A line is deepest at the highest abundances, at a Teff that depends on its excitation and ion: both ends and the
        middle of Teff, both ends of log g.
        """
        if self.line_corners:
            return [dict(corner) for corner in self.line_corners]
        bounds = {label.name: (label.low, label.high) for label in self.space.labels}
        shared = {n: high for n, (_, high) in bounds.items() if n == "feh" or n.endswith("_fe")}
        if "vmic" in bounds:
            shared["vmic"] = bounds["vmic"][0]
        axes = []
        for name in ("teff", "logg"):
            low, high = bounds.get(name, (np.nan, np.nan))
            steps = {"teff": (low, 0.5 * (low + high), high), "logg": (low, high)}[name]
            axes.append([{name: float(value)} for value in steps] if name in bounds else [{}])
        return [{**shared, **a, **b} for a, b in product(*axes)]

    # -- files ----------------------------------------------------------------------------------------------

    @classmethod
    def from_toml(cls, path: str | Path) -> Design:
        """Read a design file (see the shipped ``demo.toml`` for a commented one).

        Raises:
            SynthesisError: if it is missing, not TOML, or has a wrong key or value, which the message names.
            LabelError: for a label table that cannot be.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SynthesisError(f"the design {path} cannot be read: {error}") from error
        return cls._from_text(text, str(path))

    @classmethod
    def shipped(cls, name: str) -> Design:
        """Return a design that comes with the package: ``demo`` or ``mgb_reference``."""
        resource = files("starpayne.synthesis") / "designs" / f"{name}.toml"
        if not resource.is_file():
            raise SynthesisError(f"no shipped design {name!r}; there are: {', '.join(shipped_designs())}")
        return cls._from_text(resource.read_text(encoding="utf-8"), f"{name}.toml")

    @classmethod
    def _from_text(cls, text: str, where: str) -> Design:
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise SynthesisError(f"the design {where} is not TOML: {error}") from error
        return cls.from_dict(data, where)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "design") -> Design:
        """Read what :meth:`to_dict` writes, or a parsed TOML file."""
        _refuse_unknown(data, "", where)
        try:
            tables = {name: dict(data.get(name, {})) for name in ("labels", "wavelength", "engine", "split")}
            for name in ("wavelength", "engine", "split"):
                _refuse_unknown(tables[name], name, where)
            labels = []
            for name, bounds in tables["labels"].items():
                _refuse_unknown(bounds, "label", where, name)
                transform = str(bounds.get("transform", "linear"))
                labels.append(Label(name, float(bounds["low"]), float(bounds["high"]), transform=transform))
            window = tables["wavelength"]
            return cls(
                space=LabelSpace(tuple(labels), tuple(Constraint.parse(c) for c in data.get("constraints", ()))),
                n_spectra=_whole(data["n_spectra"]),
                low=float(window["low"]),
                high=float(window["high"]),
                medium=str(window.get("medium", "air")),
                sampling=float(window.get("sampling", 200_000.0)),
                n_test=_whole(tables["split"].get("n_test", 0)),
                n_validation=_whole(tables["split"].get("n_validation", 0)),
                seed=_whole(data.get("seed", 0)),
                engine=str(tables["engine"].get("name", "pysme")),
                settings=dict(tables["engine"].get("settings", {})),
                line_corners=tuple({k: float(v) for k, v in c.items()} for c in data.get("line_corners", ())),
                name=str(data.get("name", "")),
                fixed={str(k): float(v) for k, v in dict(data.get("fixed", {})).items()},
                rows=tuple(_whole(row) for row in data.get("rows", ())),
            )
        except KeyError as error:
            raise SynthesisError(f"{where}: the key {error.args[0]!r} is missing") from error
        except (TypeError, AttributeError) as error:
            raise SynthesisError(f"{where}: a value has the wrong type ({error})") from error
        except ValueError as error:
            if isinstance(error, SynthesisError) or type(error).__module__.startswith("starpayne"):
                raise
            raise SynthesisError(f"{where}: a value cannot be read ({error})") from error

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data that :meth:`from_dict` reads."""
        return {
            "name": self.name,
            "n_spectra": self.n_spectra,
            "seed": self.seed,
            "constraints": [str(c) for c in self.space.constraints],
            "line_corners": [dict(c) for c in self.line_corners],
            "labels": {x.name: {"low": x.low, "high": x.high, "transform": x.transform} for x in self.space.labels},
            "wavelength": {"low": self.low, "high": self.high, "medium": self.medium, "sampling": self.sampling},
            "engine": {"name": self.engine, "settings": dict(self.settings)},
            "split": {"n_test": self.n_test, "n_validation": self.n_validation},
            **({"fixed": dict(self.fixed)} if self.fixed else {}),
            **({"rows": list(self.rows)} if self.rows else {}),
        }


def shipped_designs() -> list[str]:
    """Return the names of the designs that come with the package."""
    folder = files("starpayne.synthesis") / "designs"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def _refuse_unknown(keys: Iterable[str], table: str, where: str, label: str = "") -> None:
    for key in keys:
        if key not in KEYS[table]:
            place = f"[labels.{label}]" if label else f"[{table}]" if table else "the top level"
            raise SynthesisError(f"{where}: unknown key {key!r} in {place}; allowed: {', '.join(KEYS[table])}")


def _whole(value: Any) -> int:
    if isinstance(value, bool) or int(value) != value:
        raise ValueError(f"{value!r} is not a whole number")
    return int(value)
