"""A model to a hub: verified first, with a card made of what it knows of itself, in one commit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from starpayne import bundle
from starpayne.bundle import ADAPTER, MANIFEST, WEIGHTS
from starpayne.errors import BundleError, SharingError
from starpayne.sharing.address import MAIN, Address
from starpayne.sharing.card import FIGURE, Publication, model_card
from starpayne.sharing.hub import TIMEOUT, client, is_offline, library, plainly
from starpayne.sharing.pull import CARD, LIMITS

if TYPE_CHECKING:
    from huggingface_hub import HfApi


@dataclass(frozen=True)
class Pushed:
    """A model that was sent to a hub.

    Args:
        repo: ``OWNER/NAME``.
        commit: full hash of the revision.
        digest: of everything that decides what the model predicts.
        sha256: of its weights.
    """

    repo: str
    commit: str
    digest: str
    sha256: str

    @property
    def pinned(self) -> str:
        """The address that means exactly this revision, for all time."""
        return f"{self.repo}@{self.commit}"


def push(
    model: str | Path, repo: str, *, private: bool = False, message: str | None = None, revision: str | None = None,
    tag: str | None = None, licence: str | None = None, authors: Sequence[str] = (), endpoint: str | None = None,
) -> Pushed:  # fmt: skip
    """Send a model folder to a hub, with a model card; the repository is made if it is not there.

    Args:
        model: the folder.
        repo: ``OWNER/NAME``.
        private: make the repository a private one.
        message: of the commit.
        revision: branch to commit to, made from the main one if it is not there.
        tag: name for the commit, which must be new.
        licence: SPDX identifier, such as MIT or CC-BY-4.0.
        authors: whom the card is to name.
        endpoint: URL of the hub; by default the library's own.

    Raises:
        BundleError: if the model is damaged, or computes another spectrum than the one stored with it.
        SharingError: if it is an update of another model; or if the hub does not let it in.
        MissingExtraError: if huggingface_hub is not installed.
    """
    where = Address.parse(repo)
    if where.revision is not None:
        raise SharingError(f"{repo}: give the name alone, and --revision BRANCH or --tag TAG")
    for name in (revision, tag):
        if name is not None and Address(where.repo, name).pinned:
            raise SharingError(f"{name} is a commit, which nothing can be added to; give a branch or a new tag")
    publication = Publication(where.repo, licence, tuple(authors))
    hub, offline = client(endpoint), is_offline()
    if offline:
        raise SharingError("HF_HUB_OFFLINE forbids to use the network, which a push needs")
    files, found = _files(bundle.locate(model), publication)
    with plainly("push", where):
        if library().get_token() is None:
            raise SharingError("you are not logged in to the hub: run hf auth login, or set HF_TOKEN")
        if private:
            hub.create_repo(where.repo, private=True, exist_ok=True)
        else:
            # An organisation may have a default of its own.
            hub.create_repo(where.repo, exist_ok=True)
        _refuse(hub, where, private, tag)
        if revision is not None and revision != MAIN:
            hub.create_branch(where.repo, branch=revision, exist_ok=True)
        add = library().CommitOperationAdd
        commit = hub.create_commit(
            where.repo, [add(name, content) for name, content in files.items()], revision=revision or MAIN,
            commit_message=message or f"starpayne {version('starpayne')}: {found.digest}",
        ).oid  # fmt: skip
        if tag is not None:
            hub.create_tag(where.repo, tag=tag, revision=commit)
    return Pushed(where.repo, commit, found.digest, found.sha256)


def _files(path: Path, publication: Publication) -> tuple[dict[str, str | bytes], bundle.Verification]:
    """Return the content of the files to send (that of the weights as a path), and what was verified."""
    from starpayne.sharing.figure import error_figure

    if (path / ADAPTER).exists():
        raise SharingError(
            f"{path} is an update, which is nothing without its base: merge the two first "
            f"(starpayne merge {path} --out MODEL), and push the model"
        )
    found = bundle.verify(path)
    if not found.reproduced:
        raise BundleError(
            f"{path} does not compute here the spectrum stored with it: the flux differs by {found.difference:.1e} "
            f"(allowed {found.allowed:.0e}); starpayne verify says more"
        )
    model = bundle.load(path, check_fingerprint=False)
    figure = error_figure(model)
    card = model_card(model, found, publication, figure is not None).encode()
    manifest = (path / MANIFEST).read_bytes()
    if len(card) > LIMITS[CARD]:
        raise SharingError(f"the card of {path} has {len(card)} bytes; {LIMITS[CARD]} are the most that pull takes")
    files: dict[str, str | bytes] = {MANIFEST: manifest, WEIGHTS: str(path / WEIGHTS), CARD: card}
    return files | ({FIGURE: figure} if figure is not None else {}), found


def _refuse(hub: HfApi, where: Address, private: bool, tag: str | None) -> None:
    """Raise SharingError, before anything is uploaded, if a repository that is there is not one for this model."""
    info = hub.model_info(where.repo, timeout=TIMEOUT)
    names = {file.rfilename for file in info.siblings or ()}
    if private and not info.private:
        raise SharingError(f"{where} exists and is public: make it private on its page, or push to another name")
    if CARD in names and MANIFEST not in names:
        raise SharingError(f"{where} holds something else ({CARD}, no {MANIFEST}): push to another name")
    if tag is not None and tag in {known.name for known in hub.list_repo_refs(where.repo).tags}:
        raise SharingError(f"{where} has a tag {tag!r} already, which stays what it is: give another --tag")
