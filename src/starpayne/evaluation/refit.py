"""Fit observed stars with an emulator: labels and the continuum level, photon noise alone, at rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from starpayne.emulators import Emulator
from starpayne.emulators.base import predict_in_chunks
from starpayne.evaluation.observed import ObservedStars
from starpayne.fitting import ForwardModel
from starpayne.fitting.bounded import best_step, gain_of
from starpayne.fitting.freedom import FreeLabels
from starpayne.fitting.lanes import Lane, in_batches, lanes
from starpayne.fitting.lockstep import derivatives, solve_together
from starpayne.fitting.projection import project, standard_errors
from starpayne.fitting.solver import Parameters, Problem, Solution
from starpayne.fitting.statistics import AT_BOUND
from starpayne.wavelengths import convert_medium

MAX_ITERATIONS = 100

NEAR_ENOUGH = 0.25
"""A converged fit has less than this, times the reduced χ², of χ² to gain: it is within 0.5 σ of the minimum, in the
worst of all directions. Seventeen labels of an emulator that is not smooth make long curved valleys."""

TOLERANCE = 0.04
"""Of the solver: it ends on a step of 0.2 σ (which is still taken): statistics over many stars do not see more."""

OWN, NOTHING = frozenset({"flux"}), frozenset[str]()
"""What the problems of stars on one detector have each for themselves."""

CHANCE = 4.0
"""Standard deviations of the reduced χ² above one, up to which a fit counts as one that found its star."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Fits:
    """Fits of n stars.

    Args:
        cube: (n, n_labels) position in the unit cube of the labels.
        labels: (n, n_labels) physical units.
        chi2: (n,) reduced χ².
        at_bound: (n, n_labels) whether a label lies on its bound.
        converged: (n,) whether the best step left would hardly lower χ² (see NEAR_ENOUGH).
        model, derivative: (n, n_pixels), (n, n_labels, n_pixels) the model there and its derivative in the cube.
    """

    cube: np.ndarray
    labels: np.ndarray
    chi2: np.ndarray
    converged: np.ndarray
    at_bound: np.ndarray
    model: np.ndarray
    derivative: np.ndarray


