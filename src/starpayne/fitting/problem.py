"""From an observation and a plan to the arrays the solver works on; host side, float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from starpayne.emulators import BoundEmulator
from starpayne.fitting.forward import log_velocity
from starpayne.fitting.instrument import LogGrid
from starpayne.fitting.lanes import EACH, lanes, shapes, stacked, star_axes
from starpayne.fitting.noise import Noise
from starpayne.fitting.observation import Observation
from starpayne.fitting.pixels import AnyArray
from starpayne.fitting.plan import Plan, half_room
from starpayne.fitting.projection import Solved, project, solve_continuum
from starpayne.fitting.setup import Setup
from starpayne.fitting.solver import Parameters, Prior, Problem, Solution, without_continuum

PAD_PIXELS = 256
"""Their number is rounded up to a multiple of this, so that stars of one set-up share one compiled function."""


@dataclass(frozen=True, eq=False)
class Scene:
    """One star as one plan sees it: a problem that lacks the noise alone.

    Args:
        star, plan: what is fitted, and from where.
        blank: the problem with the stated errors alone, on every pixel of the observation.
        error: (n,) as stated; ``used`` (n,) bool, both padded.
    """

    star: Observation
    plan: Plan
    blank: Problem
    error: np.ndarray
    used: np.ndarray

    @classmethod
    def of(cls, star: Observation, plan: Plan, setup: Setup) -> Scene:
        """Prepare the arrays."""
        n = len(star.wavelength)
        assert plan.used is not None
        assert plan.basis is not None
        size = -(-n // PAD_PIXELS) * PAD_PIXELS

        def padded(array: np.ndarray, fill: float = 0.0) -> np.ndarray:
            out = np.full((size, *array.shape[1:]), fill)
            out[:n] = array
            return out

        basis = conditioned(plan.basis, plan.used)
        used = np.zeros(size, bool)
        used[:n] = plan.used
        error = padded(star.error, 1.0)
        problem = Problem(
            broadening=setup.broadening(star.grid, half_room(star), star.uniform or 0.0),
            pixels=star.bands(plan.rv).matrix(star.grid.size, size),
            flux=padded(star.flux).astype(np.float32),
            inverse_error=np.where(used, 1 / error, 0.0).astype(np.float32),
            basis=padded(basis).astype(np.float32),
            whitener=np.zeros((0, size), np.float32),
            low=plan.low.astype(np.float32),
            high=plan.high.astype(np.float32),
            prior=_prior(plan, setup),
        )
        return cls(star, plan, problem, error, used)

    def seen_from(self, theta: np.ndarray, setup: Setup) -> Sight:
        """Return the emulator's error as the pixels see it, for the star at ``theta``."""
        glance = self.glance(theta, setup)
        if not glance.done:
            look(setup, [glance])
        return glance.sight

    def glance(self, theta: np.ndarray, setup: Setup) -> Glance:
        """Return what has to be computed, best for several stars together, before it is known what the pixels see of
        the emulator's error."""
        cube = np.asarray(theta[: len(setup.parameters.labels)], np.float32)
        widths = widths_at(self.plan, setup.parameters, theta).astype(np.float32)
        seen = None if setup.has_error else Sight.nothing(len(self.used))
        return Glance(self.star.bound, self.star.grid, self.blank, cube, widths, seen)

    def problem(self, sight: Sight, noise: Noise) -> Problem:
        """Return the problem with the emulator's error, and with noise added to it and the stated errors."""
        used = self.used
        variance = self.error[used] ** 2 + np.asarray(sight.left[used], np.float64) ** 2
        inverse = np.zeros(len(used), np.float32)
        inverse[used] = noise.variance(variance) ** -0.5
        return self.blank._replace(inverse_error=inverse, whitener=whitener_of(sight.modes * inverse))


