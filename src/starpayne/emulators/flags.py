"""What a user should know about a predicted spectrum: labels outside the training domain, physics that is missing."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from starpayne.labels import LabelSpace

FLAGS = ("extrapolated", "no_molecules_below_5000_K", "undersampled", "plane_parallel_below_logg_1.5")


def flags_of(
    space: LabelSpace, physics: tuple[str, ...], labels: Float[np.ndarray, "n labels"]
) -> Bool[np.ndarray, "n flags"]:
    """Return which of ``FLAGS`` apply to each label vector, given what the physics of the model leaves out."""
    everywhere = np.ones(len(labels), bool)
    return np.stack(
        [
            ~space.inside(labels),
            _below(space, labels, "teff", 5000) & ("no_molecules" in physics),
            everywhere & ("undersampled" in physics),
            _below(space, labels, "logg", 1.5) & ("plane_parallel" in physics),
        ],
        axis=-1,
    )


def named_flags(
    space: LabelSpace, physics: tuple[str, ...], labels: Float[np.ndarray, "n labels"]
) -> tuple[tuple[str, ...], ...]:
    """Return the flags of each label vector."""
    return tuple(
        tuple(name for name, applies in zip(FLAGS, row, strict=True) if applies)
        for row in flags_of(space, physics, labels)
    )


def flags_for(space: LabelSpace, physics: tuple[str, ...], labels: Float[np.ndarray, " labels"]) -> tuple[str, ...]:
    """Return the flags of one label vector."""
    return named_flags(space, physics, labels[None])[0]


def _below(space: LabelSpace, labels: Float[np.ndarray, "n labels"], name: str, limit: float) -> Bool[np.ndarray, " n"]:
    """Whether a label that the space may not have is less than a limit."""
    return labels[:, space.names.index(name)] < limit if name in space.names else np.zeros(len(labels), bool)
