"""The folder of a training: whether it is free, holds the same training, finished or not, or something else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starpayne import bundle
from starpayne.errors import OutputExistsError, TrainingError
from starpayne.files import read_json, remove_output
from starpayne.training.checkpoint import STATE

CHECKPOINT = "checkpoint"


def finished_before(path: Path, identity: Mapping[str, Any], overwrite: bool = False) -> bundle.Model | None:
    """Return the model if this very training is finished at the path; None if it is to be begun or gone on with there.

    Args:
        path: the model folder to be.
        identity: what decides the outcome of the training.
        overwrite: delete what another training left there.

    Raises:
        OutputExistsError: the path holds something else.
    """
    if overwrite:
        remove_output(path, bundle.MANIFEST, CHECKPOINT)
    if not path.exists():
        return None
    if (path / bundle.MANIFEST).exists():
        model = bundle.load(path)
        if model.training.get("identity") == identity:
            if "stopped" not in model.training:
                return model
            raise OutputExistsError(
                f"{path} holds the best weights of this very training, which stopped: {model.training['stopped']}; "
                "change the recipe and give another path, or --overwrite"
            )
    elif (path / CHECKPOINT / STATE).exists():
        facts = read_json(path / CHECKPOINT / STATE, TrainingError)
        if facts.get("identity") == identity:
            return None
    elif path.is_dir() and all(entry.name == CHECKPOINT for entry in path.iterdir()):
        # Empty, or killed before its first checkpoint was whole.
        return None
    raise OutputExistsError(
        f"{path} exists and is not this training ({_differences(path, identity)}); give another path, or --overwrite"
    )


def _differences(path: Path, identity: Mapping[str, Any]) -> str:
    """Say in what the training that left something at the path differs from this one."""
    manifest, state = path / bundle.MANIFEST, path / CHECKPOINT / STATE
    if manifest.exists():
        stored = bundle.load(path).training.get("identity") or {}
    elif state.exists():
        stored = read_json(state, TrainingError).get("identity") or {}
    else:
        return "it holds something else"
    changed = []
    for part in ("recipe", "distillation"):
        before, now = stored.get(part) or {}, identity.get(part) or {}
        changed += [f"{k} was {before.get(k)!r}" for k in {**before, **now} if before.get(k) != now.get(k)]
    return ", ".join(changed) or "another grid, split or --n-train"
