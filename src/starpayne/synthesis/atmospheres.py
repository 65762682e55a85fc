"""Model atmospheres: what an engine needs of one, and the atmosnet network that interpolates C3K/ATLAS12 models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from starpayne.errors import LabelError, MissingExtraError, SynthesisError
from starpayne.labels import LabelSpace
from starpayne.synthesis.unpickle import load_arrays

BOLTZMANN = 1.380649e-16
"""erg/K, exact."""

TAU_RANGE = (-6.0, 1.5)
"""Layers kept, in log10 τ_Ross. Deeper ones add nothing to the spectrum, and SMElib's equation of state can loop for
ever on them in cool metal-poor stars."""

MIN_LAYERS = 10

ATMOSNET_RANGES = {
    "teff": (2500.0, 8000.0),
    "logg": (-1.0, 5.5),
    "feh": (-4.0, 1.5),
    "alpha_fe": (-0.2, 0.6),
}


@dataclass(frozen=True)
class ModelAtmosphere:
    """A plane-parallel model atmosphere, from the outermost layer inwards.

    Args:
        teff: effective temperature in K.
        logg: log10 of the surface gravity in cm s⁻².
        feh, alpha_fe: the [Fe/H] and [α/Fe] that the structure was computed for.
        column_mass: (n_layers,) g cm⁻², increasing.
        temperature: (n_layers,) K.
        electron_density: (n_layers,) cm⁻³.
        atom_density: (n_layers,) all particles but electrons, cm⁻³.
        log_tau_ross: (n_layers,) log10 of the Rosseland optical depth.
        source: where it comes from, for the provenance.
    """

    teff: float
    logg: float
    feh: float
    alpha_fe: float
    column_mass: np.ndarray
    temperature: np.ndarray
    electron_density: np.ndarray
    atom_density: np.ndarray
    log_tau_ross: np.ndarray
    source: str

    def trim(self, low: float = TAU_RANGE[0], high: float = TAU_RANGE[1], stride: int = 1) -> ModelAtmosphere:
        """Return the layers with low < log10 τ_Ross < high, of these every ``stride``-th from the outermost on."""
        kept = np.flatnonzero((self.log_tau_ross > low) & (self.log_tau_ross < high))[::stride]
        names = ("column_mass", "temperature", "electron_density", "atom_density", "log_tau_ross")
        return replace(self, **{name: getattr(self, name)[kept] for name in names})


def check_layers(model: ModelAtmosphere) -> None:
    """Raise SynthesisError if a trimmed model has too few layers left for radiative transfer."""
    if len(model.temperature) < MIN_LAYERS:
        raise SynthesisError(
            f"{model.source} has {len(model.temperature)} layers between the optical depths that are used; "
            f"at least {MIN_LAYERS} are needed"
        )


def optical_depth(column_mass: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Integrate opacity (cm² g⁻¹) over column mass (g cm⁻²) by trapezoids, from the top with constant opacity above."""
    steps = 0.5 * (opacity[1:] + opacity[:-1]) * np.diff(column_mass)
    return column_mass[0] * opacity[0] + np.concatenate([[0.0], np.cumsum(steps)])


def atmosnet_file() -> Path:
    """Return the path of atmosnet's network without importing atmosnet (whose code does not run with today's SciPy).

    Raises:
        MissingExtraError: if atmosnet is not installed.
    """
    spec = find_spec("atmosnet")
    path = Path(spec.origin).parent / "data" / "atmosnet_c3k_300neurons_cool.pkl" if spec and spec.origin else None
    if path is None or not path.exists():
        raise MissingExtraError(
            'the model atmospheres of atmosnet are not installed; run: pip install "starpayne[synthesis]"'
        )
    return path


@dataclass(frozen=True)
class _Network:
    """One physical quantity over 80 layers: two hidden layers, leaky ReLU, inputs min–max scaled minus one half."""

    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]
    low: np.ndarray
    high: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        z = (x - self.low) / (self.high - self.low) - 0.5
        for weight, bias in zip(self.weights[:2], self.biases[:2], strict=True):
            z = weight @ z + bias
            z = np.where(z > 0, z, 0.01 * z)
        return self.weights[2] @ z + self.biases[2]


@cache
def _networks() -> tuple[_Network, ...]:
    """Read the networks of column mass, temperature, pressure, electron density and Rosseland opacity."""
    path = atmosnet_file()
    stored = load_arrays(path)
    try:
        by_column = {int(entry["column"]): entry for entry in stored}
        return tuple(
            _Network(
                tuple(np.asarray(by_column[i][f"w_array_{k}"], np.float64) for k in range(3)),
                tuple(np.asarray(by_column[i][f"b_array_{k}"], np.float64) for k in range(3)),
                np.asarray(by_column[i]["x_min"], np.float64),
                np.asarray(by_column[i]["x_max"], np.float64),
            )
            for i in range(5)
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SynthesisError(f"{path.name} is not the network of atmosnet 1.0.1 ({error!r})") from error


def atmosnet(teff: float, logg: float, feh: float = 0.0, alpha_fe: float = 0.0) -> ModelAtmosphere:
    """Return the C3K/ATLAS12 atmosphere that atmosnet's network predicts, all 80 layers of it.

    Args:
        teff: effective temperature in K, 2500 to 8000.
        logg: log10(cm s⁻²), −1 to 5.5.
        feh: [Fe/H] in dex, −4 to 1.5.
        alpha_fe: [α/Fe] in dex, −0.2 to 0.6.

    Raises:
        LabelError: outside these ranges.
        MissingExtraError: if atmosnet is not installed.

    Source:
        atmosnet 1.0.1 (MIT), its data file alone: the network gives log10 of each quantity.
    """
    labels = {"teff": teff, "logg": logg, "feh": feh, "alpha_fe": alpha_fe}
    check_atmosnet(labels)
    x = np.array([labels[name] for name in ATMOSNET_RANGES], dtype=np.float64)
    column_mass, temperature, pressure, electrons, opacity = (10.0 ** network(x) for network in _networks())
    return ModelAtmosphere(
        teff=float(teff),
        logg=float(logg),
        feh=float(feh),
        alpha_fe=float(alpha_fe),
        column_mass=column_mass,
        temperature=temperature,
        electron_density=electrons,
        atom_density=pressure / (BOLTZMANN * temperature) - electrons,
        log_tau_ross=np.log10(optical_depth(column_mass, opacity)),
        source="atmosnet c3k cool",
    )


def check_atmosnet(labels: Mapping[str, float]) -> None:
    """Raise LabelError if an atmospheric parameter lies outside what the network was trained on (NaN does)."""
    for name, (low, high) in ATMOSNET_RANGES.items():
        value = labels.get(name, 0.0)
        if not low <= value <= high:
            raise LabelError(
                f"{name} = {value:g} is outside the range of the atmosnet model atmospheres, {low:g} to {high:g}"
            )


def check_atmosnet_space(space: LabelSpace) -> None:
    """Raise LabelError if the bounds of a label table reach beyond the model atmospheres."""
    for label in space.labels:
        low, high = ATMOSNET_RANGES.get(label.name, (label.low, label.high))
        if label.low < low or label.high > high:
            raise LabelError(
                f"label {label.name}: {label.low:g} to {label.high:g} {label.unit} reaches beyond the atmosnet model "
                f"atmospheres, {low:g} to {high:g}; narrow its bounds"
            )
