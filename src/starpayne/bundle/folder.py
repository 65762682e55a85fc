"""A model folder: ``weights.safetensors`` and ``emulator.json``. Nothing read is ever executed."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from safetensors import deserialize as parse_safetensors
from safetensors.numpy import save as serialise_safetensors

from starpayne.bundle.model import Model, Residuals, size_features
from starpayne.emulators import CHANNELS, Emulator, SpectralDomain, architecture
from starpayne.emulators.base import PRECISIONS
from starpayne.errors import BundleError, OutputExistsError, StarpayneError
from starpayne.files import read_json, refuse_foreign, replace_folder, write_json
from starpayne.labels import MU, LabelSpace

SCHEMA = 1
KIND = "starpayne-emulator"
MANIFEST = "emulator.json"
WEIGHTS = "weights.safetensors"
MAX_WEIGHTS = 8 * 2**30
RESIDUAL_PREFIX = "residuals."
MOST_COMPARED = 10_000
"""Wavelengths of a fingerprint: a model file must not make its reader work without bound."""


def save(model: Model, path: str | Path, overwrite: bool = False, precision: str = "float32") -> Path:
    """Write a model folder; it appears whole or not at all.

    Args:
        model: the model.
        path: the folder to make.
        overwrite: replace what is there.
        precision: "float32", or "bfloat16" for weights rounded to 8 significant bits, which take half the space (but
            for the scaling of the output); what is computed with them is float32 in either case.

    Raises:
        OutputExistsError: if the path exists and ``overwrite`` is not set, or it is a folder that holds no model.
        BundleError: if a weight is not finite, or the precision is not known.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} exists; give another path, or --overwrite to replace it")
    refuse_foreign(path, MANIFEST, "adapter.json", "checkpoint")
    if precision not in PRECISIONS:
        raise BundleError(f"precision {precision!r} is not known; weights are saved as {' or '.join(PRECISIONS)}")
    emulator = model.emulator
    arrays = named_arrays(emulator)
    if precision == "bfloat16":
        # Not the scaling of the output: 8 bits of the mean flux would be an offset of every spectrum. Nor where the
        # spectra of a correction are: amplitudes cancel between neighbours.
        kept = ("center", "width", "base.center", "base.width", "points", "lengths")
        arrays = {n: leaf if n in kept else leaf.astype(jax.numpy.bfloat16) for n, leaf in arrays.items()}
        # The fingerprint is that of the model that will be read.
        emulator = replace_arrays(emulator, [leaf.astype(jax.numpy.float32) for leaf in arrays.values()])
    weights = serialised(arrays, model.residuals)
    manifest = {
        "schema": SCHEMA,
        "kind": KIND,
        "starpayne": version("starpayne"),
        "architecture": emulator.architecture,
        "config": emulator.config,
        "channels": list(emulator.channels),
        "label_space": emulator.space.to_dict(),
        "domain": asdict(emulator.domain),
        "weights": {"bytes": len(weights), "sha256": hashlib.sha256(weights).hexdigest()},
        "fingerprint": fingerprint_of(emulator),
        "validation": dict(model.validation),
        "training": dict(model.training),
    }

    def fill(draft: Path) -> None:
        (draft / WEIGHTS).write_bytes(weights)
        write_json(draft / MANIFEST, manifest)

    replace_folder(path, fill)
    return path


