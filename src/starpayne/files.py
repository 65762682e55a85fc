"""Reading and writing files safely: strict JSON, and writes that appear whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tokenize import TokenError
from typing import Any
from zipfile import BadZipFile

from starpayne.errors import OutputExistsError, StarpayneError

MAX_JSON = 64 * 2**20

NUMPY_PROBLEMS = (
    OSError, EOFError, ValueError, LookupError, TypeError, ArithmeticError, SyntaxError, TokenError, BadZipFile,
    zlib.error, NotImplementedError, RuntimeError, MemoryError,
)  # fmt: skip
"""What NumPy and zipfile raise for a damaged ``.npy`` or ``.npz`` file."""


def read_json(path: Path, error: type[StarpayneError]) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        error: if the file is missing, larger than 64 MB, not UTF-8, not JSON, not an object, repeats a key, or holds
            NaN or Infinity, which JSON has not.
    """
    if not path.is_file():
        raise error(f"{path} is missing")
    if path.stat().st_size > MAX_JSON:
        raise error(f"{path} is larger than {MAX_JSON // 2**20} MB, which no such file needs")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) < len(pairs):
            repeated = [key for key, times in Counter(key for key, _ in pairs).items() if times > 1]
            raise ValueError(f"the key {min(repeated)!r} appears twice")
        return found

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not a number that JSON knows")

    try:
        data = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError) as problem:
        raise error(f"{path} cannot be read as JSON: {problem}") from problem
    if not isinstance(data, dict):
        raise error(f"{path} holds a {type(data).__name__}, not a JSON object")
    return data


def write_json(path: Path, data: Any) -> None:
    """Write JSON, replacing the file in one step."""
    write_bytes(path, (json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file beside its place, flush it to disk and rename it, so that no reader ever sees half of it."""
    draft = path.with_name(path.name + ".partial")
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def replace_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Fill a draft folder beside ``path`` and move it into place; only then delete what stood there."""
    draft, replaced = path.with_name(path.name + ".partial"), path.with_name(path.name + ".replaced")
    remove(draft)
    draft.mkdir(parents=True)
    fill(draft)
    remove(replaced)
    if path.exists():
        path.rename(replaced)
    draft.rename(path)
    remove(replaced)


def remove_output(path: Path, *signs: str) -> None:
    """Delete an earlier output that is to be overwritten: a folder that holds one of the names in ``signs``.

    Raises:
        OutputExistsError: for anything else.
    """
    refuse_foreign(path, *signs)
    remove(path)


def refuse_foreign(path: Path, *signs: str) -> None:
    """Raise OutputExistsError for a folder with something in it, and none of the names in ``signs``.

    ``--out . --overwrite`` must not delete a home directory.
    """
    if path.is_dir() and any(path.iterdir()) and not any((path / sign).exists() for sign in signs):
        without = f"neither {' nor '.join(signs)}" if len(signs) > 1 else f"no {''.join(signs)}"
        raise OutputExistsError(
            f"{path} holds {without}, so it is no earlier output; delete it yourself, or give another path"
        )


def remove(path: Path) -> None:
    """Delete a file or folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
