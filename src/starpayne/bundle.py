"""An emulator on disk: a folder with ``weights.safetensors`` and ``emulator.json``. Nothing read is ever executed."""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from safetensors.numpy import load as parse_safetensors
from safetensors.numpy import save as serialise_safetensors

from starpayne.emulators import CHANNELS, Emulator, SpectralDomain, architecture
from starpayne.errors import BundleError, OutputExistsError, StarpayneError
from starpayne.files import read_json, replace_folder, write_json
from starpayne.labels import MU, LabelSpace

SCHEMA = 1
KIND = "starpayne-emulator"
MANIFEST = "emulator.json"
WEIGHTS = "weights.safetensors"
MAX_WEIGHTS = 8 * 2**30
RESIDUAL_PREFIX = "residuals."


@dataclass(frozen=True)
class Residuals:
    """Low-rank covariance of an emulator's residuals on its validation spectra.

    Args:
        wavelength: (m,) Å, the emulator's native wavelengths.
        modes: (k, m) float32; the covariance is ``modes.T @ modes + diag(noise**2)``.
        noise: (m,) float32, what the modes leave.
    """

    wavelength: np.ndarray
    modes: np.ndarray
    noise: np.ndarray

    @classmethod
    def from_validation(cls, wavelength: np.ndarray, residuals: np.ndarray, rank: int = 16) -> Residuals:
        """Decompose (n_validation, m) residuals, predicted minus true, about zero (so that a bias counts as error)."""
        residuals = np.asarray(residuals, np.float64)
        n = len(residuals)
        _, singular, directions = np.linalg.svd(residuals, full_matrices=False)
        # With few validation spectra, half of them at most become modes: the rest must remain as noise.
        k = min(rank, max(1, n // 2))
        modes = singular[:k, None] * directions[:k] / math.sqrt(n)
        left = np.mean(residuals**2, axis=0) - np.sum(modes**2, axis=0)
        return cls(wavelength, modes.astype(np.float32), np.sqrt(np.maximum(left, 0)).astype(np.float32))


@dataclass(frozen=True)
class Model:
    """An emulator with what is known about it.

    Args:
        emulator: the network.
        residuals: covariance of its validation residuals; None if it was never validated.
        training: recipe, split, grid and history of its training; plain JSON data.
        validation: ``mae``, ``rmse``, ``n_spectra`` of its validation spectra.
    """

    emulator: Emulator
    residuals: Residuals | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    validation: Mapping[str, Any] = field(default_factory=dict)


def save(model: Model, path: str | Path, overwrite: bool = False) -> Path:
    """Write a model folder; it appears whole or not at all.

    Raises:
        OutputExistsError: if the path exists and ``overwrite`` is not set.
        BundleError: if a weight is not finite.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} exists; give another path, or --overwrite to replace it")
    emulator = model.emulator
    for name, leaf in named_arrays(emulator).items():
        if not np.all(np.isfinite(leaf)):
            raise BundleError(f"weight {name} holds values that are not finite; such a model is not saved")
    tensors = {name: np.asarray(leaf) for name, leaf in named_arrays(emulator).items()}
    if model.residuals is not None:
        for name, values in asdict(model.residuals).items():
            tensors[RESIDUAL_PREFIX + name] = np.ascontiguousarray(values)
    weights = serialise_safetensors(tensors)
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
        "fingerprint": _fingerprint(emulator),
        "validation": dict(model.validation),
        "training": dict(model.training),
    }

    def fill(draft: Path) -> None:
        (draft / WEIGHTS).write_bytes(weights)
        write_json(draft / MANIFEST, manifest)

    replace_folder(path, fill)
    return path


def load(path: str | Path, check_fingerprint: bool = True) -> Model:
    """Read a model folder, checking sizes, shapes and checksums before anything is used.

    Args:
        path: the folder.
        check_fingerprint: recompute the stored spectrum and compare.

    Raises:
        BundleError: if the folder is missing, damaged, inconsistent, or of a newer schema.
    """
    path = Path(path)
    if not path.is_dir():
        raise BundleError(f"no model folder at {path}")
    manifest = read_json(path / MANIFEST, BundleError)
    if manifest.get("kind") != KIND:
        raise BundleError(f"{path / MANIFEST} does not describe a starpayne emulator")
    schema = manifest.get("schema")
    if not isinstance(schema, int) or schema > SCHEMA:
        raise BundleError(
            f"{path} has model schema {schema}; this starpayne reads up to {SCHEMA}: install a newer starpayne"
        )
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
    tensors = _read_weights(path / WEIGHTS, size, checksum)
    emulator = _fill(skeleton, tensors, path)
    residuals = _residuals(tensors, path)
    if check_fingerprint:
        _compare_fingerprint(emulator, fingerprint, path)
    return Model(emulator, residuals, training, validation)


def named_arrays(tree: Any) -> dict[str, Any]:
    """Return the array leaves of a module under stable names such as ``block.query`` or ``weights.0``."""
    leaves = jax.tree_util.tree_leaves_with_path(eqx.filter(tree, _is_array))
    return {jax.tree_util.keystr(keys, simple=True, separator="."): leaf for keys, leaf in leaves}


def _is_array(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


def _skeleton(manifest: Mapping[str, Any]) -> Emulator:
    """Return the emulator of a manifest with shapes in the place of arrays: nothing is allocated."""
    channels = tuple(manifest["channels"])
    if channels not in (CHANNELS[:1], CHANNELS):
        raise BundleError(f"channels {channels} are not known; they are flux, then log10_continuum")
    space = LabelSpace.from_dict(manifest["label_space"])
    stated = dict(manifest["domain"])
    numbers = {name: float(stated[name]) for name in ("low", "high", "sampling")}
    tuples = {name: tuple(stated.get(name, ())) for name in ("physics", "mu")}
    domain = SpectralDomain(**{**stated, **numbers, **tuples})
    if domain.quantity == "intensity" and space.names[-1] != MU:
        raise BundleError(
            f"an intensity emulator has {MU!r} as its last label; the labels are {', '.join(space.names)}"
        )
    cls = architecture(manifest["architecture"])
    return eqx.filter_eval_shape(cls.skeleton, space, domain, channels, manifest["config"])


def _read_weights(path: Path, size: int, checksum: str) -> dict[str, np.ndarray]:
    if not path.is_file() or path.is_symlink():
        raise BundleError(f"{path} is missing, or not a plain file")
    actual = path.stat().st_size
    if actual != size or actual > MAX_WEIGHTS:
        raise BundleError(f"{path} has {actual} bytes, {MANIFEST} says {size}: the file is truncated or replaced")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != checksum:
        raise BundleError(f"{path} does not match its checksum: the file is damaged; get a fresh copy")
    try:
        return parse_safetensors(data)
    except Exception as error:  # safetensors' own error class is not a subclass of ValueError in every version
        raise BundleError(f"{path} is not a safetensors file: {error}") from error


def _fill(skeleton: Emulator, tensors: Mapping[str, np.ndarray], path: Path) -> Emulator:
    expected = named_arrays(skeleton)
    found = {name for name in tensors if not name.startswith(RESIDUAL_PREFIX)}
    if found != set(expected):
        missing, foreign = sorted(set(expected) - found), sorted(found - set(expected))
        raise BundleError(f"{path}: weights do not fit the architecture; missing {missing}, not expected {foreign}")
    for name, leaf in expected.items():
        tensor = tensors[name]
        if tensor.shape != leaf.shape or tensor.dtype != leaf.dtype:
            raise BundleError(
                f"{path}: weight {name} is {tensor.dtype} {tensor.shape}, "
                f"the architecture needs {leaf.dtype} {leaf.shape}"
            )
        if not np.all(np.isfinite(tensor)):
            raise BundleError(f"{path}: weight {name} holds values that are not finite")
    arrays, rest = eqx.partition(skeleton, _is_array)
    _, structure = jax.tree_util.tree_flatten(arrays)
    leaves = [jax.numpy.asarray(tensors[name]) for name in expected]
    return eqx.combine(jax.tree_util.tree_unflatten(structure, leaves), rest)


def _residuals(tensors: Mapping[str, np.ndarray], path: Path) -> Residuals | None:
    parts = {n.removeprefix(RESIDUAL_PREFIX): v for n, v in tensors.items() if n.startswith(RESIDUAL_PREFIX)}
    if not parts:
        return None
    if set(parts) != {"wavelength", "modes", "noise"}:
        raise BundleError(f"{path}: the residual covariance needs wavelength, modes and noise, found {sorted(parts)}")
    m = len(parts["wavelength"])
    if parts["modes"].ndim != 2 or parts["modes"].shape[1] != m or parts["noise"].shape != (m,):
        raise BundleError(f"{path}: the arrays of the residual covariance have different lengths")
    if not all(np.all(np.isfinite(v)) for v in parts.values()):
        raise BundleError(f"{path}: the residual covariance holds values that are not finite")
    return Residuals(**parts)


def _fingerprint(emulator: Emulator) -> dict[str, Any]:
    """One label vector and the spectrum it gives, to recognise a model that computes something else elsewhere."""
    labels = emulator.space.from_cube(np.full(len(emulator.space), 0.5))
    wavelength = np.linspace(emulator.domain.low, emulator.domain.high, 66)[1:-1]
    flux = emulator.predict(labels, wavelength).flux
    return {
        "labels": labels.tolist(), "wavelength": wavelength.tolist(), "flux": flux.astype(float).tolist(),
        "platform": f"{platform.machine()} {jax.default_backend()} jax {jax.__version__}",
    }  # fmt: skip


def _compare_fingerprint(emulator: Emulator, fingerprint: Mapping[str, Any], path: Path) -> None:
    try:
        flux = emulator.predict(np.array(fingerprint["labels"]), np.array(fingerprint["wavelength"])).flux
        difference = float(np.max(np.abs(flux - np.array(fingerprint["flux"]))))
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{path / MANIFEST}: the fingerprint cannot be recomputed: {error}") from error
    if not difference <= emulator.rounding:
        raise BundleError(
            f"{path} does not reproduce its fingerprint spectrum: the flux differs by {difference:.1e} "
            f"(allowed {emulator.rounding:.0e}; made on {fingerprint.get('platform')})"
        )
