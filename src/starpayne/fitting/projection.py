"""The solver's projection once more, in float64 on the host: what the labels alone have to explain."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from starpayne.fitting.solver import Problem, Solution


def whitened_in_float64(problem: Problem, rows: np.ndarray) -> np.ndarray:
    """Multiply rows (..., n) in units of the errors by C^(−1/2)."""
    whitener = np.asarray(problem.whitener, np.float64)
    return rows - (rows @ whitener.T) @ whitener


class Solved(NamedTuple):
    """Pixels whose continuum is solved; NaN where the model has no numbers.

    Args:
        residual: (n,) whitened flux less what the continuum explains of it.
        q: (n, c) orthogonal basis of that, whitened.
        continuum: (n,).
    """

    residual: np.ndarray
    q: np.ndarray
    continuum: np.ndarray


def solve_continuum(problem: Problem, solution: Solution) -> Solved:
    """Solve for the continuum at a solution, in float64."""
    w, flux = np.asarray(problem.inverse_error, np.float64), np.asarray(problem.flux, np.float64)
    basis, model = np.asarray(problem.basis, np.float64), np.asarray(solution.model, np.float64)
    rows = whitened_in_float64(problem, np.concatenate([basis.T * (model * w), (flux * w)[None]]))
    design, data = rows[:-1].T, rows[-1]
    if not np.all(np.isfinite(design)):
        return Solved(np.full(len(w), np.nan), np.full(design.shape, np.nan), np.full(len(w), np.nan))
    q, r = np.linalg.qr(design)
    along = q.T @ data
    return Solved(data - q @ along, q, basis @ solved_for(r, along))


def solved_for(triangle: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Solve a triangular system; the least squares of the shortest solution where that cannot be told."""
    size = np.abs(np.diag(triangle))
    if not len(size) or size.min() <= 1e-8 * size.max():
        return np.linalg.lstsq(triangle, values, rcond=None)[0]
    return np.linalg.solve(triangle, values)


def project(
    problem: Problem, solution: Solution, known_continuum: bool = False, solved: Solved | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return whitened residual (n,) and derivative (n, p) of the pixels with the continuum solved, in float64.

    Args:
        known_continuum: take the continuum that was solved for the true one, so that the derivatives keep what it could
            have explained.
        solved: what :func:`solve_continuum` returns, if it is known.
    """
    residual, q, continuum = solved or solve_continuum(problem, solution)
    rows = np.asarray(solution.jacobian, np.float64)
    rows = whitened_in_float64(problem, rows * (continuum * np.asarray(problem.inverse_error, np.float64)))
    explained = 0.0 if known_continuum else (rows @ q) @ q.T
    return residual, (explained - rows).T


def continuum_of(design: np.ndarray, data: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Return the continuum (m,) whose curves (m, c) fit data (n,) best by a design (n, c).

    By normal equations, of curves that are nearly orthogonal; what no pixel determines is zero.
    """
    normal = design.T @ design
    normal += 1e-12 * np.trace(normal) * np.eye(len(normal))
    return basis @ np.linalg.solve(normal, design.T @ data)


def standard_errors(jacobian: np.ndarray, by_cube: np.ndarray) -> np.ndarray:
    """Return (p,) Cramér–Rao bounds, the smallest errors that the data allow: no prior, no bounds on any parameter.

    What the spectrum does not say at all is a very large number, not infinity.

    Args:
        jacobian: (n, p) of the whitened residual, by the solver's coordinates.
        by_cube: (p, p) the derivative of the physical parameters by these.
    """
    _, singular, directions = np.linalg.svd(jacobian, full_matrices=False)
    spread = by_cube @ directions.T / np.maximum(singular, 1e-9 * max(singular[0], 1e-30))
    return np.sqrt(np.sum(spread**2, axis=1))
