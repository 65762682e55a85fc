"""Models of astro-emulators-toolkit (AET): its MLP as a Payne, its TransformerPayne as ours, with their predictions.

AET leaves scaling to its user: labels enter scaled to 0 … 1, fluxes leave as they were trained. What the author
recorded (``reference_scaling_inputs``, ``reference_scaling_outputs``, ``input_domain``, names, wavelengths) becomes
part of the model here; what was not recorded has to be given.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from starpayne.bundle import Model
from starpayne.errors import BundleError
from starpayne.importers.aet_bundle import METADATA, WEIGHTS, AetBundle, activation_of, is_bundle, leaf, read_bundle
from starpayne.importers.aet_fingerprint import fingerprint_difference
from starpayne.importers.aet_transformer import transformer_of
from starpayne.importers.foreign_labels import label_space
from starpayne.importers.foreign_networks import (
    Layers,
    Pixels,
    central_flux,
    imported,
    is_normalised,
    not_normalised,
    payne_of,
    wavelengths_from,
)
from starpayne.importers.formats import Format, ImportOptions
from starpayne.labels import LabelSpace

PARAMETER_ROLES = {"mlp": "input_leaf", "transformer_payne": "parameter_leaf"}
WAVELENGTH_EXTRA = "wavelength_angstrom"
MOST_HIDDEN = 100


def recognises(path: Path) -> bool:
    """Return whether a folder is one that AET wrote."""
    return path.is_dir() and is_bundle(path)


def read(
    path: str | Path,
    *,
    labels: LabelSpace | None = None,
    names: tuple[str, ...] | None = None,
    wavelength: np.ndarray | Path | None = None,
    wavelength_scale: str | None = None,
    medium: str | None = None,
    low: float | None = None,
    high: float | None = None,
    sampling: float | None = None,
    resolution: float | None = None,
) -> Model:
    """Return the model of a folder that AET wrote; its fingerprint, where it has one, is computed once more.

    Args:
        path: the folder.
        labels: label table, where the folder does not say how labels are scaled: the network takes the bounds (or
            ``Label.scale``) as 0 and 1. Where the folder does say so, it gives the names and bounds.
        names: of the labels, in the order of the network's inputs, where neither the folder nor ``labels`` names them.
        wavelength: (n,) Å, or a file of them: the pixels of an MLP, the range and sampling of a TransformerPayne. By
            default the folder's extra ``wavelength_angstrom``.
        wavelength_scale: what a TransformerPayne was given as wavelengths, "linear" (Å) or "log10" (of Å); by default
            told from the limits or the unit that the folder states.
        medium: of the wavelengths, "air" or "vacuum": no folder states it.
        low, high: range in Å, of a TransformerPayne where the folder states none; part of the pixels of an MLP.
        sampling: λ/Δλ of the spectra a TransformerPayne was trained on, where no wavelengths are stated.
        resolution: λ/FWHM of the broadening in the spectra.

    Raises:
        BundleError: the folder is damaged, or of another version; something that it does not state must be given; the
            network cannot be expressed here; or it does not reproduce its fingerprint.
    """
    path = Path(path)
    bundle = read_bundle(path)
    if bundle.name not in PARAMETER_ROLES:
        known = ", ".join(PARAMETER_ROLES)
        raise BundleError(f"{path} holds a model of the kind {bundle.name!r}; those that can be imported are {known}")
    if medium is None:
        raise BundleError(f"{path} does not say whether its wavelengths are in air or in vacuum; give the medium")
    space = _space(bundle, labels, names)
    if wavelength is None:
        wavelength = bundle.extra(WAVELENGTH_EXTRA)
    stated = None if wavelength is None else wavelengths_from(wavelength, None, path)
    try:
        if bundle.name == "transformer_payne":
            pixels = Pixels(np.zeros(0), medium, low, high, sampling, resolution)
            emulator, gaps = transformer_of(bundle, space, stated, wavelength_scale, pixels), []
        else:
            if stated is None:
                raise BundleError(f"{path} does not state the wavelengths of its pixels; give them in Å")
            pixels = Pixels(stated, medium, low, high, sampling, resolution)
            emulator, gaps = payne_of(_layers(bundle, space, len(stated)), space, pixels, path)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"{path / METADATA}: its settings cannot be used: {error}") from error
    flux = central_flux(emulator)
    if not is_normalised(flux):
        raise not_normalised(flux, path, "how outputs are scaled has to be recorded in its reference_scaling_outputs")
    facts = {
        "model": bundle.name, "release": bundle.metadata.get("release"),
        "fingerprint_difference": fingerprint_difference(bundle, emulator, stated),
        "gaps": [list(gap) for gap in gaps],
        "provenance": {"engine": "not stated by the file", "versions": _versions(bundle.metadata)},
    }  # fmt: skip
    return imported(emulator, path, bundle.sha256, "astro-emulators-toolkit bundle", facts)


def _versions(metadata: Mapping[str, Any]) -> dict[str, Any]:
    stated = metadata.get("provenance")
    stated = stated if isinstance(stated, Mapping) else {}
    return {str(stated.get("toolkit", "toolkit")): str(stated.get("toolkit_version", "not stated"))}


def _space(bundle: AetBundle, labels: LabelSpace | None, names: tuple[str, ...] | None) -> LabelSpace:
    role = PARAMETER_ROLES[bundle.name]
    where = bundle.path
    n = bundle.weights[first].shape[0] if (first := _first_array(bundle)) else 0
    scale, domain = bundle.bounds("reference_scaling_inputs", role), bundle.bounds("input_domain", role)
    if labels is not None and (len(labels) != n or labels.held):
        raise BundleError(f"{where}: the label table has {len(labels)} labels, the network {n}")
    if scale is None:
        if labels is None:
            raise BundleError(
                f"{where} does not record how its labels are scaled (reference_scaling_inputs); give the label table "
                "whose bounds the network takes as 0 and 1"
            )
        return labels
    zero, one = (np.broadcast_to(x, (n,)) if x.ndim == 0 else x for x in scale)
    if labels is not None:
        return label_space(labels.names, labels.low, labels.high, (zero, one), str(where))
    if names is None:
        stated = leaf(leaf(bundle.spec, "inputs/channel_names_tree"), bundle.role(role))
        if not isinstance(stated, list):
            raise BundleError(f"{where} does not name its {n} labels; give their names in the order of its inputs")
        names = tuple(str(name) for name in stated)
    low, high = (zero, one) if domain is None else (np.broadcast_to(x, (n,)) if x.ndim == 0 else x for x in domain)
    if not len(zero) == len(low) == n:
        raise BundleError(f"{where / METADATA}: limits of {len(zero)} and {len(low)} labels; the network has {n}")
    return label_space(names, low, high, (zero, one), str(where))


def _first_array(bundle: AetBundle) -> str:
    name = "layers/0/kernel" if bundle.name == "mlp" else "param_embedding/w0"
    if name not in bundle.weights or bundle.weights[name].ndim != 2:
        raise BundleError(f"{bundle.path / WEIGHTS} lacks the matrix {name}")
    return name


def _layers(bundle: AetBundle, space: LabelSpace, n_pixels: int) -> Layers:
    """Return the layers of AET's MLP; its inputs run from 0 to 1 where ours run from -1/2 to 1/2."""
    settings = bundle.settings
    hidden = [int(n) for n in settings.get("hidden_sizes", (256, 256, 256))]
    activation = activation_of(bundle)
    if len(hidden) > MOST_HIDDEN:
        raise BundleError(f"{bundle.path}: {len(hidden)} hidden layers; at most {MOST_HIDDEN} are read")
    last = f"layers/{len(hidden)}/kernel"
    if last in bundle.weights and bundle.weights[last].shape[-1:] != (n_pixels,):
        raise BundleError(
            f"{bundle.path}: the network has {bundle.weights[last].shape[-1]} outputs and {n_pixels} wavelengths were "
            "given"
        )
    sizes = [len(space.inputs), *hidden, n_pixels]
    bias = bool(settings.get("use_bias", True))
    weights, biases = [], []
    for i in range(len(sizes) - 1):
        weights.append(bundle.weight(f"layers/{i}/kernel", (sizes[i], sizes[i + 1])))
        biases.append(bundle.weight(f"layers/{i}/bias", (sizes[i + 1],)) if bias else np.zeros(sizes[i + 1]))
    biases[0] = biases[0] + 0.5 * weights[0].sum(axis=0)
    low, high = bundle.bounds("reference_scaling_outputs", "output_leaf") or (np.zeros(()), np.ones(()))
    if low.shape not in ((), (1,), (n_pixels,)) or not np.all(high > low):
        raise BundleError(f"{bundle.path / METADATA}: the scaling of the outputs is no pair of limits that increase")
    return Layers(tuple(weights), tuple(biases), low, high - low, activation)


def _read(path: Path, options: ImportOptions) -> Model:
    return read(
        path, labels=options.space, names=options.names, wavelength=options.wavelength,
        wavelength_scale=options.wavelength_scale, medium=options.medium, low=options.low, high=options.high,
        sampling=options.sampling, resolution=options.resolution,
    )  # fmt: skip


FORMAT = Format("aet", "model", "a bundle of astro-emulators-toolkit", recognises, _read)
