"""A model from a hub: looked at before it is downloaded, and verified before it is used or appears anywhere."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from starpayne import bundle
from starpayne.bundle import MANIFEST, WEIGHTS, Model, Verification
from starpayne.bundle.folder import KIND, MAX_WEIGHTS, read_manifest
from starpayne.errors import BundleError, OutputExistsError, SharingError
from starpayne.files import MAX_JSON, remove, replace_folder
from starpayne.sharing.address import COMMIT, MAIN, Address, hub_address
from starpayne.sharing.hub import TIMEOUT, cache_folder, client, is_offline, library, plainly

CARD = "README.md"
LIMITS = {MANIFEST: MAX_JSON, WEIGHTS: MAX_WEIGHTS, CARD: 2**20}
"""The files of a model, the only ones that are ever downloaded, and the most bytes of each."""


@dataclass(frozen=True)
class Pulled:
    """A model that came from a hub.

    Args:
        model: it, whole and verified.
        verification: checksums and fingerprint as found.
        repo: ``OWNER/NAME``.
        commit: full hash of the revision.
        path: the folder that was made of it; None if none was asked for.
    """

    model: Model
    verification: Verification
    repo: str
    commit: str
    path: Path | None = None

    @property
    def pinned(self) -> str:
        """The address that means exactly this revision, for all time."""
        return f"{self.repo}@{self.commit}"


@dataclass(frozen=True)
class _Files:
    commit: str
    paths: Mapping[str, Path]


def pull(
    address: str, out: str | Path | None = None, *, offline: bool = False, endpoint: str | None = None
) -> Pulled:  # fmt: skip
    """Download a model into the cache of huggingface_hub and verify it; with ``out``, make a model folder of it.

    Args:
        address: ``OWNER/NAME`` or ``OWNER/NAME@REVISION``: a branch, a tag or a full commit hash. A commit that is in
            the cache needs no network.
        out: folder to make; it appears whole or not at all.
        offline: use only what is in the cache.
        endpoint: URL of the hub; by default the library's own.

    Raises:
        SharingError: if the repository cannot be had, holds no model, or announces files that are too large.
        BundleError: if the model is damaged, or computes another spectrum than the one stored with it.
        OutputExistsError: if ``out`` exists.
        MissingExtraError: if huggingface_hub is not installed.
    """
    where, out = Address.parse(address), None if out is None else Path(out)
    if out is not None and out.exists():
        raise OutputExistsError(f"{out} exists; give another path")
    offline = offline or is_offline()
    held = _cached(where) if offline or where.pinned else None
    if held is None and offline:
        raise SharingError(
            f"{where} is not in the cache at {cache_folder()}, and the network is not to be used: "
            f"run starpayne pull {where} once without --offline (and without HF_HUB_OFFLINE)"
        )
    try:
        return _verified(held or _downloaded(where, endpoint, again=False), where, out)
    except BundleError:
        if offline:
            raise
        # What the cache holds may have been damaged there: a fresh copy decides.
        return _verified(_downloaded(where, endpoint, again=True), where, out)


def load(where: str | Path | None = None, check_fingerprint: bool = True) -> Model:
    """Return a model: from a folder, or from a hub if ``hf://OWNER/NAME[@REVISION]`` is written in its place.

    Args:
        where: the folder, address, or name of a model that comes with starpayne; by default that model, mgb.
        check_fingerprint: recompute the stored spectrum and compare; always done for a model from a hub.

    Raises:
        BundleError: see :func:`starpayne.bundle.load`.
        SharingError: see :func:`pull`.
    """
    address = hub_address(where)
    return bundle.load(where, check_fingerprint) if address is None else pull(str(address)).model


def _cached(address: Address) -> _Files | None:
    """Return the files of a revision if the cache holds a whole model, without a word to the network."""
    look = library().try_to_load_from_cache
    found = {name: look(address.repo, name, revision=address.revision or MAIN) for name in LIMITS}
    paths = {name: Path(path) for name, path in found.items() if isinstance(path, str)}
    if MANIFEST not in paths or WEIGHTS not in paths:
        return None
    return _Files(paths[MANIFEST].parent.name, paths)


def _downloaded(address: Address, endpoint: str | None, again: bool) -> _Files:
    """Return the files of a revision, downloaded as far as the cache does not hold them, or all of them ``again``."""
    hub = client(endpoint)
    with plainly("pull", address):
        info = hub.model_info(address.repo, revision=address.revision, files_metadata=True, timeout=TIMEOUT)
    sizes = {file.rfilename: file.size for file in info.siblings or ()}
    _refuse(address, sizes)
    commit = str(info.sha)
    if not COMMIT.fullmatch(commit) or (address.pinned and commit != address.revision):
        raise SharingError(f"the hub answers {address} with the commit {commit!r}: it is no hub, or not to be trusted")

    def fetch(name: str, revision: str, force: bool) -> Path:
        with plainly("pull", address):
            return Path(hub.hf_hub_download(address.repo, name, revision=revision, force_download=force))

    # All of one commit, even if the branch moves meanwhile.
    paths = {MANIFEST: fetch(MANIFEST, commit, again)}
    try:
        stated = read_manifest(paths[MANIFEST].parent, MANIFEST, KIND).get("weights")
    except BundleError as error:
        raise BundleError(_said(error, address.at(commit), paths[MANIFEST].parent)) from error
    if not isinstance(stated, dict) or stated.get("bytes") != sizes[WEIGHTS]:
        raise SharingError(
            f"{address}: {MANIFEST} describes other weights than the {sizes[WEIGHTS]} bytes of {WEIGHTS} that the hub "
            "announces; it is damaged, and its weights were not downloaded"
        )
    paths |= {name: fetch(name, commit, again) for name in (WEIGHTS, CARD) if name in sizes}
    if not address.pinned:
        # The cache notes which commit a name stands for, which is what --offline goes by.
        fetch(MANIFEST, address.revision or MAIN, False)
    return _Files(commit, paths)


def _refuse(address: Address, sizes: Mapping[str, int | None]) -> None:
    """Raise SharingError if a repository holds no model, or files of it are announced too large."""
    if MANIFEST not in sizes and bundle.ADAPTER in sizes:
        raise SharingError(
            f"{address} holds an update of a model without its base: ask its authors to merge it (starpayne merge)"
        )
    missing = [name for name in (MANIFEST, WEIGHTS) if name not in sizes]
    if missing:
        raise SharingError(f"{address} holds no {' and no '.join(missing)}: it is no model of starpayne")
    for name, most in LIMITS.items():
        size = sizes.get(name, 0)
        if size is None or not 0 <= size <= most:
            raise SharingError(
                f"{address}: {name} is announced with {size} bytes; a model has at most {most}: nothing was downloaded"
            )


def _verified(files: _Files, address: Address, out: Path | None) -> Pulled:
    """Return the model of the files, after a copy of them has been verified; the copy moves to ``out``, if any."""
    found: list[tuple[Model, Verification]] = []

    def fill(folder: Path) -> None:
        for name, path in files.paths.items():
            # Files of the cache are links, which a model folder must not have, and an edited copy must not damage it.
            shutil.copyfile(path, folder / name)
        try:
            verification = bundle.verify(folder)
            if not verification.reproduced:
                raise BundleError(
                    f"the spectrum stored with the model comes out different here: the flux differs by "
                    f"{verification.difference:.1e} (allowed {verification.allowed:.0e}; made on "
                    f"{verification.made_on})"
                )
            found.append((bundle.load(folder, check_fingerprint=False), verification))
        except BundleError as error:
            remove(folder)
            raise BundleError(_said(error, address.at(files.commit), folder)) from error

    if out is not None:
        replace_folder(out, fill)
    else:
        with tempfile.TemporaryDirectory(prefix="starpayne-") as place:
            folder = Path(place) / "model"
            folder.mkdir()
            fill(folder)
    model, verification = found[0]
    return Pulled(model, verification, address.repo, files.commit, out)


def _said(error: BundleError, pinned: Address, folder: Path) -> str:
    """Return what is wrong with a model, by its address: the folder it was looked at in is gone."""
    return f"{pinned}: {str(error).replace(f'{folder}/', '').replace(str(folder), 'it')}"
