"""The folders that astro-emulators-toolkit (AET) writes: JSON metadata, safetensors weights, a manifest of checksums.

Layout of version 0.1.0: ``metadata.json``, ``weights/weights.safetensors``, ``bundle_integrity.json``, and where its
author stored them ``extras/*.safetensors`` and ``fingerprint_evaluation/*.safetensors`` (inputs and outputs).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from safetensors.numpy import load as parse_safetensors

from starpayne.emulators.layers import ACTIVATIONS
from starpayne.errors import BundleError
from starpayne.files import read_json
from starpayne.importers.safe_npz import finite_as_float32

METADATA, MANIFEST = "metadata.json", "bundle_integrity.json"
WEIGHTS = "weights/weights.safetensors"
PARAMETERS = "params/params/core_model/"
STATE = "params/model_state/"
EMPTY = "__empty_dict__"
VERSIONS = {"bundle_format_version": 1, "weights_layout": "params_plus_model_state_v1"}
ACTIVATIONS_OF = {"activation": "gelu", "output_activation": "linear"}
"""Settings, and what they are where nothing is said."""

MAX_FILE = 2**30
MAX_FILES = 1000


@dataclass(frozen=True)
class AetBundle:
    """What a folder of AET holds, its checksums compared.

    Args:
        path: the folder.
        name: of the model family, "mlp" or "transformer_payne".
        settings: of the model, as AET resolved them.
        weights: by name, such as ``layers/0/kernel``; float64.
        spec: AET's description of inputs, outputs, scaling and domain.
        roles: where in the trees of inputs and outputs the arrays stand.
        metadata: everything.
        sha256: of the file of weights.
    """

    path: Path
    name: str
    settings: Mapping[str, Any]
    weights: Mapping[str, np.ndarray]
    spec: Mapping[str, Any]
    roles: Mapping[str, Any]
    metadata: Mapping[str, Any]
    sha256: str

    def bounds(self, block: str, role: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Return lower and upper values, (n,) or (), that a block of the spec has for an array; None without."""
        trees = self.spec.get(block)
        if not isinstance(trees, Mapping):
            return None
        low, high = (leaf(trees.get(side), self.role(role)) for side in ("min_tree", "max_tree"))
        if low is None or high is None:
            return None
        try:
            found = np.asarray(low, np.float64), np.asarray(high, np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise BundleError(f"{self.path / METADATA}: {block} of {self.role(role)} is no array of numbers") from error
        if found[0].shape != found[1].shape or found[0].ndim > 1 or not all(np.all(np.isfinite(x)) for x in found):
            raise BundleError(f"{self.path / METADATA}: {block} of {self.role(role)} is no pair of finite limits")
        return found

    def role(self, name: str) -> str:
        """Return where an array stands in its tree, such as ``parameters`` for the role ``input_leaf``."""
        return str(self.roles.get(name, "")).partition("/")[2]

    def weight(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Return an array of weights; BundleError if it is not there, or of another shape."""
        if name not in self.weights:
            raise BundleError(f"{self.path / WEIGHTS} lacks the array {name}")
        array = self.weights[name]
        if array.shape != shape:
            raise BundleError(f"{self.path / WEIGHTS}: {name} has shape {array.shape}, its settings need {shape}")
        return array

    def extra(self, name: str) -> np.ndarray | None:
        """Return an array that the author stored beside the model; None where there is none of that name."""
        extras = self.metadata.get("extras")
        value = extras.get(name) if isinstance(extras, Mapping) else None
        if isinstance(value, Mapping):
            described = value.get("__aet_sidecar__")
            path = described.get("path") if isinstance(described, Mapping) else None
            arrays = read_tensors(self.path, path if isinstance(path, str) else "")
            if set(arrays) != {"value"}:
                raise BundleError(f"{self.path / str(path)} holds {sorted(arrays)}, not one array called 'value'")
            return arrays["value"]
        if value is None:
            return None
        try:
            return np.asarray(value, np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise BundleError(f"{self.path / METADATA}: the extra {name} is no array of numbers") from error

    def fingerprint(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]] | None:
        """Return the inputs and outputs that its author stored to recognise it by; None where there are none."""
        stated = self.metadata.get("fingerprint_evaluation")
        if not isinstance(stated, Mapping):
            return None
        names = [stated[side].get("filename") if isinstance(stated.get(side), Mapping) else None
                 for side in ("inputs", "outputs")]  # fmt: skip
        inputs, outputs = (read_tensors(self.path, name if isinstance(name, str) else "") for name in names)
        return inputs, outputs


def is_bundle(path: Path) -> bool:
    """Return whether a folder looks like one that AET wrote."""
    return all((path / name).is_file() for name in (METADATA, MANIFEST, WEIGHTS))


def read_bundle(path: Path) -> AetBundle:
    """Read a folder of AET.

    Raises:
        BundleError: a file is missing or does not match its checksum, a version is not known, weights are not finite.
    """
    for name in (METADATA, MANIFEST, WEIGHTS):
        if not (path / name).is_file():
            raise BundleError(f"{path} is no folder of astro-emulators-toolkit: {name} is missing")
    checksums = _check_manifest(path)
    metadata = read_json(path / METADATA, BundleError)
    for key, known in VERSIONS.items():
        if metadata.get(key) != known:
            raise BundleError(f"{path / METADATA}: {key} is {metadata.get(key)!r}; {known!r} can be imported")
    tensors = read_tensors(path, WEIGHTS)
    state = [name for name in tensors if not name.startswith(PARAMETERS) and name != STATE + EMPTY]
    if state:
        raise BundleError(f"{path / WEIGHTS} holds {state[0]}, which is no weight of a network that can be imported")
    weights = {name.removeprefix(PARAMETERS): array for name, array in tensors.items() if name.startswith(PARAMETERS)}
    for name, array in weights.items():
        if not finite_as_float32(array):
            raise BundleError(f"{path / WEIGHTS}: {name} holds values that are not finite")
    try:
        model = dict(metadata["resolved"]["model"])
        return AetBundle(
            path, str(model["name"]), dict(model["params"]), weights, dict(metadata["spec"]),
            dict(metadata["runtime_contract"]["role_paths"]), metadata, checksums[WEIGHTS],
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{path / METADATA} does not describe a model ({type(error).__name__}: {error})") from error


def activation_of(bundle: AetBundle) -> str:
    """Return our name of the activation of the layers; BundleError for one that cannot be imported."""
    stated = {name: str(bundle.settings.get(name, usual)) for name, usual in ACTIVATIONS_OF.items()}
    activation = {"swish": "silu"}.get(stated["activation"], stated["activation"])
    if activation not in ACTIVATIONS or stated["output_activation"] != "linear":
        raise BundleError(
            f"{bundle.path}: activation {activation!r} with output_activation {stated['output_activation']!r} cannot "
            f"be imported; those that can be are {', '.join(ACTIVATIONS)}, and a linear output"
        )
    return activation


def leaf(tree: Any, place: str) -> Any:
    """Return what stands at ``a/b`` in nested dictionaries; None where there is nothing."""
    for key in place.split("/"):
        if not isinstance(tree, Mapping) or key not in tree:
            return None
        tree = tree[key]
    return tree


def read_tensors(folder: Path, name: str) -> dict[str, np.ndarray]:
    """Return the arrays of a safetensors file within a folder, as float64."""
    path = _within(folder, name)
    try:
        arrays = parse_safetensors(path.read_bytes())
    except Exception as error:  # safetensors' own error class is not a subclass of ValueError in every version
        raise BundleError(f"{path} is not a safetensors file: {error}") from error
    for key, array in arrays.items():
        if array.dtype.kind not in "fiu":
            raise BundleError(f"{path}: {key} holds {array.dtype} values, not numbers")
    return {key: array.astype(np.float64) for key, array in arrays.items()}


def _within(folder: Path, name: str) -> Path:
    """Return the path of a plain file in a folder; a name from a file must not lead out of it."""
    parts = PurePosixPath(name).parts
    path = folder / name
    good = parts and not name.startswith("/") and not {"..", "."} & set(parts) and "\\" not in name and "\0" not in name
    if not good or not path.is_file() or not path.resolve().is_relative_to(folder.resolve()):
        raise BundleError(f"{folder}: {name[:100]!r} is no file within the folder")
    if path.stat().st_size > MAX_FILE:
        raise BundleError(f"{path} has more than {MAX_FILE // 2**20} MB, which no such network needs")
    return path


def _check_manifest(path: Path) -> dict[str, str]:
    """Return the checksums of the manifest, each compared with its file."""
    entries = read_json(path / MANIFEST, BundleError).get("tree")
    if not isinstance(entries, list) or not 0 < len(entries) <= MAX_FILES:
        raise BundleError(f"{path / MANIFEST} lists no files with their checksums")
    checksums = {}
    for entry in entries:
        if not isinstance(entry, Mapping) or not all(isinstance(entry.get(key), str) for key in ("path", "sha256")):
            raise BundleError(f"{path / MANIFEST} has an entry that is no path with its checksum")
        file = _within(path, entry["path"])
        if hashlib.sha256(file.read_bytes()).hexdigest() != entry["sha256"]:
            raise BundleError(f"{file} does not match the checksum in {MANIFEST}: it is damaged or was changed later")
        checksums[entry["path"]] = entry["sha256"]
    if not {METADATA, WEIGHTS} <= set(checksums):
        raise BundleError(f"{path / MANIFEST} lists no checksum of {METADATA} or {WEIGHTS}")
    return checksums
