"""Model folders that somebody has tampered with: refused with a sentence, whatever was changed; nothing else happens.

``STARPAYNE_FUZZ=100000`` tries so many changes of each kind rather than a few dozen.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from starpayne.bundle import ADAPTER, MANIFEST, WEIGHTS, Model, load, save
from starpayne.errors import BundleError

TRIES = int(os.environ.get("STARPAYNE_FUZZ", "30"))


@pytest.mark.parametrize("architecture", ["payne", "transformer", "additive"])
def test_a_model_that_was_tampered_with_is_refused_or_loads(
    architecture: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model: Model = request.getfixturevalue(f"{architecture}_model")
    original = save(model, tmp_path / "m.model")
    script = Path(__file__).with_name("hostile.py")
    done = subprocess.run(
        [sys.executable, script, original, tmp_path / "scratch", str(TRIES)], capture_output=True, text=True,
        timeout=300 + TRIES,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "refused or loaded\n"


# -- named cases, beside those of test_bundle.py ----------------------------------------------------------------------


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Damage that edits the manifest."""

    def damage(folder: Path) -> None:
        document = json.loads((folder / MANIFEST).read_text())
        change(document)
        (folder / MANIFEST).write_text(json.dumps(document))

    return damage


def forge(header: Callable[[dict[str, Any]], object], tail: bytes = b"") -> Callable[[Path], None]:
    """Damage that edits the header of the weights, and states their new size and checksum."""

    def damage(folder: Path) -> None:
        data = (folder / WEIGHTS).read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        document = json.loads(data[8 : 8 + length])
        changed = header(document)
        text = changed if isinstance(changed, bytes) else json.dumps(document).encode()
        restate(folder, struct.pack("<Q", len(text)) + text + data[8 + length :] + tail)

    return damage


def restate(folder: Path, data: bytes) -> None:
    (folder / WEIGHTS).write_bytes(data)
    stated = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    edit(lambda m: m.update(weights=stated))(folder)


def huge(name: str, size: int) -> Callable[[Path], None]:
    """Damage that makes a file of a size that takes no room on the disk."""

    def damage(folder: Path) -> None:
        with (folder / name).open("r+b") as file:
            file.truncate(size)
        if name == WEIGHTS:
            edit(lambda m: m["weights"].update(bytes=size))(folder)

    return damage


