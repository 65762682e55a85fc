"""How a model on a hub is written, and what is no such address; none of it asks a hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from starpayne.errors import SharingError
from starpayne.sharing import Address, hub_address, pull, push


@pytest.mark.parametrize("name", ["../x", "a/../b", "sun", "a/b/c", "a/b--c", "a/.b", "a/b.git", "", "a/" + "b" * 95])
def test_a_name_that_is_none(name: str, tmp_path: Path) -> None:
    with pytest.raises(SharingError, match=r"is no name of a repository: write OWNER/NAME"):
        pull(name)
    with pytest.raises(SharingError, match=r"is no name of a repository"):
        push(tmp_path, name)


def test_addresses() -> None:
    assert hub_address("hf://ada/sun@v1") == hub_address(Path("hf://ada/sun@v1")) == Address("ada/sun", "v1")
    assert hub_address("hf:/ada/sun") == Address("ada/sun")
    assert hub_address("ada/sun") is None
    assert Address("ada/sun", "a" * 40).pinned
    assert not Address("ada/sun", "a" * 39).pinned
    for revision in ("", "../main", "a b", "-x", "/x", "x/../y"):
        with pytest.raises(SharingError, match="is no revision: give a branch, a tag or a full commit hash"):
            Address.parse(f"ada/sun@{revision}")
