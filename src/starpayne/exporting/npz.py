"""An emulator as a plain ``.npz``, and the reader of it: thirty lines of NumPy, put beside it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from starpayne.bundle import named_arrays
from starpayne.emulators import Emulator, TransformerPayne
from starpayne.emulators.additive import abundances
from starpayne.emulators.coordinates import inverse_labels
from starpayne.emulators.layers import ACTIVATIONS
from starpayne.emulators.polynomial import degrees
from starpayne.errors import BundleError
from starpayne.labels import LabelSpace

READERS = "starpayne.exporting.readers"


def reader_of(emulator: Emulator) -> str:
    """Return the source of the reader for an emulator; BundleError if there is none for its architecture."""
    found = find_spec(f"{READERS}.{emulator.architecture}")
    if found is None or found.origin is None:
        raise BundleError(
            f"there is no NumPy reader for the architecture {emulator.architecture!r}; export it as onnx instead"
        )
    own = emulator.config.get("activation", "gelu")
    others = tuple(f'    "{name}": ' for name in ACTIVATIONS if name != own)
    lines = Path(found.origin).read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith(others))


def write_npz(emulator: Emulator, path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Write weights, label scaling and wavelengths; return the reader's function, labels → (channels, wavelengths)."""
    reader_of(emulator)
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **_contents(emulator))
    reader = import_module(f"{READERS}.{emulator.architecture}")
    loaded = reader.load(path)
    return lambda labels: reader.spectrum(loaded, labels)


def _contents(emulator: Emulator) -> dict[str, np.ndarray]:
    space, domain = emulator.space, emulator.domain
    facts: dict[str, Any] = {
        "architecture": emulator.architecture, "channels": emulator.channels, "quantity": domain.quantity,
        "labels": space.names, "units": [label.unit for label in space.labels], "bounds": [space.low, space.high],
        "constraints": [str(constraint) for constraint in space.constraints],
        "wavelength": emulator.native_wavelength, "medium": domain.medium,
    }  # fmt: skip
    facts |= _scaling(space) | _coordinates(space)
    facts |= {name: np.asarray(leaf) for name, leaf in named_arrays(emulator).items()}
    config = emulator.config
    for name in ("activation", "residual", "kernel"):
        if name in config:
            facts[name] = config[name]
    facts["layers"] = sum(name.startswith("weights.") for name in facts)
    facts["convolutions"] = sum(name.startswith("filters.") for name in facts)
    if isinstance(emulator, TransformerPayne):
        facts |= _encoding(emulator)
    if emulator.architecture == "additive":
        facts["own"] = np.array(abundances(space), int)
    if emulator.architecture == "polynomial":
        facts["degrees"] = degrees(len(space), config["degree"])
    return {name: np.asarray(value) for name, value in facts.items()}


def _encoding(emulator: TransformerPayne) -> dict[str, Any]:
    """Return what a wavelength becomes: whether the encoding is periodic in λ itself, its scaling, and the periods."""
    x = emulator.coordinate
    return {
        "activation": emulator.activation, "periods": emulator.periods.values,
        "coordinate": [x.scale == "linear", x.zero, x.span],
    }  # fmt: skip


def _scaling(space: LabelSpace) -> dict[str, Any]:
    """Return how labels become the inputs of a network, with the held ones as they come out."""
    offset, scale = space.scaling
    n = len(space)
    held = space.scale((space.low + space.high) / 2)[n:]
    return {
        "transform": [label.transform for label in space.labels], "offset": offset[:n], "scale": scale[:n],
        "held": held,
    }  # fmt: skip


def _coordinates(space: LabelSpace) -> dict[str, Any]:
    """Return what leads to the unit cube, which polynomials and Gaussian processes work in."""
    weights = [[c.coefficients.get(name, 0.0) for name in space.names] for c in space.constraints]
    return {
        "constraint.weights": np.array(weights).reshape(-1, len(space)),
        "constraint.ends": np.array([(c.low, c.high) for c in space.constraints]).reshape(-1, 2),
        "inverse": np.array([space.names.index(name) for name in inverse_labels(space)], int),
    }
