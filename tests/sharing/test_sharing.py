"""Models go to a hub and come back the same; whatever is wrong on the way is one sentence, and nothing half appears."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import hub_standin
import numpy as np
import pytest
import toy
from hub_standin import READER, WRITER, Hub

import starpayne
from starpayne import bundle, sharing
from starpayne.bundle import MANIFEST, WEIGHTS, Model
from starpayne.errors import BundleError, MissingExtraError, OutputExistsError, SharingError
from starpayne.sharing import pull, push

REPO = "ada/sun-emulator"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub of one's own, an empty cache, and a token that may write."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", WRITER)
    with hub_standin.serving() as found:
        yield found


@pytest.fixture
def folder(payne_model: Model, tmp_path: Path) -> Path:
    return bundle.save(payne_model, tmp_path / "payne.model")


@pytest.fixture
def on_hub(hub: Hub, folder: Path) -> str:
    """The commit of a model that is on the hub as such files lie there, without starpayne's help."""
    return hub.add(REPO, {name: (folder / name).read_bytes() for name in (MANIFEST, WEIGHTS)})


def test_a_model_comes_back_as_it_went(hub: Hub, folder: Path, payne_model: Model, tmp_path: Path) -> None:
    sent = push(folder, REPO, message="first light", licence="MIT", endpoint=hub.url)
    got = pull(REPO, tmp_path / "back.model", endpoint=hub.url)
    repository = hub.repositories[REPO]
    assert got.commit == sent.commit == repository.refs["main"]
    assert repository.messages[-1] == "first light"
    assert set(repository.commits[sent.commit]) == {".gitattributes", MANIFEST, WEIGHTS, "README.md", "errors.png"}
    assert got.verification.digest == sent.digest == bundle.digest(payne_model.emulator)
    assert got.verification.sha256 == sent.sha256
    assert toy.same_weights(got.model, payne_model)
    labels = toy.labels(3)
    back = bundle.load(tmp_path / "back.model").emulator.predict(labels).flux
    assert np.array_equal(back, payne_model.emulator.predict(labels).flux)
    assert sorted(file.name for file in (tmp_path / "back.model").iterdir()) == ["README.md", MANIFEST, WEIGHTS]
    assert not any(file.is_symlink() for file in (tmp_path / "back.model").iterdir())
    assert sent.pinned == got.pinned == f"{REPO}@{sent.commit}"
    # The weights went to, and came from, another host, which was shown no token.
    assert hub.stray_tokens == []
    assert {f"PUT /store/{sent.sha256}", f"GET /large/{sent.sha256}"} <= set(hub.requests)


def test_pushing_the_same_again_makes_no_commit(hub: Hub, folder: Path) -> None:
    first = push(folder, REPO, endpoint=hub.url)
    assert push(folder, REPO, endpoint=hub.url).commit == first.commit
    assert len(hub.repositories[REPO].commits) == 2


def test_private_branch_and_tag(hub: Hub, folder: Path, additive_model: Model, tmp_path: Path) -> None:
    first = push(folder, REPO, private=True, tag="v1", endpoint=hub.url)
    other = bundle.save(additive_model, tmp_path / "other.model")
    second = push(other, REPO, revision="trial", endpoint=hub.url)
    repository = hub.repositories[REPO]
    assert repository.private
    assert repository.tags == {"v1": first.commit}
    assert repository.refs == {"main": first.commit, "trial": second.commit}
    assert pull(f"{REPO}@v1", endpoint=hub.url).commit == first.commit
    assert pull(f"{REPO}@trial", endpoint=hub.url).verification.digest == second.digest != first.digest
    uploaded = len(hub.requests)
    with pytest.raises(SharingError, match="has a tag 'v1' already, which stays what it is: give another --tag"):
        push(other, REPO, tag="v1", endpoint=hub.url)
    assert not any("preupload" in request for request in hub.requests[uploaded:])


def test_a_pinned_model_in_the_cache_needs_no_network(hub: Hub, on_hub: str, payne_model: Model) -> None:
    pinned = f"{REPO}@{on_hub}"
    pull(pinned, endpoint=hub.url)
    asked = len(hub.requests)
    assert toy.same_weights(pull(pinned, endpoint=hub.url).model, payne_model)
    assert toy.same_weights(starpayne.load(f"hf://{pinned}"), payne_model)
    assert len(hub.requests) == asked


def test_offline_means_the_cache(hub: Hub, on_hub: str, tmp_path: Path) -> None:
    words = f"{REPO} is not in the cache at {tmp_path / 'cache'}, and the network is not to be used: run starpayne pull"
    with pytest.raises(SharingError, match=words):
        pull(REPO, offline=True, endpoint=hub.url)
    assert hub.requests == []
    pull(REPO, endpoint=hub.url)
    asked = len(hub.requests)
    assert pull(REPO, tmp_path / "m", offline=True, endpoint=hub.url).commit == on_hub
    assert bundle.verify(tmp_path / "m").reproduced
    with pytest.raises(SharingError, match="@v1 is not in the cache"):
        pull(f"{REPO}@v1", offline=True, endpoint=hub.url)
    assert len(hub.requests) == asked


