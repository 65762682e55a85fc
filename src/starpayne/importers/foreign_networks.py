"""What importers of other people's networks share: pixels, provenance, and whether a network gives normalised flux."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from starpayne.bundle import Model, named_arrays
from starpayne.emulators import Emulator, Payne, SpectralDomain
from starpayne.emulators.base import HostArray
from starpayne.errors import BundleError
from starpayne.importers.safe_npz import read_arrays
from starpayne.labels import LabelSpace
from starpayne.wavelengths import check_wavelength, sampling_of

LOWEST, HIGHEST = 0.1, 1.5
"""Between these lies the median of any normalised spectrum."""

GAP = 3.0
"""Pixels this many times further apart than usual have a gap between them, as those of APOGEE's detectors."""


@dataclass(frozen=True)
class Layers:
    """A fully connected network as starpayne applies it: inputs from -1/2 to 1/2.

    Args:
        weights, biases: of each layer, (n_in, n_out) and (n_out,).
        center, width: scalars or (pixels,); the flux is ``center + width * network``.
        activation: a name that ``starpayne.emulators.layers`` knows.
    """

    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]
    center: float | np.ndarray
    width: float | np.ndarray
    activation: str


@dataclass(frozen=True)
class Pixels:
    """The wavelengths of a network's outputs, and what is known about its spectra.

    Args:
        wavelength: (pixels,) Å in ``medium``.
        medium: "air" or "vacuum".
        low, high: part of the pixels to take, in Å; by default all of them.
        sampling: λ/Δλ; by default that of the pixels.
        resolution: λ/FWHM of the broadening in the spectra.
        physics: flags of what the spectra leave out.
    """

    wavelength: np.ndarray
    medium: str
    low: float | None = None
    high: float | None = None
    sampling: float | None = None
    resolution: float | None = None
    physics: tuple[str, ...] = ()


def payne_of(layers: Layers, space: LabelSpace, pixels: Pixels, where: Path) -> tuple[Payne, list[tuple[float, float]]]:
    """Return the emulator of a fully connected network, and the gaps between its pixels.

    In a gap stand pixels whose flux is 1, whatever the labels: interpolation across it would run wild, and fits need
    pixels in regular steps.

    Raises:
        BundleError: fewer than four pixels between ``low`` and ``high``.
    """
    wave = pixels.wavelength
    low, high = (wave[0] if pixels.low is None else pixels.low), (wave[-1] if pixels.high is None else pixels.high)
    kept = np.flatnonzero((wave >= low) & (wave <= high))
    if len(kept) < 4:
        raise BundleError(
            f"{where}: {len(kept)} of its pixels, {wave[0]:.2f} to {wave[-1]:.2f} Å, lie in {low:g} to {high:g} Å"
        )
    filled, source, gaps = _without_gaps(wave[kept], where)
    real = source >= 0
    column = kept[np.maximum(source, 0)]
    center, width = (np.broadcast_to(x, wave.shape)[column] for x in (layers.center, layers.width))
    emulator = Payne(
        weights=tuple(_float32(w) for w in (*layers.weights[:-1], np.where(real, layers.weights[-1][:, column], 0.0))),
        biases=tuple(_float32(b) for b in (*layers.biases[:-1], np.where(real, layers.biases[-1][column], 0.0))),
        center=_float32(np.where(real, center, 1.0))[None], width=_float32(width)[None],
        space=space, domain=domain_of(pixels, filled), channels=("flux",), wavelength=HostArray(filled),
        activation=layers.activation, residual=False,
    )  # fmt: skip
    return emulator, gaps


def domain_of(pixels: Pixels, wavelength: np.ndarray) -> SpectralDomain:
    """Return the spectral domain of a network on these wavelengths."""
    sampling = sampling_of(wavelength) if pixels.sampling is None else pixels.sampling
    return SpectralDomain(
        float(wavelength[0]), float(wavelength[-1]), pixels.medium, sampling, pixels.resolution, pixels.physics
    )


