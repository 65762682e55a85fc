"""Tamper with a model folder in every way: ``python hostile.py FOLDER SCRATCH TRIES``.

Run in a process of its own, without the run-time type checks of the tests, which users do not have. Each change must
end in a model or in a BundleError of one line, and take no memory.
"""

from __future__ import annotations

import copy
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from starpayne.bundle import MANIFEST, WEIGHTS, load
from starpayne.errors import BundleError

ORIGINAL, FOLDER, TRIES = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
WHOLE, TEXT = (ORIGINAL / WEIGHTS).read_bytes(), (ORIGINAL / MANIFEST).read_bytes()
MEMORY = 2**30
"""Bytes that refusing a folder may take, beyond what the process has."""

fuzz = settings(max_examples=TRIES, deadline=None, database=None, derandomize=TRIES < 1000)

NASTY = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.sampled_from([0, -1, 2**31, 2**63, 10**30]),
    st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([1e308, -1e-308, 0.0]), st.text(max_size=8),
    st.sampled_from(["", "../../etc/passwd", "\x00", "teff", "payne", "transformer", "air", "a" * 100_000]),
    st.lists(st.integers(-3, 10**12), max_size=4), st.just([[]]), st.just({}), st.just([1e9] * 3),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)  # fmt: skip


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Every place in a JSON document; of long lists the first two."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def put(document: Any, path: tuple, value: Any) -> Any:
    if not path:
        return value
    for key in path[:-1]:
        document = document[key]
    document[path[-1]] = value
    return None


def peak() -> int:
    """Most bytes that this process has held. Not ru_maxrss: a child begins with its parent's."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def refused_or_loaded(manifest: bytes, weights: bytes) -> None:
    """Load it: a model, or a BundleError of one line; and no memory taken."""
    (FOLDER / MANIFEST).write_bytes(manifest)
    (FOLDER / WEIGHTS).write_bytes(weights)
    before = peak()
    try:
        load(FOLDER)
    except BundleError as error:
        # One sentence; pytest would rewrite a plain assert.
        if "\n" in str(error) or len(str(error)) > 2000:
            raise AssertionError(f"not one sentence: {error}") from error
    taken = peak() - before
    if taken > MEMORY:
        raise AssertionError(f"{taken / 2**20:.0f} MB were taken")


@fuzz
@given(data=st.data())
def any_value_of_the_manifest_may_be_anything(data: st.DataObject) -> None:
    document = json.loads(TEXT)
    for _ in range(data.draw(st.integers(1, 2))):
        where = data.draw(st.sampled_from(list(places(document))[1:]))
        put(document, where, copy.deepcopy(data.draw(NASTY)))  # a second change may fall inside the first
        if not isinstance(document, dict):
            break
    refused_or_loaded(json.dumps(document).encode(), WHOLE)


@fuzz
@given(data=st.data())
def any_entry_of_the_manifest_may_be_missing(data: st.DataObject) -> None:
    document = json.loads(TEXT)
    *parents, last = data.draw(st.sampled_from([p for p in places(document) if p]))
    inside = document
    for key in parents:
        inside = inside[key]
    del inside[last]
    refused_or_loaded(json.dumps(document).encode(), WHOLE)


@fuzz
@given(position=st.integers(0, 10**9), new=st.binary(min_size=1, max_size=16), cut=st.booleans())
@example(position=0, new=b"\xff" * 8, cut=False)
@example(position=8, new=b"[" * 16, cut=False)
def any_bytes_of_the_weights_may_be_others(position: int, new: bytes, cut: bool) -> None:
    whole = bytearray(WHOLE)
    position %= len(whole)
    whole[position : position + len(new)] = new
    weights = bytes(whole[:position] if cut else whole)
    document = json.loads(TEXT)
    # As a careful forger would: size and checksum are those of the new file.
    document["weights"] = {"bytes": len(weights), "sha256": hashlib.sha256(weights).hexdigest()}
    refused_or_loaded(json.dumps(document).encode(), weights)


@fuzz
@given(position=st.integers(0, 10**9), new=st.binary(max_size=16), length=st.integers(0, 64))
def any_bytes_of_the_manifest_may_be_others(position: int, new: bytes, length: int) -> None:
    whole = bytearray(TEXT)
    position %= len(whole)
    whole[position : position + length] = new
    refused_or_loaded(bytes(whole), WHOLE)


if __name__ == "__main__":
    FOLDER.mkdir()
    any_value_of_the_manifest_may_be_anything()
    any_entry_of_the_manifest_may_be_missing()
    any_bytes_of_the_weights_may_be_others()
    any_bytes_of_the_manifest_may_be_others()
    print("refused or loaded")
