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

    def below(name: str, limit: float) -> np.ndarray:
        return labels[:, space.names.index(name)] < limit if name in space.names else ~everywhere

    return np.stack(
        [
            ~space.inside(labels),
            below("teff", 5000) & ("no_molecules" in physics),
            everywhere & ("undersampled" in physics),
            below("logg", 1.5) & ("plane_parallel" in physics),
        ],
        axis=-1,
    )


def flags_for(space: LabelSpace, physics: tuple[str, ...], labels: Float[np.ndarray, " labels"]) -> tuple[str, ...]:
    """Return the flags of one label vector."""
    return tuple(
        name for name, applies in zip(FLAGS, flags_of(space, physics, labels[None])[0], strict=True) if applies
    )