def test_settings_of_the_library_are_found_in_a_process_of_ones_own(tmp_path: Path) -> None:
    script = "from starpayne.sharing.hub import cache_folder, is_offline; print(is_offline(), cache_folder())"
    environment = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path)}
    assert toy.python(script, environment=environment).split() == ["True", str(tmp_path)]


def test_the_environment_can_forbid_the_network(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SharingError, match="is not in the cache"):
        pull(REPO, endpoint=hub.url)
    with pytest.raises(SharingError, match="HF_HUB_OFFLINE forbids"):
        push(folder, REPO, endpoint=hub.url)
    assert hub.requests == []


def test_a_branch_that_moves_is_followed_and_a_commit_stays(hub: Hub, on_hub: str, additive_model, tmp_path) -> None:
    first = pull(REPO, endpoint=hub.url)
    newer = bundle.save(additive_model, tmp_path / "newer.model")
    moved = push(newer, REPO, endpoint=hub.url)
    assert first.commit == on_hub != moved.commit
    assert pull(REPO, endpoint=hub.url).verification.digest == moved.digest
    assert pull(f"{REPO}@{on_hub}", endpoint=hub.url).verification.digest == first.verification.digest
    # Offline, the branch is what it was when it was last looked at.
    assert pull(REPO, offline=True).commit == moved.commit


def test_weights_that_were_tampered_with_are_refused(hub: Hub, on_hub: str, folder: Path, tmp_path: Path) -> None:
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-1] ^= 1
    hub.tamper(REPO, WEIGHTS, bytes(data))
    words = f"^{REPO}@{on_hub}: {WEIGHTS} does not match its checksum: the file is damaged; get a fresh copy$"
    with pytest.raises(BundleError, match=words):
        pull(REPO, tmp_path / "m", endpoint=hub.url)
    assert not (tmp_path / "m").exists()
    assert not (tmp_path / "m.partial").exists()


