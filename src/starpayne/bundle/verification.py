"""Whether a model folder is what was saved, and computes here what it computed where it was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from starpayne.bundle.adapter import ADAPTER, ARRAYS, load_adapter
from starpayne.bundle.adapter import KIND as ADAPTER_KIND
from starpayne.bundle.folder import (
    KIND,
    MANIFEST,
    WEIGHTS,
    digest,
    fingerprint_difference,
    load_folder,
    platform_name,
    read_manifest,
)
from starpayne.bundle.places import locate


@dataclass(frozen=True)
class Verification:
    """What :func:`verify` found; a folder that is damaged raises instead.

    Args:
        weights: name of the file of weights; ``bytes`` and ``sha256`` of it, as stated and found.
        digest: of everything that decides what the model predicts.
        difference: largest difference in flux between the stored spectrum and the same computed here.
        allowed: what another machine's arithmetic may make of it.
        made_on, here: platforms.
        starpayne: version that wrote the folder.
    """

    weights: str
    bytes: int
    sha256: str
    digest: str
    difference: float
    allowed: float
    made_on: str
    here: str
    starpayne: str

    @property
    def reproduced(self) -> bool:
        """Whether the stored spectrum comes out here."""
        return self.difference <= self.allowed

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return asdict(self) | {"reproduced": self.reproduced}


def verify(path: str | Path | None = None) -> Verification:
    """Check a model or adapter folder (an adapter with its base), and recompute its stored spectrum.

    Args:
        path: the folder, or the name of a model that comes with starpayne; by default that model.

    Raises:
        BundleError: if the folder is missing, damaged, inconsistent, or of a newer schema. A spectrum that comes out
            different is no error here, but ``reproduced`` is False.
    """
    path = locate(path)
    adapter = (path / ADAPTER).exists()
    model = (load_adapter if adapter else load_folder)(path, check_fingerprint=False)
    name, kind, weights = (ADAPTER, ADAPTER_KIND, ARRAYS) if adapter else (MANIFEST, KIND, WEIGHTS)
    manifest: Mapping[str, Any] = read_manifest(path, name, kind)
    fingerprint = manifest["fingerprint"]
    return Verification(
        weights=weights,
        bytes=int(manifest["weights"]["bytes"]),
        sha256=str(manifest["weights"]["sha256"]),
        digest=digest(model.emulator),
        difference=fingerprint_difference(model.emulator, fingerprint, path / name),
        allowed=model.emulator.rounding,
        made_on=str(fingerprint.get("platform", "not stated")),
        here=platform_name(),
        starpayne=str(manifest.get("starpayne", "not stated")),
    )
