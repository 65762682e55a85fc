"""Networks of The Payne: ``.npz`` files of weights, biases, and the smallest and largest label of the training set.

Ting et al. 2019, ApJ 879, 69 (code: tingyuansen/The_Payne). The flux is W₂ f(W₁ f(W₀ x + b₀) + b₁) + b₂, of labels x
scaled to -1/2 … 1/2; f is a leaky ReLU of slope 0.01, in older networks a sigmoid.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from starpayne.bundle import Model
from starpayne.emulators import Payne
from starpayne.emulators.layers import check_activation
from starpayne.errors import BundleError
from starpayne.files import NUMPY_PROBLEMS
from starpayne.importers.foreign_labels import label_space
from starpayne.importers.foreign_networks import (
    Layers,
    Pixels,
    central_flux,
    imported,
    is_normalised,
    not_normalised,
    payne_of,
    sha256,
    wavelengths_from,
)
from starpayne.importers.formats import Format, ImportOptions
from starpayne.importers.safe_npz import finite_as_float32, read_arrays
from starpayne.labels import LabelSpace

KEYS = ("w_array_0", "w_array_1", "w_array_2", "b_array_0", "b_array_1", "b_array_2", "x_min", "x_max")
BESIDE = ("apogee_wavelength.npz", "wavelength.npz", "wavelength.npy")
"""Files of wavelengths that may stand beside a network."""

ACTIVATIONS = ("leaky_relu", "sigmoid")
"""The published ones, the newer first."""

APOGEE_LABELS = (
    "teff", "logg", "vmic", "c_h", "n_h", "o_h", "na_h", "mg_h", "al_h", "si_h", "p_h", "s_h", "k_h", "ca_h", "ti_h",
    "v_h", "cr_h", "mn_h", "feh", "co_h", "ni_h", "cu_h", "ge_h", "c12_c13", "vmac",
)  # fmt: skip
"""The 25 labels of the published Kurucz models of APOGEE spectra, in the order that its fitting code documents."""

APOGEE_PIXELS = 7214


def recognises(path: Path) -> bool:
    """Return whether a file is an ``.npz`` with the arrays of a network of The Payne."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {f"{key}.npy" for key in KEYS[:2]} <= set(archive.namelist())
    except NUMPY_PROBLEMS:
        return False


def read(
    path: str | Path,
    *,
    wavelength: np.ndarray | Path | None = None,
    medium: str | None = None,
    names: tuple[str, ...] | None = None,
    activation: str | None = None,
    low: float | None = None,
    high: float | None = None,
    sampling: float | None = None,
    resolution: float | None = None,
) -> Model:
    """Return the model of a network of The Payne.

    Args:
        path: the ``.npz`` file.
        wavelength: (pixels,) Å, or the ``.npy`` or ``.npz`` file that holds them; by default the file's own, or one
            beside it called ``apogee_wavelength.npz``, ``wavelength.npz`` or ``wavelength.npy``.
        medium: "air" or "vacuum"; known for the published APOGEE network of 25 labels and 7,214 pixels (vacuum).
        names: of the labels, in the order of the file; known for 25 labels.
        activation: of the hidden layers; by default a leaky ReLU, or a sigmoid where only that gives a spectrum.
        low, high: part of the pixels to take, Å.
        sampling: λ/Δλ of the pixels, where it is not to be measured.
        resolution: λ/FWHM of the broadening in the spectra; known for the published APOGEE network (22,500).

    Raises:
        BundleError: the file is damaged or no such network, or something about it must be said.
        LabelError, WavelengthError: names or wavelengths that cannot be used.
    """
    path = Path(path)
    arrays = read_arrays(path, (*KEYS, "wavelength", "wavelengths"))
    _check(arrays, path)
    n_labels, n_pixels = arrays["w_array_0"].shape[1], arrays["w_array_2"].shape[0]
    published = (n_labels, n_pixels) == (len(APOGEE_LABELS), APOGEE_PIXELS)
    if medium is None and not published:
        raise BundleError(f"{path} does not say whether its wavelengths are in air or in vacuum; give the medium")
    space = label_space(_names(names, n_labels, path), arrays["x_min"], arrays["x_max"], where=str(path))
    pixels = Pixels(
        _wavelength(path, arrays, wavelength, n_pixels), medium or "vacuum", low, high, sampling,
        22500.0 if resolution is None and published else resolution, ("lte", "plane_parallel") if published else (),
    )  # fmt: skip
    emulator, gaps = _emulator(arrays, space, pixels, activation, path)
    facts = {
        "activation": emulator.activation, "activation_stated": activation is not None,
        "gaps": [list(gap) for gap in gaps],
    }  # fmt: skip
    if published:
        facts["provenance"] = {
            "engine": "SYNTHE with ATLAS12 atmospheres (Kurucz), as the published network of so many labels and pixels",
        }
    return imported(emulator, path, sha256(path), "network of The Payne (npz)", facts)


