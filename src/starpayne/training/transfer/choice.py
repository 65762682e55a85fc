"""Which few stars to fine-tune on: those to one of which every other star of the grid is close.

What fine-tuning has to learn is how another grid differs, and that changes from star to star as spectra do. So stars
are chosen by the spectra that the base model predicts for them: no spectrum of the new grid is needed, and the choice
can be made before anything is synthesized.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from starpayne.bundle import Model
from starpayne.emulators.base import predict_in_chunks
from starpayne.errors import LabelError, TrainingError
from starpayne.labels import LabelSpace, mapped_space

CANDIDATES = 1500
"""Stars that are compared: the first of the grid, which fill its labels evenly. Their distances fit in 10 MB."""

PIXELS = 500
"""Wavelengths at which spectra are compared."""

ROUNDS = 3
"""How often each chosen star may be exchanged for a better one."""


def representative(
    base: Model, space: LabelSpace, labels: np.ndarray, n: int, hold: Mapping[str, float] | None = None
) -> np.ndarray:
    """Return which n stars are representative of all: the k-medoids of their spectra as the model predicts them.

    The mean distance (the mean absolute difference of two spectra) from each star to the nearest chosen one is made
    small, greedily and then by exchanges (Kaufman & Rousseeuw 1990, Finding Groups in Data, ch. 2).

    Args:
        base: the model to be fine-tuned.
        space: label table of the stars.
        labels: (stars, n_labels) in its order, physical units; the first ``CANDIDATES`` take part.
        n: how many to choose.
        hold: values of labels of the model that the table lacks. A label that the model lacks does not count.

    Returns:
        (n,) places, the most representative first.

    Raises:
        LabelError: for labels that do not map.
        TrainingError: for more stars than take part.
    """
    candidates = np.asarray(labels, np.float64)[:CANDIDATES]
    if not 1 <= n <= len(candidates):
        raise TrainingError(
            f"{n} representative stars asked for: they are chosen among {len(candidates)} (at most {CANDIDATES}); "
            "take the first ones of the grid for more"
        )
    emulator, hold = base.emulator, dict(hold or {})
    mapped_space(emulator.space, space, hold)  # refuses labels that do not map
    columns = []
    for label in emulator.space.labels:
        if label.name in space.names:
            # A table may be wider than the model's: the nearest star that the model knows stands for it.
            columns.append(np.clip(candidates[:, space.names.index(label.name)], label.low, label.high))
        else:
            columns.append(np.full(len(candidates), hold[label.name]))
    native = emulator.native_wavelength
    wavelength = native[:: max(1, len(native) // PIXELS)]
    spectra = predict_in_chunks(emulator, np.stack(columns, axis=1), wavelength)[:, 0]
    if not np.all(np.isfinite(spectra)):
        raise LabelError("the model gives no finite spectrum for some of the stars; check the labels of the grid")
    return k_medoids(distances(spectra), n)


def distances(spectra: np.ndarray) -> np.ndarray:
    """Return (stars, stars) float32 mean absolute differences of spectra (stars, pixels)."""
    out = np.empty((len(spectra), len(spectra)), np.float32)
    for i, spectrum in enumerate(spectra):
        out[i] = np.mean(np.abs(spectra - spectrum), axis=1)
    return out


def k_medoids(distance: np.ndarray, n: int) -> np.ndarray:
    """Return n places such that the mean distance from any place to the nearest of them is small."""
    chosen: list[int] = []
    nearest = np.full(len(distance), np.inf)
    for _ in range(n):
        cost = np.minimum(distance, nearest).sum(axis=1)
        cost[chosen] = np.inf
        chosen.append(int(np.argmin(cost)))
        nearest = np.minimum(nearest, distance[chosen[-1]])
    for _ in range(ROUNDS):
        before = list(chosen)
        for k in range(n):
            others = _nearest(distance, [c for j, c in enumerate(chosen) if j != k])
            cost = np.minimum(distance, others).sum(axis=1)
            cost[[c for j, c in enumerate(chosen) if j != k]] = np.inf
            best = int(np.argmin(cost))
            if cost[best] < cost[chosen[k]]:
                chosen[k] = best
        if chosen == before:
            break
    return np.array(chosen)


def _nearest(distance: np.ndarray, chosen: Sequence[int]) -> np.ndarray:
    return distance[list(chosen)].min(axis=0) if chosen else np.full(len(distance), np.inf)
