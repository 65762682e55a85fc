"""The state of an unfinished training on disk: safetensors and JSON, each replaced in one step."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load as parse_safetensors
from safetensors.numpy import save as serialise_safetensors

from starpayne.errors import TrainingError
from starpayne.files import read_json, remove, write_bytes, write_json

STATE = "state.json"


def write_checkpoint(folder: Path, arrays: Any, facts: dict[str, Any]) -> None:
    """Store a pytree of arrays and plain JSON facts; the facts name the file of the arrays and are replaced last."""
    folder.mkdir(parents=True, exist_ok=True)
    leaves = jax.tree_util.tree_leaves(arrays)
    data = serialise_safetensors({f"{i:05d}": np.asarray(leaf) for i, leaf in enumerate(leaves)})
    checksum = hashlib.sha256(data).hexdigest()
    name = f"arrays-{checksum[:12]}.safetensors"
    write_bytes(folder / name, data)
    write_json(folder / STATE, {**facts, "arrays": name, "sha256": checksum})
    for old in folder.glob("arrays-*.safetensors"):
        if old.name != name:
            remove(old)


def read_facts(folder: Path) -> dict[str, Any]:
    """Return the facts of a checkpoint."""
    return read_json(folder / STATE, TrainingError)


def read_arrays(folder: Path, like: Any) -> Any:
    """Return the arrays of a checkpoint in the structure of ``like``.

    Raises:
        TrainingError: if they are damaged, or of another structure.
    """
    facts = read_facts(folder)
    path = folder / Path(str(facts["arrays"])).name
    remedy = f"delete {folder} to start this training afresh"
    if not path.is_file():
        raise TrainingError(f"the checkpoint {path} is missing; {remedy}")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != facts["sha256"]:
        raise TrainingError(f"the checkpoint {path} is damaged; {remedy}")
    tensors = parse_safetensors(data)
    leaves, structure = jax.tree_util.tree_flatten(like)
    found = [tensors[name] for name in sorted(tensors)]
    if [x.shape for x in found] != [np.shape(x) for x in leaves]:
        raise TrainingError(f"the checkpoint {path} belongs to another network; {remedy}")
    return jax.tree_util.tree_unflatten(
        structure, [jnp.asarray(x, leaf.dtype) for x, leaf in zip(found, leaves, strict=True)]
    )
