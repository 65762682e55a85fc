"""A line mask: what a known star teaches of a model's faults, for the fits of others; see ``masklearning``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from starpayne.errors import SpectrumError
from starpayne.files import read_json, write_json
from starpayne.fitting.linedepths import LineDepths
from starpayne.wavelengths import check_medium, convert_medium

FORMAT = "starpayne line mask 2"


@dataclass(frozen=True)
class LineMask:
    """Factors of line depths, rest-frame windows that are not to be fitted, and zero points of labels.

    Args:
        windows: (low, high) in Å at rest, in ``medium``, increasing.
        medium: "air" or "vacuum".
        depths: factors of the model's optical depths; None for none.
        zero_points: label → what a fit with these windows and factors gives for the reference star, minus what is true.
        free: the labels that were free in that fit; zero points suit fits of the same ones.
        model: digest of the model; factors and zero points are of no use to another.
        source: how it was learned: reference labels, spectrum, resolution, threshold, fraction of pixels masked.
    """

    windows: tuple[tuple[float, float], ...]
    medium: str
    depths: LineDepths | None = None
    zero_points: Mapping[str, float] = field(default_factory=dict)
    free: tuple[str, ...] = ()
    model: str = ""
    source: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_medium(self.medium)
        for low, high in self.windows:
            if not (np.isfinite(low) and np.isfinite(high) and low < high):
                raise SpectrumError(f"the line mask window {low:g} to {high:g} Å must have its lower end first")

    def keeps(self, rest: np.ndarray, medium: str) -> np.ndarray:
        """Return (n,) bool: which pixels, by their wavelength at rest (Å), may be fitted."""
        if not self.windows:
            return np.ones(len(rest), bool)
        wavelength = convert_medium(rest, medium, self.medium)
        low, high = np.array(self.windows).T
        i = np.searchsorted(low, wavelength, side="right") - 1
        return (i < 0) | (wavelength > high[np.maximum(i, 0)])

    def without_zero_points(self) -> LineMask:
        """Return the mask without them."""
        return replace(self, zero_points={}, free=())

    def without_depths(self) -> LineMask:
        """Return the mask without factors of line depths; its zero points, which hold with them, go too."""
        return replace(self, depths=None, zero_points={}, free=())

    def write(self, path: str | Path) -> None:
        """Write it as JSON."""
        write_json(
            Path(path),
            {
                "format": FORMAT, "medium": self.medium, "windows": [list(w) for w in self.windows],
                "zero_points": dict(self.zero_points), "free": list(self.free), "model": self.model,
                "source": dict(self.source), "depths": None if self.depths is None else asdict(self.depths),
            },
        )  # fmt: skip

    @classmethod
    def read(cls, path: str | Path) -> LineMask:
        """Read what :meth:`write` wrote.

        Raises:
            SpectrumError: if it is no such file.
        """
        path = Path(path)
        data = read_json(path, SpectrumError)
        if "format" not in data:
            raise SpectrumError(f"{path} is no line mask: give what starpayne mask learn wrote as --out")
        if data["format"] != FORMAT:
            raise SpectrumError(f"{path} has the format {data['format']!r}; this version reads {FORMAT!r}")
        try:
            return cls(
                tuple((float(low), float(high)) for low, high in data["windows"]), str(data["medium"]),
                None if data["depths"] is None else _depths(data["depths"]),
                {str(k): float(v) for k, v in data["zero_points"].items()}, tuple(map(str, data["free"])),
                str(data["model"]), dict(data["source"]),
            )  # fmt: skip
        except SpectrumError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SpectrumError(f"{path} is a damaged line mask: {type(error).__name__}: {error}") from error


def _depths(data: Mapping[str, Any]) -> LineDepths:
    wavelength, factor = (tuple(map(float, data[name])) for name in ("wavelength", "factor"))
    return LineDepths(wavelength, factor, str(data["medium"]))