def load_folder(path: str | Path, check_fingerprint: bool = True) -> Model:
    """Read a model folder, checking sizes, shapes and checksums before anything is used.

    Args:
        path: the folder.
        check_fingerprint: recompute the stored spectrum and compare.

    Raises:
        BundleError: if the folder is missing, damaged, inconsistent, or of a newer schema.
    """
    path = Path(path)
    manifest = read_manifest(path, MANIFEST, KIND)
    try:
        skeleton = _skeleton(manifest)
        stated = manifest["weights"]
        size, checksum = int(stated["bytes"]), str(stated["sha256"])
        training, validation = dict(manifest["training"]), dict(manifest["validation"])
        fingerprint = manifest["fingerprint"]
    except StarpayneError as error:
        raise BundleError(f"{path / MANIFEST}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise BundleError(f"{path / MANIFEST} is inconsistent: {type(error).__name__}: {error}") from error
    tensors = read_weights(path / WEIGHTS, MANIFEST, size, checksum)
    emulator = _fill(skeleton, tensors, path)
    residuals = residuals_in(tensors, path, emulator.space)
    if check_fingerprint:
        compare_fingerprint(emulator, fingerprint, path / MANIFEST)
    return Model(emulator, residuals, training, validation)


def named_arrays(tree: Any) -> dict[str, Any]:
    """Return the array leaves of a module under stable names such as ``block.query`` or ``weights.0``."""
    leaves = jax.tree_util.tree_leaves_with_path(eqx.filter(tree, _is_array))
    return {jax.tree_util.keystr(keys, simple=True, separator="."): leaf for keys, leaf in leaves}


def _is_array(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


def read_manifest(path: Path, name: str, kind: str) -> dict[str, Any]:
    """Return the JSON object of a folder, of this kind and of a schema that is known here."""
    if not path.is_dir():
        raise BundleError(f"no model folder at {path}")
    manifest = read_json(path / name, BundleError)
    if manifest.get("kind") != kind:
        raise BundleError(f"{path / name} does not describe a {kind.replace('-', ' ')}")
    schema = manifest.get("schema")
    if not isinstance(schema, int) or schema > SCHEMA:
        raise BundleError(
            f"{path} has model schema {schema}; this starpayne reads up to {SCHEMA}: install a newer starpayne"
        )
    return manifest


def described(manifest: Mapping[str, Any]) -> tuple[LabelSpace, SpectralDomain, tuple[str, ...]]:
    """Return label space, spectral domain and channels of a manifest."""
    channels = tuple(manifest["channels"])
    if channels not in (CHANNELS[:1], CHANNELS):
        raise ValueError(f"channels {channels} are not known; they are flux, then log10_continuum")
    space = LabelSpace.from_dict(manifest["label_space"])
    return space, SpectralDomain.from_dict(manifest["domain"]), channels


def serialised(arrays: Mapping[str, Any], residuals: Residuals | None) -> bytes:
    """Return arrays by name, and the residual covariance, as a safetensors file; refused if any is not finite."""
    for name, leaf in arrays.items():
        if not np.all(np.isfinite(leaf)):
            raise BundleError(f"weight {name} holds values that are not finite; such a model is not saved")
    tensors = {name: np.ascontiguousarray(leaf) for name, leaf in arrays.items()}
    if residuals is not None:
        for name, values in asdict(residuals).items():
            tensors[RESIDUAL_PREFIX + name] = np.ascontiguousarray(values)
    return serialise_safetensors(tensors)


def digest(emulator: Emulator) -> str:
    """Return a hash of everything that decides what an emulator predicts."""
    text = json.dumps([emulator.architecture, emulator.config, emulator.space.to_dict(), asdict(emulator.domain)])
    # A bound of 4000 comes back from a file as 4000.0.
    text = json.dumps(json.loads(text, parse_int=float))
    found = hashlib.sha256(text.encode())
    for name, leaf in named_arrays(emulator).items():
        found.update(name.encode() + np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()[:32]


def _skeleton(manifest: Mapping[str, Any]) -> Emulator:
    """Return the emulator of a manifest with shapes in the place of arrays: nothing is allocated."""
    space, domain, channels = described(manifest)
    if domain.quantity == "intensity" and space.names[-1] != MU:
        raise BundleError(
            f"an intensity emulator has {MU!r} as its last label; the labels are {', '.join(space.names)}"
        )
    cls = architecture(manifest["architecture"])
    return eqx.filter_eval_shape(cls.skeleton, space, domain, channels, manifest["config"])


def read_weights(path: Path, manifest: str, size: int, checksum: str) -> dict[str, np.ndarray]:
    """Return the arrays of a safetensors file, of the size and checksum that its manifest states."""
    if not path.is_file() or path.is_symlink():
        raise BundleError(f"{path} is missing, or not a plain file")
    actual = path.stat().st_size
    if actual != size or actual > MAX_WEIGHTS:
        raise BundleError(f"{path} has {actual} bytes, {manifest} says {size}: the file is truncated or replaced")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != checksum:
        raise BundleError(f"{path} does not match its checksum: the file is damaged; get a fresh copy")
    try:
        return {name: _array(stated) for name, stated in parse_safetensors(data)}
    except Exception as error:  # safetensors' own error class is not a subclass of ValueError in every version
        raise BundleError(f"{path} is not a safetensors file: {error}") from error


def _array(stated: Mapping[str, Any]) -> np.ndarray:
    """Return one tensor of a safetensors file; safetensors' own function for NumPy knows no bfloat16."""
    kinds = {"F32": np.float32, "F64": np.float64, "BF16": jax.numpy.bfloat16}
    if stated["dtype"] not in kinds:
        raise ValueError(f"arrays of type {str(stated['dtype'])!r} are not known; they are {', '.join(kinds)}")
    return np.frombuffer(stated["data"], kinds[stated["dtype"]]).reshape(stated["shape"])


def _fill(skeleton: Emulator, tensors: Mapping[str, np.ndarray], path: Path) -> Emulator:
    expected = named_arrays(skeleton)
    found = {name for name in tensors if not name.startswith(RESIDUAL_PREFIX)}
    if found != set(expected):
        missing, foreign = sorted(set(expected) - found), sorted(found - set(expected))
        raise BundleError(f"{path}: weights do not fit the architecture; missing {missing}, not expected {foreign}")
    for name, leaf in expected.items():
        tensor = tensors[name]
        if tensor.shape != leaf.shape or str(tensor.dtype) not in PRECISIONS:
            raise BundleError(
                f"{path}: weight {name} is {tensor.dtype} {tensor.shape}, "
                f"the architecture needs {leaf.dtype} {leaf.shape}"
            )
        if not np.all(np.isfinite(tensor)):
            raise BundleError(f"{path}: weight {name} holds values that are not finite")
    return replace_arrays(skeleton, [jax.numpy.asarray(tensors[name], jax.numpy.float32) for name in expected])


def replace_arrays(emulator: Emulator, leaves: list[jax.Array]) -> Emulator:
    """Return the emulator with other arrays, given in the order of :func:`named_arrays`."""
    arrays, rest = eqx.partition(emulator, _is_array)
    _, structure = jax.tree_util.tree_flatten(arrays)
    return eqx.combine(jax.tree_util.tree_unflatten(structure, leaves), rest)


def residuals_in(tensors: Mapping[str, np.ndarray], path: Path, space: LabelSpace) -> Residuals | None:
    parts = {n.removeprefix(RESIDUAL_PREFIX): v for n, v in tensors.items() if n.startswith(RESIDUAL_PREFIX)}
    if not parts:
        return None
    # Models of before residuals had a size have none.
    if set(parts) not in ({"wavelength", "modes", "noise"}, {"wavelength", "modes", "noise", "size"}):
        raise BundleError(f"{path}: the residual covariance needs wavelength, modes and noise, found {sorted(parts)}")
    m = len(parts["wavelength"])
    if parts["modes"].ndim != 2 or parts["modes"].shape[1] != m or parts["noise"].shape != (m,):
        raise BundleError(f"{path}: the arrays of the residual covariance have different lengths")
    if parts.get("size", np.zeros(0)).shape not in ((0,), (size_features(space),)):
        raise BundleError(f"{path}: the size of the residuals does not fit the labels")
    if not all(np.all(np.isfinite(v)) for v in parts.values()):
        raise BundleError(f"{path}: the residual covariance holds values that are not finite")
    return Residuals(**parts)


def fingerprint_of(emulator: Emulator) -> dict[str, Any]:
    """One label vector and the spectrum it gives, to recognise a model that computes something else elsewhere."""
    labels = emulator.space.from_cube(np.full(len(emulator.space), 0.5))
    wavelength = np.linspace(emulator.domain.low, emulator.domain.high, 66)[1:-1]
    flux = emulator.predict(labels, wavelength).flux
    return {
        "labels": labels.tolist(), "wavelength": wavelength.tolist(), "flux": flux.astype(float).tolist(),
        "platform": platform_name(),
    }  # fmt: skip


def platform_name() -> str:
    """Return what decides how a spectrum is rounded here."""
    return f"{platform.machine()} {jax.default_backend()} jax {jax.__version__}"


def fingerprint_difference(emulator: Emulator, fingerprint: Mapping[str, Any], manifest: Path) -> float:
    """Return the largest difference in flux between the stored spectrum and the same computed now."""
    try:
        if len(fingerprint["wavelength"]) > MOST_COMPARED:
            raise ValueError(f"it has more than {MOST_COMPARED:,} wavelengths")
        flux = emulator.predict(np.array(fingerprint["labels"]), np.array(fingerprint["wavelength"])).flux
        return float(np.max(np.abs(flux - np.array(fingerprint["flux"]))))
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{manifest}: the fingerprint cannot be recomputed: {error}") from error


def compare_fingerprint(emulator: Emulator, fingerprint: Mapping[str, Any], manifest: Path) -> None:
    """Raise BundleError if a model computes another spectrum than it did where it was made."""
    difference = fingerprint_difference(emulator, fingerprint, manifest)
    if not difference <= emulator.rounding:
        raise BundleError(
            f"{manifest.parent} does not reproduce its fingerprint spectrum: the flux differs by {difference:.1e} "
            f"(allowed {emulator.rounding:.0e}; made on {fingerprint.get('platform')})"
        )
