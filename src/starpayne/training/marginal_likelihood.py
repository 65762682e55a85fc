"""Hyperparameters of a Gaussian process by marginal likelihood, in float64 on the host (NumPy and SciPy).

Rasmussen & Williams 2006, Gaussian Processes for Machine Learning, eqs. 2.30 and 5.9. All outputs share one kernel
``variance * (k(x, x') + noise * identity)``. The variance is profiled out, which leaves, for m outputs of n spectra

    log p = -n m/2 log tr(Y' C^-1 Y) - m/2 log|C| + constant,    C = k(X, X) + noise * identity.

The trace does not change when the outputs are rotated: their principal components stand for all pixels exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

START_LENGTH, START_NOISE = 2.0, 1e-4
LENGTH_RANGE = (0.05, 1e3)


@dataclass(frozen=True)
class Expected:
    """What length scales and noise are expected, each within a factor of e: a log-normal prior.

    With few spectra the likelihood cannot tell them all. All outputs together weigh against it as one would: they are
    far from independent.

    Args:
        lengths: (labels,) in units of the unit cube.
        noise: variance of the noise over that of the process.
    """

    lengths: np.ndarray
    noise: float


@dataclass(frozen=True)
class Hyperparameters:
    """What the likelihood chose.

    Args:
        lengths: (labels,) length scale of each label, in units of the unit cube.
        noise: variance of the noise over that of the process.
        evaluations: how often the likelihood was computed.
    """

    lengths: np.ndarray
    noise: float
    evaluations: int


def covariance(
    kernel: str, one: Float[np.ndarray, "n labels"], other: Float[np.ndarray, "m labels"]
) -> Float[np.ndarray, "n m"]:
    """Return the kernel between points whose coordinates are already divided by the length scales."""
    return _kernel(kernel, _squared_distances(one, other))[0]


def maximise_likelihood(
    kernel: str,
    inputs: Float[np.ndarray, "n labels"],
    outputs: Float[np.ndarray, "n outputs"],
    least_noise: float,
    iterations: int = 60,
    progress: Callable[[int, int, float], None] | None = None,
    expected: Expected | None = None,
) -> Hyperparameters:
    """Return the length scales and the noise of largest marginal likelihood, or posterior probability.

    Args:
        kernel: "matern52" or "squared_exponential".
        inputs: coordinates in the unit cube.
        outputs: deviations from their mean, or principal components of them.
        least_noise: smallest noise allowed.
        iterations: of L-BFGS-B, at most.
        progress: called as ``progress(evaluation, iterations, value)``, the negative log
            likelihood per output and spectrum.
        expected: where the search starts, and a prior; by default there is none.
    """
    from scipy.optimize import minimize

    n, n_labels = inputs.shape
    count = 0
    start = np.log(np.append(np.full(n_labels, START_LENGTH), max(START_NOISE, least_noise)))
    if expected is not None:
        start = np.log(np.append(np.clip(expected.lengths, *LENGTH_RANGE), max(expected.noise, least_noise)))

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal count
        count += 1
        value, gradient = _negative_log_likelihood(kernel, parameters, inputs, outputs)
        if expected is not None:
            value += 0.5 * float(np.sum((parameters - start) ** 2)) / n
            gradient = gradient + (parameters - start) / n
        if progress is not None:
            progress(count, iterations, value)
        return value, gradient

    bounds = [tuple(np.log(LENGTH_RANGE))] * n_labels + [(np.log(least_noise), 0.0)]
    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": iterations})
    return Hyperparameters(np.exp(found.x[:-1]), float(np.exp(found.x[-1])), count)


def _negative_log_likelihood(
    kernel: str, parameters: np.ndarray, inputs: np.ndarray, outputs: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return the value per output and spectrum, and its gradient in the logarithms of lengths and noise."""
    from scipy.linalg import cho_factor, cho_solve

    lengths, noise = np.exp(parameters[:-1]), float(np.exp(parameters[-1]))
    n = len(outputs)
    scaled = inputs / lengths
    values, slopes = _kernel(kernel, _squared_distances(scaled, scaled))
    factor = cho_factor(values + noise * np.eye(n), lower=True)
    inverse = cho_solve(factor, np.eye(n))
    solved = inverse @ outputs
    misfit = np.sum(outputs * solved)
    value = 0.5 * np.log(misfit) + np.sum(np.log(np.diag(factor[0]))) / n
    # The derivative of the value is tr(weight dC) / 2.
    weight = inverse / n - solved @ solved.T / misfit
    pull = weight * slopes
    # sum_ij pull_ij (x_id - x_jd)^2 for each label d, without an array of n * n * labels.
    spread = 2 * (np.sum(pull, axis=1) @ scaled**2 - np.sum(scaled * (pull @ scaled), axis=0))
    return value, np.append(-spread, 0.5 * noise * np.trace(weight))


def _kernel(kernel: str, squared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the kernel and its derivative in the squared distance."""
    if kernel == "squared_exponential":
        values = np.exp(-0.5 * squared)
        return values, -0.5 * values
    root = np.sqrt(5 * squared)
    decay = np.exp(-root)
    return (1 + root + 5 / 3 * squared) * decay, -5 / 6 * (1 + root) * decay


def _squared_distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    # Centred first: the three terms then cancel as little as they can.
    middle = one.mean(axis=0)
    one, other = one - middle, other - middle
    squared = np.sum(one**2, axis=1)[:, None] + np.sum(other**2, axis=1) - 2 * one @ other.T
    return np.maximum(squared, 0.0)