@dataclass(frozen=True, eq=False)
class Sight:
    """The emulator's error on the pixels, times the continuum: modes (k, n), and what they leave (n,), float32.

    What they leave is taken to be alike over one line-spread function: no averaging of it is claimed.
    """

    modes: np.ndarray
    left: np.ndarray

    @classmethod
    def nothing(cls, size: int) -> Sight:
        """Return that of an emulator without error, on so many pixels."""
        return cls(np.zeros((0, size), np.float32), np.zeros(size, np.float32))


@dataclass(frozen=True, eq=False)
class Descent:
    """Where the solver came to from one plan: the problem it solved, its solution, and the noise that was added.

    Args:
        iterations: of the solver, over all descents of the star so far.
    """

    scene: Scene
    sight: Sight
    problem: Problem
    solution: Solution
    noise: Noise
    iterations: int

    @property
    def plan(self) -> Plan:
        return self.scene.plan

    @property
    def chi2(self) -> float:
        """χ² of the solver; infinite if it is no number."""
        value = float(self.solution.chi2)
        return value if np.isfinite(value) else np.inf

    @property
    def theta(self) -> np.ndarray:
        """(p,) float64 position in the unit cube."""
        return np.asarray(self.solution.theta, np.float64)

    @cached_property
    def solved(self) -> Solved:
        """The pixels with the continuum solved, in float64; several questions need them."""
        return solve_continuum(self.problem, self.solution)

    @cached_property
    def projected(self) -> tuple[np.ndarray, np.ndarray]:
        """Whitened residual (n,) and derivative (n, p) where it ended, in float64; several questions need them."""
        return project(self.problem, self.solution, solved=self.solved)

    @cached_property
    def normal(self) -> tuple[np.ndarray, np.ndarray]:
        """Gradient (p,) of half of χ² where it ended, and its second derivative (p, p) without that of the model."""
        residual, jacobian = self.projected
        return jacobian.T @ residual, jacobian.T @ jacobian

    def after(self, iterations: int) -> Descent:
        """Return it with so many iterations counted."""
        return replace(self, iterations=iterations)

    def widths(self, parameters: Parameters) -> np.ndarray:
        """Return (3,) shift, vsini², sigma² where it ended."""
        return widths_at(self.plan, parameters, self.theta)


@dataclass(eq=False)
class Glance:
    """The emulator's error at one place, still to be seen on the pixels of a star.

    Args:
        bound, grid: the emulator on its grid.
        problem: of the star, with the stated errors.
        cube, widths: the place: free labels in the unit cube; shift, vsini², sigma².
        seen: None until it is computed.
    """

    bound: BoundEmulator
    grid: LogGrid
    problem: Problem
    cube: np.ndarray
    widths: np.ndarray
    seen: Sight | None = None

    @property
    def done(self) -> bool:
        return self.seen is not None

    @property
    def sight(self) -> Sight:
        """What was seen."""
        assert self.seen is not None
        return self.seen

    @cached_property
    def shape(self) -> object:
        """What must be the same for two of them to share a call of a compiled function."""
        return "glance", id(self.bound), *shapes(self.problem)


def look(setup: Setup, waiting: Sequence[Glance]) -> None:
    """Compute as many glances as one call holds, of problems whose arrays have the same shapes."""
    first, residuals = waiting[0], setup.model.residuals
    curves = setup.error_curves(first.grid, first.problem.broadening)
    assert curves is not None
    assert residuals is not None
    size = lanes(first.bound, len(curves[0]), len(waiting))
    filled = [*waiting[:size], *[waiting[-1]] * (size - len(waiting))]
    problem = stacked([glance.problem for glance in filled], EACH)
    labels = setup.parameters.labels.from_cube(np.stack([glance.cube for glance in filled]))
    widths = np.stack([glance.widths for glance in filled])
    relative = residuals.size_at(setup.model.emulator.space, labels).astype(np.float32)
    seen = _observe(first.bound, problem, labels, widths, relative, *curves)
    for glance, modes, left in zip(waiting[:size], *map(np.asarray, seen), strict=False):
        # Copies: as parts of the whole, one star would keep those of all.
        glance.seen = Sight(modes.copy(), left.copy())


