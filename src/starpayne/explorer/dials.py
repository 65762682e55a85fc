"""What can be turned on the page: every label of a model, and the star's motion and the spectrograph."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from starpayne.emulators import Emulator
from starpayne.errors import SpectrumError
from starpayne.labels import LabelSpace, fill_solar_scaled, symbol_of
from starpayne.wavelengths import SPEED_OF_LIGHT

RV_MAX = 500.0
"""km/s in either direction: as far as a fit searches."""

VSINI_MAX = 100.0
"""km/s of the slider; what a fit may find at most."""

USUAL_RESOLUTION = 50_000.0
FWHM = math.sqrt(8 * math.log(2))
SUN = {"teff": 5772.0, "logg": 4.44, "feh": 0.0}
PLAIN = {"teff": "Teff", "logg": "log g", "vmic": "v mic", "mu": "μ"}
"""Symbols that figures write in TeX, which a web page does not read."""


@dataclass(frozen=True)
class Dial:
    """One slider.

    Args:
        name: of the label, or ``rv``, ``vsini``, ``resolution``.
        title: how it is written on the page.
        unit: of the value; "" for none.
        low, high, step, value: its ends, its step, and where it starts.
    """

    name: str
    title: str
    unit: str
    low: float
    high: float
    step: float
    value: float

    def text(self, value: float) -> str:
        """Return a value with the digits that its step asks for.

        Example:
            >>> Dial("teff", "Teff", "K", 4000.0, 8000.0, 10.0, 5772.0).text(5772.4)
            '5772'
        """
        return f"{value:.{self.digits}f}".replace("-", "−")

    @property
    def digits(self) -> int:
        """Digits after the point that the step asks for."""
        return max(0, -math.floor(math.log10(self.step) + 1e-9))

    @property
    def range(self) -> str:
        """The ends, as text."""
        return f"{self.low:g} to {self.high:g}".replace("-", "−")


@dataclass(frozen=True)
class Panel:
    """All dials of a page: first the labels of the model, in its order, then ``rv``, ``vsini`` and ``resolution``."""

    space: LabelSpace
    dials: tuple[Dial, ...]

    @classmethod
    def of(cls, emulator: Emulator, resolution: float | None = None) -> Panel:
        """Return the dials of a model, set to the Sun where it can be.

        Args:
            emulator: the model's.
            resolution: λ/FWHM to start with; by default 50,000, or what the model can give.

        Raises:
            SpectrumError: for a resolution that the model cannot give.
        """
        space, domain = emulator.space, emulator.domain
        top = min(domain.sampling / 2, domain.resolution or math.inf)
        # At the lowest resolution a line-spread function may cost a tenth of the range at each end.
        least = 1 / (FWHM * 0.02 * math.log(domain.high / domain.low))
        bottom = math.ceil(min(max(500.0, least), top / 2) / 100) * 100
        if resolution is not None and not bottom <= resolution <= top * (1 + 1e-9):
            raise SpectrumError(f"resolution = {resolution:g} is outside the range of this model, {bottom} to {top:g}")
        start = dict(zip(space.names, (space.low + space.high) / 2, strict=True))
        known = {name: value for name, value in SUN.items() if name in space.names}
        start |= known | fill_solar_scaled(space, known)
        labels = [
            Dial(
                label.name, title_of(label.name), label.unit.partition("(")[0], label.low, label.high,
                round_step((label.high - label.low) / 300), min(max(float(start[label.name]), label.low), label.high),
            )
            for label in space.labels
        ]  # fmt: skip
        return cls(
            space,
            (
                *labels,
                Dial("rv", "RV", "km/s", -RV_MAX, RV_MAX, 0.5, 0.0),
                Dial("vsini", "v sin i", "km/s", 0.0, VSINI_MAX, 0.5, 0.0),
                Dial("resolution", "R = λ/FWHM", "", float(bottom), float(top), 100.0,
                     float(resolution or min(USUAL_RESOLUTION, top))),
            ),
        )  # fmt: skip

    def __getitem__(self, name: str) -> Dial:
        return self.dials[self.names.index(name)]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all dials."""
        return tuple(dial.name for dial in self.dials)

    def widest_profile(self) -> float:
        """Return σ in km/s of the line-spread function at the lowest resolution."""
        return SPEED_OF_LIGHT / self["resolution"].low / FWHM

    def start(self) -> dict[str, float]:
        """Return the value of every dial at the beginning."""
        return {dial.name: dial.value for dial in self.dials}

    def clipped(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return values of dials no farther than their ends."""
        return {name: min(max(value, self[name].low), self[name].high) for name, value in values.items()}


def title_of(name: str) -> str:
    """Return how a label is written on the page: ``mg_fe`` → ``[Mg/Fe]``."""
    return PLAIN.get(name) or symbol_of(name)


def round_step(width: float) -> float:
    """Return the step 1, 2 or 5 times a power of ten that is nearest below a width.

    Example:
        >>> round_step(13.3), round_step(0.0047)
        (10.0, 0.002)
    """
    power = 10.0 ** math.floor(math.log10(width))
    step = next(k for k in (5, 2, 1) if k * power <= width * (1 + 1e-9)) * power
    return float(f"{step:.1g}")
