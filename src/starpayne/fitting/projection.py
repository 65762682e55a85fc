"""The solver's projection once more, in float64 on the host: what the labels alone have to explain."""

from __future__ import annotations

import numpy as np

from starpayne.fitting.solver import Problem, Solution


def whitened_in_float64(problem: Problem, columns: np.ndarray) -> np.ndarray:
    """Multiply columns in units of the errors by C^(−1/2)."""
    whitener = np.asarray(problem.whitener, np.float64)
    return columns - whitener @ (whitener.T @ columns)


def project(problem: Problem, solution: Solution) -> tuple[np.ndarray, np.ndarray]:
    """Return whitened residual (n,) and derivative (n, p) of the pixels with the continuum solved, in float64."""
    w = np.asarray(problem.inverse_error, np.float64)
    basis, flux = np.asarray(problem.basis, np.float64), np.asarray(problem.flux, np.float64)
    model, derivative = np.asarray(solution.model, np.float64), np.asarray(solution.jacobian, np.float64)
    design = whitened_in_float64(problem, basis * (model * w)[:, None])
    if not np.all(np.isfinite(design)):
        return np.full(len(flux), np.nan), np.full((len(flux), len(derivative)), np.nan)
    data = whitened_in_float64(problem, flux * w)
    q, r = np.linalg.qr(design)
    continuum = basis @ np.linalg.lstsq(r, q.T @ data, rcond=None)[0]
    columns = whitened_in_float64(problem, (derivative * (continuum * w)).T)
    return data - q @ (q.T @ data), q @ (q.T @ columns) - columns
