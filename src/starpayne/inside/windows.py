"""Which wavelengths tell a label: what each window adds, and the few windows that tell most together.

Labels, continuum and the amplitudes of the emulator's error modes (whose variance is one) enter one linear problem.
That is the same as to whiten and to project, as a fit does, but its normal equations are sums over pixels, so that
those of any choice of windows are sums over windows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from starpayne.fitting.forecast import Forecast
from starpayne.fitting.projection import solve_continuum


@dataclass(frozen=True, eq=False)
class Linear:
    """The linear problem of a forecast, parameters in physical units.

    Args:
        design: (n, p + nuisances) derivative of each pixel in units of its error; zero where a pixel is not used.
        known: (p + nuisances, p + nuisances) inverse covariance of what is known beforehand.
        weight: (n,) inverse error of the pixels.
        p: parameters; the continuum and the modes of the emulator's error follow.
    """

    design: np.ndarray
    known: np.ndarray
    weight: np.ndarray
    p: int

    @classmethod
    def of(cls, forecast: Forecast) -> Linear:
        descent, p, n = forecast.descent, len(forecast.names), len(forecast.descent.scene.star.wavelength)
        solution, problem = descent.solution, descent.problem
        weight = np.asarray(problem.inverse_error, np.float64)
        model, basis = np.asarray(solution.model, np.float64), np.asarray(problem.basis, np.float64)
        to_cube = np.linalg.inv(forecast.by_cube())
        continuum = solve_continuum(problem, solution).continuum
        derivative = (np.asarray(solution.jacobian, np.float64) * continuum).T @ to_cube
        design = np.concatenate([derivative, basis * model[:, None], descent.sight.modes.T], axis=1) * weight[:, None]
        known = np.zeros((design.shape[1],) * 2)
        known[:p, :p] = to_cube.T @ forecast.prior() @ to_cube
        modes = len(descent.sight.modes)
        if modes:
            known[-modes:, -modes:] = np.eye(modes)
        return cls(design[:n], known, weight[:n], p)

    @property
    def covariance(self) -> np.ndarray:
        """(p, p) covariance of the parameters, as :meth:`Forecast.covariance` has it."""
        return np.linalg.inv(self.design.T @ self.design + self.known)[: self.p, : self.p]

    def unique(self) -> np.ndarray:
        """Return (p, n) what of each derivative, in units of the errors, nothing else that is free could imitate.

        Its squares, summed over pixels, are what the pixels tell of the parameter while all others are free.
        """
        whole = np.linalg.inv(self.design.T @ self.design + self.known)
        return (self.design @ whole[:, : self.p] / np.diag(whole)[: self.p]).T


@dataclass(frozen=True)
class BestWindows:
    """The windows that tell a label best, each chosen to add most to those before it.

    Args:
        order: places of the windows.
        errors: 1 σ error of the label from the first, the first two, … of them.
    """

    order: tuple[int, ...]
    errors: tuple[float, ...]


def edges(low: float, high: float, width: float) -> np.ndarray:
    """Return the edges (w + 1,) of windows of equal width that cover a range, the nearest to the width asked for."""
    return np.linspace(low, high, max(1, round((high - low) / width)) + 1)


def places(wavelength: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Return (n,) in which window each pixel lies."""
    return np.clip(np.searchsorted(bounds, wavelength, side="right") - 1, 0, len(bounds) - 2)


def per_window(linear: Linear, place: np.ndarray, n_windows: int) -> np.ndarray:
    """Return (n_windows, columns, columns) the normal equations of each window."""
    columns = linear.design.shape[1]
    normal = np.zeros((n_windows, columns, columns))
    for w in range(n_windows):
        part = linear.design[place == w]
        normal[w] = part.T @ part
    return normal


def best_windows(linear: Linear, normal: np.ndarray, parameter: int, most: int) -> BestWindows:
    """Choose up to ``most`` windows for one parameter, one after another (greedily: a better set may exist).

    All other parameters, the continuum and the emulator's error stay free.
    """
    # A continuum that no window determines yet: its level is known to a factor of ten, or nothing could be inverted.
    loose = np.zeros(len(linear.known))
    continuum = np.flatnonzero(np.diag(linear.known) == 0)
    loose[continuum] = 1e-2
    chosen, errors, total = [], [], linear.known + np.diag(loose)
    left = [w for w in range(len(normal)) if np.any(normal[w])]
    while left and len(chosen) < most:
        sigma = np.sqrt(np.linalg.inv(total + normal[left])[:, parameter, parameter])
        best = int(np.argmin(sigma))
        errors.append(float(sigma[best]))
        chosen.append(left.pop(best))
        total = total + normal[chosen[-1]]
    return BestWindows(tuple(chosen), tuple(errors))
