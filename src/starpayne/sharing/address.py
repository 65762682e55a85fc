"""Where a model lies on a hub: ``OWNER/NAME@REVISION``, or ``hf://OWNER/NAME@REVISION`` where a folder could stand."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from starpayne.errors import SharingError

SCHEME = "hf://"
MAIN = "main"
"""The branch that is meant where no revision is named."""

COMMIT = re.compile(r"[0-9a-f]{40}")
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_REPO = re.compile(f"{_PART}/{_PART}")
# Both become parts of paths in a cache: nothing that climbs out of it.
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*(?:/[A-Za-z0-9_][A-Za-z0-9._+-]*)*")
LONGEST = 96


@dataclass(frozen=True)
class Address:
    """A repository of a hub, and a revision of it.

    Args:
        repo: ``OWNER/NAME``.
        revision: branch, tag or full commit hash; None for the main branch.

    Raises:
        SharingError: if either is none.

    Example:
        >>> Address.parse("ada/sun@v1").revision
        'v1'
    """

    repo: str
    revision: str | None = None

    def __post_init__(self) -> None:
        repo, revision = self.repo, self.revision
        good = _REPO.fullmatch(repo) and len(repo) <= LONGEST and "--" not in repo and ".." not in repo
        if not good or repo.endswith(".git"):
            raise SharingError(
                f"{repo!r} is no name of a repository: write OWNER/NAME, of letters, digits, '-', '_' and '.', "
                f"{LONGEST} characters at most"
            )
        if revision is not None and (not _REVISION.fullmatch(revision) or ".." in revision):
            raise SharingError(f"{revision!r} is no revision: give a branch, a tag or a full commit hash")

    @classmethod
    def parse(cls, text: str) -> Address:
        """Return the address in ``OWNER/NAME[@REVISION]``, with or without ``hf://`` before it."""
        # A path that was made of it has lost a slash.
        bare = re.sub(r"^hf:/{1,2}", "", text)
        repo, at, revision = bare.partition("@")
        return cls(repo, revision if at else None)

    @property
    def pinned(self) -> bool:
        """Whether it names a commit, which is the same for all time."""
        return self.revision is not None and COMMIT.fullmatch(self.revision) is not None

    def at(self, revision: str) -> Address:
        """Return the same repository at another revision."""
        return replace(self, revision=revision)

    def __str__(self) -> str:
        return self.repo if self.revision is None else f"{self.repo}@{self.revision}"


def hub_address(where: str | Path | None) -> Address | None:
    """Return the address that is written in the place of a model folder, or None if it is a folder.

    Raises:
        SharingError: if it begins with ``hf://`` and no address follows.
    """
    if where is None:
        return None
    text = where.as_posix() if isinstance(where, Path) else where
    return Address.parse(text) if text.startswith("hf:/") else None
