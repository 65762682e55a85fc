"""A correction of a model to another grid, in closed form: the Gaussian process over their difference.

Rasmussen & Williams 2006, Gaussian Processes for Machine Learning: the mean is eq. 2.25, the spectra left out one at a
time are eq. 5.12. Solved in float64 on the host.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from starpayne.emulators import Corrected, Emulator
from starpayne.emulators.base import predict_in_chunks
from starpayne.emulators.coordinates import smooth_coordinates
from starpayne.emulators.corrected import KERNEL, strength
from starpayne.errors import RecipeError, TrainingError
from starpayne.labels import LabelSpace, is_abundance
from starpayne.training.closed_form import MAX_SPECTRA
from starpayne.training.data import TrainingData
from starpayne.training.marginal_likelihood import Expected, Hyperparameters, covariance, maximise_likelihood

TYPICAL = {"teff": 1700.0, "logg": 3.4, "feh": 1.3, "alpha_fe": 0.6, "vmic": 2.75}
"""Over which change of a label (its unit) the difference of two grids typically changes by as much as it is: found by
hand for PySME and Turbospectrum on 5160 to 5210 Å; the likelihood adapts them to the spectra at hand."""

ABUNDANCE = 5.0
"""The same for a single abundance, dex: its lines change with it in the base model already."""

NOISE, LEAST_NOISE = 0.05, 1e-3
"""Variance, over that of the process, of what is not smooth: the errors of the base model for its own grid."""

LIKELIHOOD_SPECTRA = 500
"""So many spectra decide about lengths and noise; all of them about the correction."""

ITERATIONS = 60


@dataclass(frozen=True)
class Correction:
    """A corrected emulator, and what is known of it.

    Args:
        emulator: base and correction.
        left_out: (n, pixels) flux of each spectrum as the others correct it.
        found: length scales and noise.
    """

    emulator: Corrected
    left_out: Float[np.ndarray, "n pixels"]
    found: Hyperparameters


def correct(base: Emulator, data: TrainingData, progress: Callable[[int, int], None] | None = None) -> Correction:
    """Return a base emulator, in the labels and channels of the data, with a correction to their spectra.

    Raises:
        TrainingError: for too many spectra, or spectra that are not finite.
    """
    from scipy.linalg import cho_factor, cho_solve

    n = len(data.labels)
    if n > MAX_SPECTRA:
        raise TrainingError(f"a correction from {n:,} spectra; the most is {MAX_SPECTRA:,}: take fewer (--n-train)")
    if not np.all(np.isfinite(data.targets)):
        raise TrainingError("the spectra hold values that are not finite; check the grid")
    before = predict_in_chunks(base, data.labels, data.wavelength).astype(np.float64)
    units = np.stack([strength(before[:, i], channel) for i, channel in enumerate(data.channels)], axis=1)
    difference = (data.targets - before) / units
    width = np.sqrt(np.mean(difference**2, axis=(0, 2)))[:, None]
    width[width == 0] = 1.0
    units, difference = units * width, difference / width
    # As it will be stored.
    points = smooth_coordinates(data.space, data.labels).astype(np.float32).astype(np.float64)
    rows = np.arange(n)[:: -(-n // LIKELIHOOD_SPECTRA)]
    expected = Expected(expected_lengths(data.space), NOISE)
    found = Hyperparameters(expected.lengths, expected.noise, 0)
    if np.any(difference[rows, 0]):
        found = maximise_likelihood(
            KERNEL, points[rows], _rotated(difference[rows, 0]), LEAST_NOISE, ITERATIONS,
            None if progress is None else lambda done, most, _: progress(min(done, most), most), expected,
        )  # fmt: skip
    lengths = found.lengths.astype(np.float32).astype(np.float64)
    matrix = covariance(KERNEL, points / lengths, points / lengths)
    matrix[np.diag_indices(n)] += found.noise
    inverse = cho_solve(cho_factor(matrix, lower=True), np.eye(n))
    amplitudes = np.einsum("ij,jcl->cil", inverse, difference, optimize=True)
    missed = amplitudes[0] / np.diag(inverse)[:, None] * units[:, 0]
    if progress is not None:
        progress(1, 1)
    emulator = Corrected.initialise(base, data.space, data.domain, data.wavelength, n)
    emulator = eqx.tree_at(
        lambda e: (e.points, e.lengths, e.amplitudes, e.width), emulator,
        tuple(jnp.asarray(x, jnp.float32) for x in (points, lengths, amplitudes, width)),
    )  # fmt: skip
    return Correction(emulator, (data.targets[:, 0] - missed).astype(np.float32), found)


def expected_lengths(space: LabelSpace) -> np.ndarray:
    """Return (labels,) the length scales that are expected, in the unit cube of the labels."""
    physical = [
        TYPICAL.get(label.name, ABUNDANCE if is_abundance(label.name) else label.high - label.low)
        for label in space.labels
    ]
    return np.array(physical) / (space.high - space.low)


def refuse_corrected(base: Emulator) -> None:
    """Raise RecipeError for a model that cannot be corrected."""
    if isinstance(base, Corrected):
        raise RecipeError(
            "the model is a corrected one already; give its base model, and the spectra that both corrections need"
        )


def _rotated(outputs: Float[np.ndarray, "n pixels"]) -> Float[np.ndarray, "n k"]:
    """Return the principal components of outputs, which have the same likelihood and are no more than the spectra."""
    if outputs.shape[1] <= len(outputs):
        return outputs
    directions, singular, _ = np.linalg.svd(outputs, full_matrices=False)
    return directions * singular
