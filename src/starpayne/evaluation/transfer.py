"""What fine-tuning did to a model: its error on the new grid, and what it forgot of the old one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from starpayne.bundle import Model
from starpayne.emulators import Emulator, TransformerPayne
from starpayne.emulators.base import predict_in_chunks
from starpayne.evaluation.residuals import evaluate
from starpayne.grid import Grid

COMPARED = 200
"""Label vectors at which the fine-tuned model is compared with its base."""


def drift(base: Emulator, tuned: Emulator, seed: int = 0) -> Mapping[str, Any]:
    """Return how far a fine-tuned emulator has moved from its base, where both can be asked.

    The labels are those of the tuned model inside the base's bounds; labels that either holds have their held value,
    and labels that the base lacks, the middle of their range.

    Returns:
        ``mae`` of the normalised flux and ``wavelength`` (the overlap in Å), or ``why`` there is none.
    """
    low, high = max(base.domain.low, tuned.domain.low), min(base.domain.high, tuned.domain.high)
    pixels = base.native_wavelength
    pixels = pixels[(pixels >= low) & (pixels <= high)]
    if not len(pixels):
        return {"why": "the two have no wavelengths in common"}
    space = tuned.space
    known = [name for name in space.names if name in base.space.names]
    middle = dict(zip(space.names, 0.5 * (space.low + space.high), strict=True))
    middle |= {label.name: value for label, value in base.space.held}
    rows = space.sobol(16 * COMPARED, seed)
    held = {label.name: value for label, value in space.held}
    own = np.stack(
        [rows[:, space.names.index(n)] if n in known else np.full(len(rows), held[n]) for n in base.space.names], axis=1
    )
    kept = np.flatnonzero(base.space.inside(own))[:COMPARED]
    if not len(kept):
        return {"why": "the two have no labels in common"}
    for name in set(space.names) - set(known):
        rows[:, space.names.index(name)] = middle[name]
    before, after = (
        predict_in_chunks(emulator, labels[kept], pixels)[:, 0] for emulator, labels in ((base, own), (tuned, rows))
    )
    return {"mae": float(np.mean(np.abs(before - after))), "wavelength": [float(pixels[0]), float(pixels[-1])]}


def forgotten(base: Model, tuned: Model, grid: Grid) -> Mapping[str, Any]:
    """Return the error of base and fine-tuned model on the test spectra of the base's own grid.

    TransformerPayne is asked on the base's wavelengths whatever it was fine-tuned on, as its weights are for all.

    Returns:
        ``before`` and ``after``, or ``why`` they cannot be compared.
    """
    old, new = base.emulator, tuned.emulator
    if set(old.space.names) != set(new.space.names):
        return {"why": "the fine-tuned model has other labels"}
    if isinstance(new, TransformerPayne):
        new = dataclasses.replace(new, domain=old.domain)
    elif new.domain.low > old.domain.low or new.domain.high < old.domain.high:
        return {"why": "the fine-tuned model has other pixels"}
    before = evaluate(base, grid)
    # Labels outside the new bounds are asked too: what was learned there is what may be forgotten.
    wavelength = old.domain.prepare(grid.wavelength, grid.medium)
    order = [old.space.names.index(name) for name in new.space.names]
    predicted = predict_in_chunks(new, before.labels[:, order], wavelength)[:, 0]
    return {"before": before.mae, "after": float(np.mean(np.abs(predicted - before.true), dtype=np.float64))}