@dataclass(frozen=True)
class Fitter:
    """An emulator behind the spectrograph: everything that all stars share.

    Args:
        emulator: the emulator.
        forward: its spectra on the detector.
        parameters: all its labels, and nothing else.
        problem: pixels, weights and continuum.
    """

    emulator: Emulator
    forward: ForwardModel
    parameters: Parameters
    problem: Problem

    @classmethod
    def of(cls, emulator: Emulator, stars: ObservedStars, resolution: float, medium: str) -> Fitter:
        """Prepare for stars observed at a resolution, on wavelengths in a medium.

        Raises:
            SpectrumError: the emulator cannot give that resolution.
        """
        own = convert_medium(stars.wavelength, medium, emulator.domain.medium)
        forward, usable = ForwardModel.on(emulator, own, resolution, velocity_range=0.0, vsini_max=0.0)
        n = len(own)
        problem = Problem(
            broadening=forward.broadening, pixels=forward.pixels, flux=jnp.ones(n),
            inverse_error=jnp.asarray(np.where(usable, 1 / stars.error, 0.0), jnp.float32),
            basis=jnp.ones((n, 1)), whitener=jnp.zeros((0, n)), low=jnp.zeros(3), high=jnp.zeros(3),
        )  # fmt: skip
        parameters = Parameters(FreeLabels.of(emulator.space, {}), rv=False, vsini=False, broadening=False)
        return cls(emulator, forward, parameters, problem)

    def starts(self, flux: np.ndarray, n_search: int, n_starts: int, seed: int) -> np.ndarray:
        """Return for each star the cube coordinates (n, n_starts, n_labels) of the templates that fit it best.

        The templates cover the whole label table; the level of each is solved.
        """
        cube = self.parameters.labels.design(n_search, seed)
        bound = self.forward.bound
        depth = predict_in_chunks(self.emulator, self.parameters.labels.from_cube(cube), bound.wavelength.values)[:, 0]
        seen = 1 + np.asarray(self.forward.observe(jnp.asarray(depth - 1), 0.0, 0.0, 0.0), np.float64)
        used = np.asarray(self.problem.inverse_error) > 0
        seen, data = seen[:, used], flux[:, used]
        misfit = np.sum(data**2, axis=1)[:, None] - (data @ seen.T) ** 2 / np.sum(seen**2, axis=1)
        best = np.argsort(misfit, axis=1)[:, : min(n_starts, len(cube))]
        return cube[best]

    def search_and_fit(
        self, flux: np.ndarray, n_search: int, n_starts: int, seed: int, progress: Progress | None = None
    ) -> Fits:
        """Fit stars (n, n_pixels) of unknown labels.

        The best start of each star is followed; further ones where χ² says that this was not the star.
        """
        starts = self.starts(flux, n_search, n_starts, seed)
        best = self.fit(flux, starts[:, 0], progress=progress)
        for k in range(1, starts.shape[1]):
            doubtful = np.flatnonzero(~best.converged | (best.chi2 > self._by_chance))
            if not len(doubtful):
                break
            other = self.fit(flux[doubtful], starts[doubtful, k])
            better = (other.converged & ~best.converged[doubtful]) | (
                (other.converged | ~best.converged[doubtful]) & (other.chi2 < best.chi2[doubtful])
            )
            for name in Fits.__dataclass_fields__:
                getattr(best, name)[doubtful[better]] = getattr(other, name)[better]
        return best

    def fit(
        self, flux: np.ndarray, cube: np.ndarray, known: Fits | None = None, progress: Progress | None = None
    ) -> Fits:
        """Fit stars (n, n_pixels) from starts (n, n_labels), or from where fits ended."""
        lanes = self.lanes(flux, cube, known)
        solve_together(self.forward.bound, self.parameters, lanes, OWN, progress)
        return self._judged(lanes)

    def lanes(self, flux: np.ndarray, cube: np.ndarray, known: Fits | None = None) -> list[Lane]:
        """Return the descents of stars (n, n_pixels) from starts (n, n_labels), not yet begun."""
        return [
            Lane(
                self.problem._replace(flux=star.astype(np.float32)), start, TOLERANCE, MAX_ITERATIONS,
                None if known is None else known.model[i], None if known is None else known.derivative[i],
            )
            for i, (star, start) in enumerate(zip(flux, cube, strict=True))
        ]  # fmt: skip

    def bounds(self, truth: np.ndarray) -> np.ndarray:
        """Return the Cramér–Rao bound (n, n_labels) on each label's standard deviation, in physical units.

        Of photon noise alone, with the continuum level and all other labels free.
        """
        table, bound = self.emulator.space, self.forward.bound
        cube = np.asarray(table.to_cube(truth), np.float32)
        sigma = np.full(truth.shape, np.nan)
        to_labels = jax.vmap(jax.jacfwd(table.from_cube))

        def compute(rows: np.ndarray) -> None:
            model, derivative = derivatives(bound, self.parameters, self.problem, jnp.asarray(cube[rows]), NOTHING)
            by_cube = np.asarray(to_labels(jnp.asarray(cube[rows])), np.float64)
            for i, row in enumerate(rows):
                _, jacobian = project(*self._at(np.asarray(model)[i], cube[row], model[i], derivative[i]))
                if np.all(np.isfinite(jacobian)):
                    sigma[row] = standard_errors(jacobian, by_cube[i])

        in_batches(lanes(bound, len(self.parameters), len(truth)), np.arange(len(truth)), compute)
        return sigma

    @property
    def _freedom(self) -> int:
        return max(1, int(np.sum(np.asarray(self.problem.inverse_error) > 0)) - len(self.parameters) - 1)

    @property
    def _by_chance(self) -> float:
        return 1 + CHANCE * float(np.sqrt(2 / self._freedom))

    def _at(
        self, flux: np.ndarray, cube: np.ndarray, model: ArrayLike, derivative: ArrayLike
    ) -> tuple[Problem, Solution]:
        """Return one star's problem and solution, on the host."""
        problem = self.problem._replace(flux=jnp.asarray(flux, jnp.float32))
        theta, model, derivative = (np.asarray(a, np.float32) for a in (cube, model, derivative))
        return problem, Solution(theta, 0.0, 0, model, derivative)

    def _judged(self, lanes: list[Lane]) -> Fits:
        cube = np.array([lane.theta for lane in lanes], np.float64)
        chi2, converged = np.full(len(cube), np.nan), np.zeros(len(cube), bool)
        for i, lane in enumerate(lanes):
            residual, jacobian = project(lane.problem, lane.solution)
            if np.all(np.isfinite(residual)) and np.all(np.isfinite(jacobian)) and np.all(np.isfinite(cube[i])):
                chi2[i] = residual @ residual / self._freedom
                normal = jacobian.T @ jacobian, jacobian.T @ residual
                left = gain_of(best_step(*normal, cube[i]), *normal)
                converged[i] = left < NEAR_ENOUGH * max(1.0, chi2[i])
        at_bound = (cube < AT_BOUND) | (cube > 1 - AT_BOUND)
        model, derivative = (np.array([getattr(lane, n) for lane in lanes]) for n in ("model", "derivative"))
        return Fits(cube, self.parameters.labels.from_cube(cube), chi2, converged, at_bound, model, derivative)
