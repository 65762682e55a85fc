"""Which spectra of a grid a model is held against, with their labels in the model's order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from starpayne.bundle import Model
from starpayne.errors import GridError
from starpayne.grid import Grid, labels_with_mu


@dataclass(frozen=True)
class HeldOut:
    """Rows of a grid to hold a model against.

    Args:
        rows: (n,) of the grid, synthesized and inside the model's label domain; for a model of intensities each row
            stands once per viewing angle.
        labels: (n, n_labels) in the model's order, physical units.
        n_outside: rows left out because they are outside that domain.
        split: what the rows are, in words.
        angles: (n,) indices of the grid's viewing angles, for a model of intensities.
    """

    rows: np.ndarray
    labels: np.ndarray
    n_outside: int
    split: str
    angles: np.ndarray | None = None


def held_out(model: Model, grid: Grid, rows: Sequence[int] | None = None, at_most: int | None = None) -> HeldOut:
    """Choose spectra that the model has not seen.

    By default these are the test spectra of the split that is stored in the model, if it was trained on this grid, or
    else the grid's own test spectra (all of them, if it names none). Rows that were never synthesized are passed
    over.

    Args:
        model: a trained model.
        grid: a grid with the same label names.
        rows: rows to take instead.
        at_most: take that many of them, evenly spaced. They are chosen before any is left out for the model's label
            domain, so that models of different domains are held against the same spectra.

    Raises:
        GridError: the grid's labels are not the model's, or no row is left.
    """
    space = model.emulator.space
    intensities = model.emulator.domain.quantity == "intensity"
    # The last label of a model of intensities is the viewing angle.
    names = space.names[:-1] if intensities else space.names
    missing = [n for n in names if n not in grid.space.names]
    foreign = [n for n in grid.space.names if n not in names]
    if missing or foreign:
        raise GridError(
            f"the labels of {grid.path} are not the model's: "
            f"it lacks {missing or 'none'} and has {foreign or 'none'} more"
        )
    chosen, split = _default_rows(model, grid) if rows is None else (list(rows), "rows given")
    usable = grid.usable(chosen)
    if at_most is not None and at_most < len(usable):
        usable = usable[np.rint(np.linspace(0, len(usable) - 1, at_most)).astype(int)]
    order = [grid.space.names.index(name) for name in names]
    labels, angles = grid.labels[usable][:, order], None
    if intensities:
        n_mu = len(grid.mu)
        labels, angles = labels_with_mu(labels, grid.mu), np.tile(np.arange(n_mu), len(usable))
        usable = np.repeat(usable, n_mu)
    inside = space.inside(labels)
    if not inside.any():
        raise GridError(
            f"none of the {len(chosen)} spectra of {grid.path} ({split}) is inside the model's label domain"
        )
    return HeldOut(
        usable[inside], labels[inside], int(np.sum(~inside)), split, None if angles is None else angles[inside]
    )


def _default_rows(model: Model, grid: Grid) -> tuple[list[int], str]:
    if model.training.get("source", {}).get("fingerprint") == grid.fingerprint:
        return list(model.training["split"]["test"]), "test spectra of the model's own grid"
    if grid.split.test:
        return list(grid.split.test), "test spectra of another grid"
    return list(range(len(grid.labels))), "all spectra of another grid"
