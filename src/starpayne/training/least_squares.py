"""Ridge regression of many outputs at once, in float64 on the host; the ridge by generalised cross-validation."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

RIDGES = np.concatenate([[0.0], np.geomspace(1e-8, 1e4, 49)])
"""Candidates for the ridge, in units of one spectrum."""


def ridge_regression(
    design: Float[np.ndarray, "n terms"], outputs: Float[np.ndarray, "n outputs"], ridge: float | None
) -> tuple[Float[np.ndarray, "terms outputs"], float]:
    """Return the coefficients that minimise |design c − outputs|² + ridge |c|², and the ridge.

    Args:
        design: values of the terms, of about unit mean square, so that one ridge suits all.
        outputs: what they are to give.
        ridge: None takes the candidate of least generalised cross-validation error summed over the outputs,
            n |residual|² / (n − effective terms)² (Golub, Heath & Wahba 1979, Technometrics 21, 215).
    """
    # The basis is nearly orthonormal: its Gram matrix loses no digits that matter, and is smaller than the design.
    spectrum, vectors = np.linalg.eigh(design.T @ design)
    spectrum = np.maximum(spectrum, 1e-13 * spectrum[-1])
    rotated = vectors.T @ (design.T @ outputs)
    if ridge is None:
        power, total = np.sum(rotated**2, axis=1), float(np.sum(outputs**2))
        errors = [_cross_validation(spectrum, power, total, len(design), candidate) for candidate in RIDGES]
        ridge = float(RIDGES[int(np.argmin(errors))])
    return vectors @ (rotated / (spectrum + ridge)[:, None]), ridge


def _cross_validation(spectrum: np.ndarray, power: np.ndarray, total: float, n: int, ridge: float) -> float:
    shrunk = spectrum + ridge
    residual = total - float(np.sum(power * (2 / shrunk - spectrum / shrunk**2)))
    left = n - float(np.sum(spectrum / shrunk))
    # As many terms as spectra leave nothing to cross-validate on.
    return max(residual, 0.0) * n / left**2 if left > 1e-6 * n else np.inf
