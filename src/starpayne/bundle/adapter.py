"""An adapter folder: what fine-tuning changed of a base model, in low rank: ``adapter.safetensors``, ``adapter.json``.

It is a tenth of the model or less, and stands beside it: it names its base by a path from its own folder, and knows it
by the hash of its weights.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from starpayne.bundle.folder import (
    RESIDUAL_PREFIX,
    SCHEMA,
    compare_fingerprint,
    described,
    digest,
    fingerprint_of,
    load_folder,
    named_arrays,
    read_manifest,
    read_weights,
    residuals_in,
    serialised,
)
from starpayne.bundle.model import Model
from starpayne.bundle.places import locate
from starpayne.emulators import LowRank, Target, adapted, merged
from starpayne.emulators.low_rank import flat_shape, matrices
from starpayne.errors import BundleError, OutputExistsError, StarpayneError
from starpayne.files import replace_folder, write_json
from starpayne.wavelengths import check_wavelength

ADAPTER = "adapter.json"
ARRAYS = "adapter.safetensors"
KIND = "starpayne-adapter"
FIRST, SECOND, FULL = "first.", "second.", "full."
CENTER, WIDTH = "target.center", "target.width"


def save_adapter(
    model: Model, update: LowRank, target: Target, base: Model, base_path: str | Path, path: str | Path,
    overwrite: bool = False,
) -> Path:  # fmt: skip
    """Write what makes ``model`` of its base; the folder appears whole or not at all.

    Args:
        model: the fine-tuned model, with the update merged.
        update: the low-rank update of the base adapted to ``target``.
        target: what the base was adapted to.
        base, base_path: the base model, and the folder it was read from.

    Raises:
        OutputExistsError: if the path exists and ``overwrite`` is not set.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} exists; give another path, or --overwrite to replace it")
    own = _own_pixels(base)
    moved = own is not None and not np.array_equal(own, target.wavelength)
    arrays: dict[str, Any] = {FULL + name: leaf for name, leaf in update.full.items()}
    for name, (first, second) in update.factors.items():
        arrays |= {FIRST + name: first, SECOND + name: second}
    if moved or target.channels != base.emulator.channels:
        arrays |= {CENTER: target.center, WIDTH: target.width}
    weights = serialised(arrays, model.residuals)
    manifest = {
        "schema": SCHEMA,
        "kind": KIND,
        "starpayne": version("starpayne"),
        "base": {"path": _relative(Path(base_path), path), "digest": digest(base.emulator)},
        "label_space": target.space.to_dict(),
        "domain": asdict(target.domain),
        "channels": list(target.channels),
        "wavelength": target.wavelength.tolist() if moved else None,
        "weights": {"bytes": len(weights), "sha256": hashlib.sha256(weights).hexdigest()},
        "fingerprint": fingerprint_of(model.emulator),
        "validation": dict(model.validation),
        "training": dict(model.training),
    }

    def fill(draft: Path) -> None:
        (draft / ARRAYS).write_bytes(weights)
        write_json(draft / ADAPTER, manifest)

    replace_folder(path, fill)
    return path


def load_adapter(path: str | Path, base: Model | None = None, check_fingerprint: bool = True) -> Model:
    """Return the fine-tuned model of an adapter folder: its base with the update merged.

    Args:
        path: the folder.
        base: the base model; by default it is read from where the adapter says it is.
        check_fingerprint: recompute the stored spectrum and compare.

    Raises:
        BundleError: if the folder is damaged, the base is not there, or it is another model than the adapter was made
            from.
    """
    path = Path(path)
    manifest = read_manifest(path, ADAPTER, KIND)
    try:
        stated, weights = dict(manifest["base"]), dict(manifest["weights"])
        where, expected = path / str(stated["path"]), str(stated["digest"])
        if base is None:
            base = _base(where, expected, path)
        found = digest(base.emulator)
        if found != expected:
            raise BundleError(
                f"{path} is an update of another base model: its digest is {expected}, that of the one given is {found}"
            )
        tensors = read_weights(path / ARRAYS, ADAPTER, int(weights["bytes"]), str(weights["sha256"]))
        emulator = adapted(base.emulator, _target(manifest, base, tensors, path))
        emulator = merged(emulator, _update(tensors, emulator, path))
        model = Model(
            emulator,
            residuals_in(tensors, path, emulator.space),
            dict(manifest["training"]),
            dict(manifest["validation"]),
        )
        fingerprint = manifest["fingerprint"]
    except BundleError:
        raise
    except StarpayneError as error:
        raise BundleError(f"{path / ADAPTER}: {error}") from error
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise BundleError(f"{path / ADAPTER} is inconsistent: {type(error).__name__}: {error}") from error
    if check_fingerprint:
        compare_fingerprint(model.emulator, fingerprint, path / ADAPTER)
    return model


