"""The library that speaks with a hub, and what its errors mean to a user."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from starpayne.errors import MissingExtraError, SharingError, StarpayneError
from starpayne.sharing.address import Address

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TIMEOUT = 30.0
"""Seconds that a hub may take to say what a repository holds."""

LOG_IN = "run hf auth login, or set HF_TOKEN"
Deed = Literal["push", "pull"]


def library() -> ModuleType:
    """Return the package huggingface_hub.

    Raises:
        MissingExtraError: if it is not installed.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingExtraError(f'huggingface_hub is missing ({error}); run: pip install "starpayne[hub]"') from error
    return huggingface_hub


def client(endpoint: str | None) -> HfApi:
    """Return a client of the hub at a URL, or of the library's own.

    The library finds the token where ``hf auth login`` or HF_TOKEN left it; nothing here ever sees it.
    """
    if endpoint is not None and not re.fullmatch(r"https?://[^\s/@]+(/[^\s@]*)?", endpoint):
        raise SharingError(f"--endpoint {endpoint!r} is no URL of a hub: it begins with https:// and holds no password")
    url = endpoint.rstrip("/") if endpoint else None
    return library().HfApi(endpoint=url, library_name="starpayne", library_version=version("starpayne"))


@contextmanager
def plainly(deed: Deed, address: Address) -> Iterator[None]:
    """Turn whatever goes wrong between here and a hub into one sentence with the remedy."""
    try:
        yield
    except StarpayneError:
        raise
    except Exception as error:
        raise SharingError(_sentence(error, deed, address)) from error


def _sentence(error: Exception, deed: Deed, address: Address) -> str:
    from huggingface_hub.utils import GatedRepoError, RevisionNotFoundError

    chain = list(_causes(error))
    repo, owner = address.repo, address.repo.split("/")[0]
    answers = [answer for cause in chain if (answer := getattr(cause, "response", None)) is not None]
    status = answers[0].status_code if answers else None
    if any(isinstance(cause, GatedRepoError) for cause in chain):
        return f"{repo} is gated: ask for access on its page, then {LOG_IN}"
    if any(isinstance(cause, RevisionNotFoundError) for cause in chain):
        return f"{repo} has no revision {address.revision or 'main'!r}: give a branch, a tag or a full commit hash"
    if status == 401 and deed == "push":
        return f"the hub does not know who you are: {LOG_IN} to a token that may write"
    if status in (401, 404):
        return f"{repo} is not on the hub, or not for you to see: check the name; if it is private, {LOG_IN}"
    if status == 403:
        may = f"write to {repo}: use one with write access, of somebody who belongs to {owner}"
        return f"your token may not {may if deed == 'push' else f'read {repo}: use one with read access to it'}"
    if status == 429:
        wait = str(answers[0].headers.get("Retry-After", ""))
        return f"the hub has had too many requests from you; try again {f'in {wait} s' if wait.isdigit() else 'later'}"
    if status is not None and status >= 500:
        return f"the hub has trouble of its own (status {status}); try again later"
    if status is not None:
        said = next((text for cause in chain if (text := getattr(cause, "server_message", None))), str(error))
        return f"the hub refused to {deed} {repo} (status {status}): {said}"
    if any(_is_network(cause) for cause in chain):
        remedy = "" if deed == "push" else "; what was pulled before can be had with --offline, or HF_HUB_OFFLINE=1"
        return f"the hub cannot be reached ({type(chain[-1]).__name__}): check the network{remedy}"
    return f"{repo} could not be {deed}ed: {type(error).__name__}: {error}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_network(error: Any) -> bool:
    # The library has changed its HTTP client more than once; a full disk is an OSError too, but has no such home.
    at_home_in = type(error).__module__.split(".")[0]
    client_error = at_home_in.rstrip("0123456789") in ("httpx", "httpcore", "requests", "urllib")
    return client_error or isinstance(error, (ConnectionError, TimeoutError))


def is_offline() -> bool:
    """Return whether the user has forbidden the library to use the network (HF_HUB_OFFLINE)."""
    return bool(_constants().HF_HUB_OFFLINE)


def cache_folder() -> str:
    """Return where the library keeps what it has downloaded."""
    return os.fspath(_constants().HF_HUB_CACHE)


def _constants() -> ModuleType:
    # The package imports this part of itself only when something needs it.
    return import_module(f"{library().__name__}.constants")
