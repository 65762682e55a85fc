"""A toy grid of intensities: analytic limb darkening that follows the labels, and lines that weaken at the limb."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import toy

from starpayne.emulators.disc import rings
from starpayne.grid import Grid

MU = rings(5)


def darkening(values: np.ndarray) -> np.ndarray:
    """Linear limb-darkening coefficient (n,): larger in cool stars."""
    return 0.8 - 0.4 * toy.SPACE.scale(values)[:, 0]


def normalised(values: np.ndarray, mu: np.ndarray) -> np.ndarray:
    """π I / F_c (n, n_mu, n_wavelength) float64: lines are filled in linearly towards the limb."""
    u, depth, mu = darkening(values)[:, None, None], 1.0 - toy.spectra(values).astype(float)[:, None], mu[:, None]
    return (1 - u * (1 - mu)) / (1 - u / 3) * (1 - depth * (0.5 + 0.5 * mu))


def flux(values: np.ndarray) -> np.ndarray:
    """Normalised flux (n, n_wavelength) float64: the integral 2 ∫₀¹ i μ dμ, done by hand."""
    u, depth = darkening(values)[:, None], 1.0 - toy.spectra(values).astype(float)
    # 2 ∫ (1 − u + u μ)(1 − d/2 − d μ/2) μ dμ
    return ((1 - u) * (1 - depth / 2) + 2 / 3 * (u * (1 - depth / 2) - (1 - u) * depth / 2) - u * depth / 4) / (
        1 - u / 3
    )


def write_grid(path: Path, mu: np.ndarray = MU, **changes: Any) -> Grid:
    """A complete toy grid with intensities; its flux is the sum over its own angles, as the engine's is."""
    grid = toy.empty_grid(path, mu=mu, **changes)
    i, continua = normalised(grid.labels, mu), toy.continua(grid.labels)
    for row in range(len(grid.labels)):
        grid.write(row, flux=i[row].mean(axis=0), continuum=continua[row], intensity=i[row] * continua[row] / np.pi)
    return Grid.open(path)
