"""Which few stars to synthesize for another grid: those from which all others can best be interpolated.

What another code changes is taken to be a Gaussian process over the labels (see
:mod:`~starpayne.training.transfer.correction`). Its variance that is left depends on where the spectra are, not on what
they are: the choice can be made before anything is synthesized (Sacks et al. 1989, Statistical Science 4, 409, call it
the integrated mean squared error).
"""

from __future__ import annotations

import numpy as np

from starpayne.emulators.coordinates import smooth_coordinates
from starpayne.emulators.corrected import KERNEL
from starpayne.errors import TrainingError
from starpayne.labels import LabelSpace
from starpayne.training.marginal_likelihood import covariance
from starpayne.training.transfer.correction import expected_lengths

CANDIDATES = 1500
"""Stars that are compared: the first of the grid, which fill its labels evenly. Their covariance fits in 20 MB."""

NOISE = 1.0
"""Variance, over that of the process: the errors of a base model for its own grid are about as large as what another
code changes. With 0.05 ten stars are 2 % worse (PySME to Turbospectrum)."""

ROUNDS = 3
"""How often each chosen star may be exchanged for a better one."""


def representative(space: LabelSpace, labels: np.ndarray, n: int) -> np.ndarray:
    """Return which n stars leave the least variance of a Gaussian process at all, on average.

    Chosen one after the other, and then exchanged.

    Args:
        space: label table of the stars.
        labels: (stars, n_labels) in its order, physical units; the first ``CANDIDATES`` take part.
        n: how many to choose.

    Returns:
        (n,) places, in the order of choice.

    Raises:
        TrainingError: for more stars than take part.
    """
    candidates = np.asarray(labels, np.float64)[:CANDIDATES]
    if not 1 <= n <= len(candidates):
        raise TrainingError(
            f"{n} representative stars asked for: they are chosen among {len(candidates)} (at most {CANDIDATES}); "
            "take the first ones of the grid for more"
        )
    scaled = smooth_coordinates(space, candidates) / expected_lengths(space)
    return least_variance(covariance(KERNEL, scaled, scaled), n)


def least_variance(kernel: np.ndarray, n: int) -> np.ndarray:
    """Return n places such that the mean variance, given noisy values there, is small."""
    chosen: list[int] = []
    left = kernel.copy()
    for _ in range(n):
        chosen.append(_best(left, chosen))
        left = _given(left, chosen[-1:])
    for _ in range(ROUNDS):
        before = list(chosen)
        for k in range(n):
            others = [c for j, c in enumerate(chosen) if j != k]
            chosen[k] = _best(_given(kernel, others), others)
        if chosen == before:
            break
    return np.array(chosen)


def _best(left: np.ndarray, chosen: list[int]) -> int:
    """Return the place whose value lowers the sum of what is left of the variances most."""
    gain = np.sum(left**2, axis=0) / (np.diag(left) + NOISE)
    gain[chosen] = -np.inf
    return int(np.argmax(gain))


def _given(kernel: np.ndarray, places: list[int]) -> np.ndarray:
    """Return the covariance that is left when noisy values are known at some places."""
    if not places:
        return kernel
    known = kernel[np.ix_(places, places)] + NOISE * np.eye(len(places))
    return kernel - kernel[:, places] @ np.linalg.solve(known, kernel[places])