@eqx.filter_jit
def _observe(
    bound: BoundEmulator,
    problem: Problem,
    labels: Float[AnyArray, "stars n_labels"],
    widths: Float[AnyArray, "stars three"],
    relative: Float[AnyArray, " stars"],
    spectra: Complex[AnyArray, "k frequencies"],
    left: Float[AnyArray, " grid"],
) -> tuple[Float[Array, "stars k n"], Float[Array, "stars n"]]:
    """Return the emulator's error modes and what they leave on the pixels, times the continuum.

    Args:
        problem: its arrays have a star axis.
        relative: the size of the error of each star, as a multiple of the typical one.
        spectra, left: of the typical error; see :meth:`starpayne.fitting.setup.Setup.error_curves`.
    """

    def one(
        star: Problem, labels: Array, widths: Array, relative: Array
    ) -> tuple[Float[Array, "k n"], Float[Array, " n"]]:
        own = star.broadening.spectrum(bound(labels) - 1)
        response = star.broadening.once(lambda: star.broadening.transfer(*widths))
        products = jnp.concatenate([own[None], spectra]) * response
        seen = star.pixels(star.broadening.back(products, len(left)))
        continuum = relative * without_continuum(star, 1 + seen[0])[2]
        return seen[1:] * continuum, star.pixels(jnp.asarray(left)) * continuum

    return jax.vmap(one, in_axes=(star_axes(problem, EACH), 0, 0, 0))(problem, labels, widths, relative)


def conditioned(basis: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Return columns that span the same curves, orthogonal on the pixels used.

    Polynomials that are orthogonal on a whole range are nearly dependent on a part of it, more so than the float32 of
    the solver can tell apart. What the pixels used do not tell apart in its digits is left out.
    """
    _, size, directions = np.linalg.svd(np.linalg.qr(basis[used], mode="r"))
    kept = size > 1e-7 * size[0]
    return basis @ (directions[kept].T * (np.sqrt(used.sum()) / size[kept]))


def whitener_of(modes: np.ndarray) -> np.ndarray:
    """Return (k, n) float32 Bᵀ such that x − B Bᵀ x is (I + MᵀM)^(−1/2) x for float32 modes M (k, n)."""
    exact = np.asarray(modes, np.float64)
    square = exact @ exact.T
    # An emulator that gives no numbers: the solver finds that out, an eigenvalue problem would only stop.
    if not len(modes) or not np.all(np.isfinite(square)):
        return np.zeros((0, modes.shape[1]), np.float32)
    square, directions = np.linalg.eigh(square)
    square = np.maximum(square, 1e-12)
    # Along a direction with eigenvalue 1 + s² of the covariance, 1 − b² s² = (1 + s²)^(−1/2).
    length = np.sqrt((1 - 1 / np.sqrt(1 + square)) / square)
    return (length[:, None] * directions.T).astype(np.float32) @ modes


def widths_at(plan: Plan, parameters: Parameters, theta: np.ndarray) -> np.ndarray:
    """Return (3,) shift, vsini², sigma² at a point of the solver's unit cube, float64."""
    values, i = plan.low.copy(), len(parameters.labels)
    for j, free in enumerate((parameters.rv, parameters.vsini, parameters.broadening)):
        if free:
            values[j] += (plan.high[j] - plan.low[j]) * theta[i]
            i += 1
    return values


def _prior(plan: Plan, setup: Setup) -> Prior | None:
    """Return the priors of the options, the velocity's as a shift from the plan's; None where there are none."""
    given = setup.options.prior
    if not given:
        return None
    names = (*setup.model.emulator.space.names, "rv", "vsini", "broadening")
    mean, inverse = np.zeros(len(names), np.float32), np.zeros(len(names), np.float32)
    for name, (value, sigma) in given.items():
        i = names.index(name)
        # Velocities add as c·ln(λ_observed/λ_rest).
        mean[i] = log_velocity(value) - log_velocity(plan.rv) if name == "rv" else value
        inverse[i] = 1 / sigma
    return Prior(mean, inverse)