def _base(where: Path, expected: str, path: Path) -> Model:
    """Return the base model: from where the adapter says it is, or the one that comes with starpayne if that is it."""
    if where.is_dir():
        return load_folder(where)
    if locate().is_dir() and digest((shipped := load_folder(locate())).emulator) == expected:
        return shipped
    raise BundleError(
        f"{path} is an update of a base model that is not at {where}; put it there, or give the base model"
    )


def _own_pixels(base: Model) -> np.ndarray | None:
    """Return the pixels of an emulator that has some."""
    pixels = getattr(base.emulator, "wavelength", None)
    return None if pixels is None else pixels.values


def _relative(base: Path, adapter: Path) -> str:
    return Path(os.path.relpath(base.resolve(), adapter.resolve())).as_posix()


def _target(manifest: Mapping[str, Any], base: Model, tensors: Mapping[str, np.ndarray], path: Path) -> Target:
    space, domain, channels = described(manifest)
    stated, own = manifest["wavelength"], _own_pixels(base)
    if stated is not None:
        wavelength = check_wavelength(stated)
    else:
        wavelength = np.array([domain.low, domain.high]) if own is None else own
    emulator = base.emulator
    center, width = (
        np.asarray(tensors.get(name, own_scaling), np.float32)
        for name, own_scaling in ((CENTER, emulator.center), (WIDTH, emulator.width))
    )
    pixels = center.shape[-1] if own is None else len(wavelength)
    if not center.shape == width.shape == (len(channels), pixels):
        raise BundleError(
            f"{path}: the scaling {center.shape} and {width.shape} does not fit {pixels} pixels of {channels}"
        )
    if not (np.all(np.isfinite(center)) and np.all(np.isfinite(width)) and np.all(width > 0)):
        raise BundleError(f"{path}: the scaling holds values that are not finite, or widths that are not positive")
    return Target(space, domain, wavelength, channels, center, width)


def _update(tensors: Mapping[str, np.ndarray], emulator: Any, path: Path) -> LowRank:
    """Return the update, each array checked against the weight it changes."""
    shapes = {name: leaf.shape for name, leaf in named_arrays(emulator).items()}
    axes = matrices(emulator)
    factors, full = {}, {}
    for key, value in tensors.items():
        if key in (CENTER, WIDTH) or key.startswith(RESIDUAL_PREFIX):
            continue
        prefix = key[: key.find(".") + 1]
        name = key.removeprefix(prefix)
        known = prefix in (FIRST, SECOND, FULL) and name in shapes
        if not known or value.dtype != np.float32 or not np.all(np.isfinite(value)):
            raise BundleError(f"{path}: {key} is no finite float32 update of a weight of the base model")
        if prefix == FULL:
            good = value.shape == shapes[name]
            full[name] = jax.numpy.asarray(value)
        elif name in axes:
            stack, n_in, n_out = flat_shape(shapes[name], axes[name])
            first, second = tensors.get(FIRST + name), tensors.get(SECOND + name)
            good = first is not None and second is not None and first.ndim == second.ndim == 3
            if good and first is not None and second is not None:
                good = first.shape == (stack, n_in, second.shape[1]) and second.shape == (stack, first.shape[2], n_out)
                factors[name] = jax.numpy.asarray(first), jax.numpy.asarray(second)
        else:
            good = False
        if not good:
            raise BundleError(f"{path}: {key} of shape {value.shape} does not fit the weight {name} {shapes[name]}")
    return LowRank(factors, full)
