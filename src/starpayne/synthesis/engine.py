"""What a synthesis engine is, and where engines are found by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, runtime_checkable

import numpy as np

from starpayne.errors import SynthesisError
from starpayne.labels import LabelSpace


@dataclass(frozen=True)
class Synthesis:
    """One synthetic spectrum on the wavelengths that were asked for, with no broadening beyond the star's own.

    Args:
        flux: (n_wavelength,) normalised flux, flux over continuum, float64.
        continuum: (n_wavelength,) continuum surface flux in erg s⁻¹ cm⁻² Å⁻¹, float64.
        intensity: (n_mu, n_wavelength) specific intensity in erg s⁻¹ cm⁻² Å⁻¹ sr⁻¹ at the engine's viewing
            angles, or None where it was asked for none.
    """

    flux: np.ndarray
    continuum: np.ndarray
    intensity: np.ndarray | None = None


@runtime_checkable
class Engine(Protocol):
    """Turns stellar labels into a spectrum. Every spectrum must be independent of those made before it."""

    def synthesize(self, labels: Mapping[str, float], wavelength: np.ndarray) -> Synthesis:
        """Return the spectrum of ``labels`` on (n_wavelength,) Å in the medium the engine was set up for."""
        ...

    def provenance(self) -> dict[str, Any]:
        """Return engine, versions, line list, atmosphere, abundances, settings and ``physics`` flags as JSON data."""
        ...

    def check(self, space: LabelSpace) -> None:
        """Raise LabelError or SynthesisError for labels or ranges that the engine cannot do."""
        ...


_ENGINES: dict[str, str] = {
    "pysme": "starpayne.synthesis.pysme:make",
    "turbospectrum": "starpayne.synthesis.turbospectrum:make",
}


def register(name: str, target: str) -> None:
    """Make an engine known by name.

    Args:
        name: what a design file writes as ``[engine] name``.
        target: ``"module:factory"``; the factory takes the settings as plain JSON data and returns an
            :class:`Engine`. It is imported in the child process that runs the engine.
    """
    if target.count(":") != 1:
        raise SynthesisError(f"engine {name!r}: target {target!r} is not of the form 'module:factory'")
    _ENGINES[name] = target


def engine_names() -> tuple[str, ...]:
    """Return the names of all registered engines."""
    return tuple(sorted(_ENGINES))


def target_of(name: str) -> str:
    """Return ``"module:factory"`` of a registered engine; a design file can name no other code than these."""
    if name not in _ENGINES:
        raise SynthesisError(f"unknown synthesis engine {name!r}; registered engines: {', '.join(engine_names())}")
    return _ENGINES[name]


def build(target: str, settings: Mapping[str, Any]) -> Engine:
    """Import ``"module:factory"`` and return the engine it makes of ``settings``."""
    module, _, factory = target.partition(":")
    make: Callable[[dict[str, Any]], Engine] = getattr(import_module(module), factory)
    return make(dict(settings))


def engine(name: str, settings: Mapping[str, Any] | None = None) -> Engine:
    """Return a registered engine in this process (the farm runs engines in child processes instead).

    Example:
        ``engine("pysme", {"accrt": 1e-4}).synthesize({"teff": 5772, "logg": 4.438}, wavelength)``
    """
    return build(target_of(name), settings or {})