def _check(arrays: dict[str, np.ndarray], path: Path) -> None:
    missing = [key for key in KEYS if key not in arrays]
    if missing:
        raise BundleError(f"{path} is no network of The Payne with two hidden layers: it lacks {', '.join(missing)}")
    for key in KEYS:
        if not finite_as_float32(arrays[key]):
            raise BundleError(f"{path}: {key} holds values that are not finite")
    if arrays["w_array_0"].ndim == 3:
        raise BundleError(
            f"{path} holds a small network for each pixel (the first version of The Payne), which cannot be imported; "
            "train a network on spectra that it predicts"
        )
    shapes = {key: arrays[key].shape for key in KEYS}
    first, second, last = (shapes[key] for key in KEYS[:3])
    fits = len(first) == len(second) == len(last) == 2 and min(first + second + last) > 0
    fits = fits and second[1] == first[0] and last[1] == second[0]
    fits = fits and [shapes[key] for key in KEYS[3:6]] == [(first[0],), (second[0],), (last[0],)]
    if not fits or shapes["x_min"] != (first[1],) or shapes["x_max"] != (first[1],):
        raise BundleError(
            f"{path}: shapes do not fit together: " + ", ".join(f"{key} {shape}" for key, shape in shapes.items())
        )


def _names(names: tuple[str, ...] | None, n_labels: int, path: Path) -> tuple[str, ...]:
    if names is not None:
        return names
    if n_labels == len(APOGEE_LABELS):
        return APOGEE_LABELS
    raise BundleError(f"{path} does not name its {n_labels} labels; give their names in the order of its inputs")


def _wavelength(
    path: Path, arrays: dict[str, np.ndarray], given: np.ndarray | Path | None, n_pixels: int
) -> np.ndarray:
    if given is None:
        own = [arrays[name] for name in ("wavelength", "wavelengths") if name in arrays]
        beside = [path.parent / name for name in BESIDE if (path.parent / name).is_file()]
        if not own and not beside:
            raise BundleError(
                f"{path} does not hold the wavelengths of its {n_pixels} pixels; give them (an array, an .npy or "
                f".npz file, in Å), or put the file beside it as one of {', '.join(BESIDE)}"
            )
        given = own[0] if own else beside[0]
    return wavelengths_from(given, n_pixels, path)


def _emulator(
    arrays: dict[str, np.ndarray], space: LabelSpace, pixels: Pixels, activation: str | None, path: Path
) -> tuple[Payne, list[tuple[float, float]]]:
    """Return the emulator with the activation that is stated, or with which the network gives spectra."""
    if activation is not None:
        check_activation(activation)
    tried = {}
    for name in ACTIVATIONS if activation is None else (activation,):
        weights = tuple(arrays[f"w_array_{i}"].T for i in range(3))
        biases = tuple(arrays[f"b_array_{i}"] for i in range(3))
        emulator, gaps = payne_of(Layers(weights, biases, 0.0, 1.0, name), space, pixels, path)
        tried[name] = central_flux(emulator)
        if is_normalised(tried[name]):
            return emulator, gaps
    first = next(iter(tried))
    raise not_normalised(
        tried[first], path, f"with the activation {' or '.join(tried)} it is no emulator of normalised spectra"
    )


def _read(path: Path, options: ImportOptions) -> Model:
    return read(
        path, wavelength=options.wavelength, medium=options.medium, names=options.names, low=options.low,
        high=options.high, sampling=options.sampling, resolution=options.resolution,
    )  # fmt: skip


FORMAT = Format("payne-network", "model", "a network of The Payne (.npz)", recognises, _read)
