"""The label space and the split of spectra that come with neither."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from starpayne.errors import GridError
from starpayne.grid import Split
from starpayne.importers.formats import ForeignGrid
from starpayne.labels import Label, LabelSpace
from starpayne.wavelengths import sampling_needed

DEFAULT_SPLIT = "rows shuffled by numpy.random.default_rng(0): a tenth validates, a tenth tests, the others train"


def with_known_labels(foreign: ForeignGrid) -> ForeignGrid:
    """Leave out the spectra one of whose labels is not known.

    Raises:
        GridError: if none is left.
    """
    good = np.all(np.isfinite(foreign.labels), axis=1)
    rows = np.flatnonzero(good)
    if len(rows) == 0:
        n = len(good) + len(foreign.left_out)
        reason = foreign.left_out[0] if foreign.left_out else ("the first", "a label is missing") if n else None
        raise GridError(
            f"no spectrum has all its labels; {reason[0]}: {reason[1]}" if reason else "there are no spectra"
        )
    if np.all(good):
        return foreign
    lost = tuple(
        (
            foreign.files[i],
            "no value for " + ", ".join(np.array(foreign.names)[~np.isfinite(foreign.labels[i])]),
        )
        for i in np.flatnonzero(~good)
    )
    return replace(
        foreign,
        labels=foreign.labels[rows],
        files=tuple(foreign.files[i] for i in rows),
        row=lambda i: foreign.row(int(rows[i])),
        left_out=foreign.left_out + lost,
    )


def undersampled(foreign: ForeignGrid, sampling: float, resolution: float | None) -> bool:
    """Return whether a λ/Δλ is too coarse for the narrowest lines of the spectra, as they are broadened."""
    if resolution is not None:
        return sampling < 2 * resolution * (1 - 1e-3)
    low = dict(zip(foreign.names, foreign.labels.min(axis=0).tolist(), strict=True))
    return sampling < sampling_needed(low.get("teff", 5000.0), low.get("vmic", 1.0))


def space_of(foreign: ForeignGrid) -> tuple[LabelSpace, list[int], dict[str, float]]:
    """Return the label space, the columns that are its labels, and the labels that are the same in all spectra.

    The bounds are the range of the values; a label with one value has no range, and is none.

    Raises:
        GridError: if no label varies.
    """
    if foreign.space is not None:
        return foreign.space, list(range(len(foreign.names))), {}
    low, high = foreign.labels.min(axis=0), foreign.labels.max(axis=0)
    varies = high - low > 1e-9 * np.maximum(np.abs(low), np.abs(high))
    held = {name: float(x) for name, x, free in zip(foreign.names, low, varies, strict=True) if not free}
    columns = np.flatnonzero(varies).tolist()
    if not columns:
        raise GridError(f"no label varies among the {len(foreign.labels)} spectra ({', '.join(foreign.names)})")
    return LabelSpace(tuple(Label(foreign.names[i], float(low[i]), float(high[i])) for i in columns)), columns, held


def shuffled_split(n: int) -> Split:
    """Return a split of n rows that were in no particular order: see ``DEFAULT_SPLIT``.

    A rectangular grid comes row after row, so that its last rows would all be of the hottest stars.
    """
    rows = [int(row) for row in np.random.default_rng(0).permutation(n)]
    held = max(1, n // 10) if n >= 4 else 0
    return Split(tuple(rows[2 * held :]), tuple(rows[:held]), tuple(rows[held : 2 * held]))
