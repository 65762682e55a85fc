"""Emulators on disk: model folders, and adapter folders beside the model they change. Nothing read is ever executed."""

from pathlib import Path

from starpayne.bundle.adapter import ADAPTER, load_adapter, save_adapter
from starpayne.bundle.folder import MANIFEST, WEIGHTS, digest, load_folder, named_arrays, save
from starpayne.bundle.model import Model, Residuals
from starpayne.bundle.places import SHIPPED, locate
from starpayne.bundle.verification import Verification, verify

__all__ = [
    "ADAPTER",
    "MANIFEST",
    "Model",
    "Residuals",
    "SHIPPED",
    "Verification",
    "WEIGHTS",
    "digest",
    "load",
    "load_adapter",
    "locate",
    "named_arrays",
    "save",
    "save_adapter",
    "verify",
]


def load(path: str | Path | None = None, check_fingerprint: bool = True) -> Model:
    """Read a model folder, or an adapter folder with its base model, checking everything before it is used.

    Args:
        path: the folder, or the name of a model that comes with starpayne; by default that model, "mgb".
        check_fingerprint: recompute the stored spectrum and compare.

    Raises:
        BundleError: if the folder is missing, damaged, inconsistent, or of a newer schema; or an adapter whose base is
            not where it says.
    """
    folder = locate(path)
    if (folder / ADAPTER).exists():
        return load_adapter(folder, check_fingerprint=check_fingerprint)
    return load_folder(folder, check_fingerprint)