def _without_gaps(wave: np.ndarray, where: Path) -> tuple[np.ndarray, np.ndarray, list[tuple[float, float]]]:
    """Return the wavelengths with pixels in the gaps, the index of each among those given (or -1), and the gaps."""
    steps = np.diff(np.log(wave))
    usual = float(np.median(steps))
    after = np.flatnonzero(steps > GAP * usual)
    missing = {int(i): round(steps[i] / usual) - 1 for i in after}
    if sum(missing.values()) > len(wave):
        raise BundleError(
            f"{where}: more than half of {wave[0]:.1f} to {wave[-1]:.1f} Å lies in gaps between its pixels; import one "
            "piece of it (low, high)"
        )
    pieces, source = [], []
    for i in range(len(wave)):
        pieces.append(wave[i : i + 1])
        source.append(np.array([i]))
        if i in missing:
            n = missing[i]
            pieces.append(wave[i] * np.exp(steps[i] * np.arange(1, n + 1) / (n + 1)))
            source.append(np.full(n, -1))
    gaps = [(round(float(wave[i]), 2), round(float(wave[i + 1]), 2)) for i in after]
    return np.concatenate(pieces), np.concatenate(source), gaps


def _float32(values: np.ndarray) -> Any:
    with np.errstate(over="ignore"):
        return jnp.asarray(np.asarray(values).astype(np.float32))


def wavelengths_from(given: np.ndarray | Path, expected: int | None, where: Path) -> np.ndarray:
    """Return wavelengths (n,) Å given as an array, or as an ``.npy`` or ``.npz`` file with one array.

    Raises:
        BundleError: no such file, or one with several arrays and none called wavelength; another number than expected.
        WavelengthError: not increasing, not finite, or not in Å.
    """
    if isinstance(given, Path):
        arrays = read_arrays(given)
        named = [arrays[name] for name in ("wavelength", "wavelengths", "wave") if name in arrays]
        if not named and len(arrays) != 1:
            raise BundleError(f"{given} holds {', '.join(sorted(arrays)) or 'nothing'}; name the array 'wavelength'")
        given = named[0] if named else next(iter(arrays.values()))
    wave = check_wavelength(np.ravel(given))
    if expected is not None and len(wave) != expected:
        raise BundleError(f"{where}: the network has {expected} outputs and {len(wave)} wavelengths were given")
    return wave


def central_flux(emulator: Emulator) -> np.ndarray:
    """Return the flux in the middle of the label ranges, on the emulator's own wavelengths (of many, some)."""
    native = emulator.native_wavelength
    some = native[np.unique(np.linspace(0, len(native) - 1, 1000).astype(int))]
    return emulator.predict(emulator.space.from_cube(np.full(len(emulator.space), 0.5)), some).flux


def is_normalised(flux: np.ndarray) -> bool:
    """Return whether this may be a continuum-normalised spectrum."""
    return bool(np.all(np.isfinite(flux)) and LOWEST < np.median(flux) < HIGHEST)


def not_normalised(flux: np.ndarray, where: Path, remedy: str) -> BundleError:
    """Return the error of a network that gives no normalised flux in the middle of its labels."""
    return BundleError(
        f"{where}: in the middle of its labels the network gives a median of {np.median(flux):.3g}, and a normalised "
        f"flux lies between {LOWEST} and {HIGHEST}; {remedy}"
    )


def imported(emulator: Emulator, path: Path, digest: str, kind: str, facts: Mapping[str, Any]) -> Model:
    """Return the model of an imported emulator: its error is not known, and it says where it comes from.

    Args:
        emulator: the network.
        path, digest: of the file it was read from, and its SHA-256.
        kind: the format, in words.
        facts: what else its metadata should say; plain JSON data.
    """
    count = sum(int(np.prod(leaf.shape)) for leaf in named_arrays(emulator).values())
    provenance = {"licence": "not stated by the file", **dict(facts.get("provenance", {}))}
    return Model(
        emulator,
        None,
        {
            "source": {"grid": None, "provenance": provenance},
            "imported": {"file": path.name, "sha256": digest, "format": kind}
            | {name: value for name, value in facts.items() if name != "provenance"},
            "parameters": count,
        },
    )


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