def test_a_spectrum_that_was_tampered_with_is_refused(hub: Hub, on_hub: str, folder: Path, tmp_path: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["fingerprint"]["flux"][3] += 0.01
    hub.tamper(REPO, MANIFEST, json.dumps(manifest).encode())
    with pytest.raises(BundleError, match=r"comes out different here: the flux differs by 1\.0e-02 \(allowed"):
        pull(REPO, tmp_path / "m", endpoint=hub.url)
    assert not (tmp_path / "m").exists()


def test_a_damaged_cache_is_mended(hub: Hub, on_hub: str, tmp_path: Path) -> None:
    pinned = f"{REPO}@{on_hub}"
    pull(pinned, endpoint=hub.url)
    cached = next((tmp_path / "cache").rglob(WEIGHTS)).resolve()
    data = bytearray(cached.read_bytes())
    data[-1] ^= 1
    cached.write_bytes(bytes(data))
    with pytest.raises(BundleError, match="does not match its checksum"):
        pull(pinned, offline=True)
    assert pull(pinned, endpoint=hub.url).commit == on_hub
    assert pull(pinned, offline=True).commit == on_hub


def test_what_holds_no_model_is_not_downloaded(hub: Hub, on_hub: str) -> None:
    hub.add("ada/other", {"README.md": b"# another thing", "config.json": b"{}"})
    hub.add("ada/update", {"adapter.json": b"{}", "adapter.safetensors": b""})
    for repo, words in {
        "ada/other": "holds no emulator.json and no weights.safetensors: it is no model of starpayne",
        "ada/update": "holds an update of a model without its base",
    }.items():
        with pytest.raises(SharingError, match=words):
            pull(repo, endpoint=hub.url)
    hub.announced = {WEIGHTS: 2**43}
    with pytest.raises(
        SharingError, match=r"weights.safetensors is announced with 8796093022208 bytes; a model has at"
    ):
        pull(REPO, endpoint=hub.url)
    assert not any("resolve" in request for request in hub.requests)
    hub.announced = {WEIGHTS: 10}
    with pytest.raises(SharingError, match=r"describes other weights than the 10 bytes of weights.safetensors"):
        pull(REPO, endpoint=hub.url)
    assert not any(request.endswith(WEIGHTS) for request in hub.requests)


def test_an_output_that_exists_is_left_alone(hub: Hub, on_hub: str, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "precious").touch()
    with pytest.raises(OutputExistsError, match="m exists; give another path"):
        pull(REPO, tmp_path / "m", endpoint=hub.url)
    assert hub.requests == []
    assert (tmp_path / "m" / "precious").exists()


def test_who_may_not_is_told_what_to_do(hub: Hub, on_hub: str, folder: Path, monkeypatch) -> None:
    hub.add("ada/hidden", {}, private=True)
    hub.add("ada/gated", dict(hub.repositories[REPO].commits[on_hub]), gated=True)
    with pytest.raises(SharingError, match=r"ada/gated is gated: ask for access on its page, then run hf auth login"):
        pull("ada/gated", endpoint=hub.url)
    with pytest.raises(SharingError, match=r"ada/none is not on the hub, or not for you to see: check the name"):
        pull("ada/none", endpoint=hub.url)
    with pytest.raises(SharingError, match=f"{REPO} has no revision 'v9': give a branch, a tag or a full commit hash"):
        pull(f"{REPO}@v9", endpoint=hub.url)
    monkeypatch.setenv("HF_TOKEN", READER)
    with pytest.raises(SharingError, match=rf"your token may not write to {REPO}: use one with write access"):
        push(folder, REPO, endpoint=hub.url)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(SharingError, match=r"the hub does not know who you are: run hf auth login, or set") as refused:
        push(folder, REPO, endpoint=hub.url)
    assert "hf_secret" not in str(refused.value)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(SharingError, match=r"you are not logged in to the hub: run hf auth login, or set HF_TOKEN"):
        push(folder, REPO, endpoint=hub.url)
    with pytest.raises(SharingError, match=r"ada/hidden is not on the hub, or not for you to see"):
        pull("ada/hidden", endpoint=hub.url)


def test_a_hub_in_trouble(hub: Hub, on_hub: str) -> None:
    hub.failing = (429, {"Retry-After": "30"})
    with pytest.raises(SharingError, match="the hub has had too many requests from you; try again in 30 s"):
        pull(REPO, endpoint=hub.url)
    hub.failing = (503, {})
    with pytest.raises(SharingError, match=r"the hub has trouble of its own \(status 503\); try again later"):
        pull(REPO, endpoint=hub.url)
    with pytest.raises(SharingError, match=r"the hub cannot be reached \(\w+\): check the network; what was pulled"):
        pull(REPO, endpoint="http://127.0.0.1:9")
    with pytest.raises(SharingError, match="'ftp://x' is no URL of a hub"):
        pull(REPO, endpoint="ftp://x")


def test_a_damaged_model_is_not_pushed(hub: Hub, folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["fingerprint"]["flux"][3] += 0.01
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="does not compute here the spectrum stored with it"):
        push(folder, REPO, endpoint=hub.url)
    (folder / WEIGHTS).write_bytes(b"")
    with pytest.raises(BundleError, match="the file is truncated or replaced"):
        push(folder, REPO, endpoint=hub.url)
    assert hub.requests == []


def test_an_update_is_merged_first(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "update").mkdir()
    (tmp_path / "update" / "adapter.json").write_text("{}")
    with pytest.raises(SharingError, match=r"is an update, which is nothing without its base: merge the two first"):
        push(tmp_path / "update", REPO, endpoint=hub.url)
    assert hub.requests == []


def test_nothing_of_others_is_overwritten(hub: Hub, on_hub: str, folder: Path) -> None:
    hub.add("ada/other", {"README.md": b"# another thing"})
    with pytest.raises(SharingError, match=r"ada/other holds something else \(README.md, no emulator.json\)"):
        push(folder, "ada/other", endpoint=hub.url)
    with pytest.raises(SharingError, match=f"{REPO} exists and is public: make it private on its page"):
        push(folder, REPO, private=True, endpoint=hub.url)
    with pytest.raises(SharingError, match="is a commit, which nothing can be added to"):
        push(folder, REPO, revision="a" * 40, endpoint=hub.url)
    with pytest.raises(SharingError, match="give the name alone, and --revision BRANCH or --tag TAG"):
        push(folder, f"{REPO}@v1", endpoint=hub.url)
    assert hub.repositories[REPO].refs == {"main": on_hub}


def test_without_the_library_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    for deed in (lambda: pull(REPO), lambda: push(folder, REPO)):
        with pytest.raises(MissingExtraError, match=r'run: pip install "starpayne\[hub\]"'):
            deed()


def test_the_library_is_not_imported_before_it_is_needed(folder: Path) -> None:
    script = f"""
        import sys, starpayne, starpayne.sharing

        starpayne.load({str(folder)!r})
        print([m for m in ("huggingface_hub", "matplotlib", "starpayne.plots") if m in sys.modules])
    """
    assert toy.python(script).strip() == "[]"


def test_a_local_folder_is_loaded_as_ever(folder: Path, payne_model: Model) -> None:
    assert toy.same_weights(sharing.load(folder), payne_model)
    shutil.rmtree(folder)
    with pytest.raises(BundleError, match="no model folder at"):
        sharing.load(folder)