def replaced(name: str, by: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        by(folder / name)

    return damage


def first(header: dict[str, Any]) -> dict[str, Any]:
    return header["biases.0"]


DAMAGE = {
    "manifest not UTF-8": (lambda f: (f / MANIFEST).write_bytes(b'{"kind": "\xff\xfe"}'), r"cannot be read as JSON"),
    "manifest in UTF-16": (
        lambda f: (f / MANIFEST).write_text((f / MANIFEST).read_text(), "utf-16"),
        r"cannot be read as JSON",
    ),
    "manifest nested without end": (
        lambda f: (f / MANIFEST).write_text('{"a":' * 100_000 + "1" + "}" * 100_000),
        r"cannot be read as JSON",
    ),
    "manifest of a terabyte": (huge(MANIFEST, 2**40), r"emulator\.json is larger than 64 MB"),
    "manifest of zeros": (huge(MANIFEST, 2**20), r"cannot be read as JSON"),
    "manifest a folder": (replaced(MANIFEST, Path.mkdir), r"emulator\.json is missing"),
    "manifest a pipe": (replaced(MANIFEST, os.mkfifo), r"emulator\.json is missing"),
    "manifest a link to nowhere": (
        replaced(MANIFEST, lambda p: p.symlink_to("/nowhere")),
        r"emulator\.json is missing",
    ),
    "manifest a link out": (replaced(MANIFEST, lambda p: p.symlink_to("/etc/passwd")), r"cannot be read as JSON"),
    "weights of a terabyte": (huge(WEIGHTS, 2**40), r"the file is truncated or replaced"),
    "weights a folder": (replaced(WEIGHTS, Path.mkdir), r"weights\.safetensors is missing, or not a plain file"),
    "weights a pipe": (replaced(WEIGHTS, os.mkfifo), r"weights\.safetensors is missing, or not a plain file"),
    "weights a link out": (
        replaced(WEIGHTS, lambda p: p.symlink_to("/etc/passwd")),
        r"weights\.safetensors is missing, or not a plain file",
    ),
    "weights a pickle": (lambda f: restate(f, pickle.dumps({"center": [0.0]})), r"is not a safetensors file"),
    "a header longer than the file": (
        lambda f: restate(f, struct.pack("<Q", 2**62) + b"{}"),
        r"is not a safetensors file",
    ),
    "a header that is no JSON": (forge(lambda _: b"(1).__class__"), r"is not a safetensors file"),
    "a header with a key twice": (
        forge(lambda h: json.dumps(h).replace("{", '{"biases.0": {"dtype": "F32", ', 1).encode()),
        r"is not a safetensors file",
    ),
    "an array of petabytes": (
        forge(lambda h: first(h).update(shape=[2**40, 2**20])),
        r"is not a safetensors file",
    ),
    "a shape below zero": (forge(lambda h: first(h).update(shape=[-16])), r"is not a safetensors file"),
    "a shape that overflows": (forge(lambda h: first(h).update(shape=[2**63, 4])), r"is not a safetensors file"),
    "offsets beyond the end": (forge(lambda h: first(h).update(data_offsets=[0, 2**40])), r"is not a safetensors file"),
    "offsets that overlap": (
        forge(lambda h: first(h).update(data_offsets=h["center"]["data_offsets"])),
        r"is not a safetensors file",
    ),
    "bytes left over": (forge(lambda _: None, bytes(64)), r"is not a safetensors file"),
    "an unknown kind of number": (forge(lambda h: first(h).update(dtype="F4096")), r"is not a safetensors file"),
    "whole numbers": (forge(lambda h: first(h).update(dtype="I32")), r"arrays of type 'I32' are not known"),
    "size below zero": (edit(lambda m: m["weights"].update(bytes=-1)), r"emulator\.json says -1"),
    "size beyond numbers": (edit(lambda m: m["weights"].update(bytes="9" * 9000)), r"emulator\.json is inconsistent"),
    "checksum that is none": (edit(lambda m: m["weights"].update(sha256=None)), r"does not match its checksum"),
    "no labels": (edit(lambda m: m["label_space"].update(labels=[])), r"a label space needs at least one label"),
    "a label twice": (
        edit(lambda m: m["label_space"]["labels"].append(m["label_space"]["labels"][0])),
        r"labels given twice: teff",
    ),
    "many labels": (
        edit(lambda m: m["label_space"].update(labels=[{"name": f"x{i}", "low": 0, "high": 1} for i in range(10**4)])),
        r"10,000 labels with 1 constraints; at most 1,000 each",
    ),
    "a label that would run": (
        edit(lambda m: m["label_space"]["labels"][0].update(name="__import__('os').abort()")),
        r"is not an identifier",
    ),
    "a label that would colour the terminal": (
        edit(lambda m: m["label_space"]["labels"][0].update(name="\x1b[31mteff\n")),
        r"is not an identifier",
    ),
    "a constraint that would run": (
        edit(lambda m: m["label_space"].update(constraints=["0 <= exit() <= 1"])),
        r"write it as 'low <= label - label <= high'",
    ),
    "a medium that is none": (edit(lambda m: m["domain"].update(medium="ether")), r"ether"),
    "wavelengths that fall": (
        edit(lambda m: m["config"].update(wavelength=m["config"]["wavelength"][::-1])),
        r"increas",
    ),
    "wavelengths in words": (edit(lambda m: m["config"].update(wavelength=["blue"])), r"is inconsistent: ValueError"),
    "a path for a name": (edit(lambda m: m.update(architecture="../../payne")), r"unknown architecture"),
    "an architecture without end": (edit(lambda m: m.update(architecture="x" * 10**6)), r"unknown architecture"),
    "a fingerprint of a million wavelengths": (
        edit(lambda m: m["fingerprint"].update(wavelength=[5000.0 + i / 1e6 for i in range(10**6)])),
        r"the fingerprint cannot be recomputed: it has more than 10,000 wavelengths",
    ),
    "a fingerprint of no star": (edit(lambda m: m["fingerprint"].update(labels=[0.0] * 4)), r"fingerprint|outside"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_hostile_folder_is_refused_with_one_sentence_and_no_memory(
    name: str, payne_model: Model, tmp_path: Path
) -> None:
    damage, text = DAMAGE[name]
    folder = save(payne_model, tmp_path / "m.model")
    damage(folder)
    tracemalloc.start()
    try:
        with pytest.raises(BundleError, match=text) as caught:
            load(folder)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= 1000
    assert peak < 2**30


def test_bases_outside_of_the_folder_are_models_like_any_other(payne_model: Model, tmp_path: Path) -> None:
    """An update names its base by a path; what it leads to is read as a model, and refused if it is none."""
    folder = save(payne_model, tmp_path / "m.model")
    (folder / MANIFEST).rename(folder / ADAPTER)
    for base in ("/etc/passwd", "../" * 40 + "etc", "\x00", 3):
        document = json.loads((folder / ADAPTER).read_text())
        document |= {"kind": "starpayne-adapter", "base": {"path": base, "digest": "0" * 32}}
        (folder / ADAPTER).write_text(json.dumps(document))
        with pytest.raises(BundleError, match=r"base model that is not at|is inconsistent|emulator\.json is missing"):
            load(folder)
