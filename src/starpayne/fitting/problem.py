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
from starpayne.fitting.broadening import Broadening
from starpayne.fitting.forward import log_velocity
from starpayne.fitting.instrument import LogGrid
from starpayne.fitting.lanes import lanes, shapes, stacked
from starpayne.fitting.noise import Noise
from starpayne.fitting.observation import Observation
from starpayne.fitting.pixels import AnyArray, Bands, PixelMatrix
from starpayne.fitting.plan import Plan, half_room
from starpayne.fitting.projection import Solved, continuum_of, project, solve_continuum
from starpayne.fitting.setup import Setup
from starpayne.fitting.solver import Parameters, Prior, Problem, Solution

PAD_PIXELS, PAD_BAND = 256, 8
"""Sizes are rounded up to multiples of these, so that stars of one set-up share one compiled function."""


@dataclass(frozen=True, eq=False)
class Scene:
    """One star as one plan sees it: a problem that lacks the noise alone.

    Args:
        star, plan: what is fitted, and from where.
        blank: the problem, on every pixel of the observation (those that are not used have no weight yet).
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
        options, n = setup.options, len(star.wavelength)
        assert plan.used is not None
        size = -(-n // PAD_PIXELS) * PAD_PIXELS

        def padded(array: np.ndarray, fill: float = 0.0) -> np.ndarray:
            out = np.full((size, *array.shape[1:]), fill)
            out[:n] = array
            return out

        basis = conditioned(options.continuum.basis(star.own_wavelength, plan.used), plan.used)
        problem = Problem(
            broadening=setup.broadening(star.grid, half_room(star), star.uniform or 0.0),
            pixels=widened(star.bands(plan.rv), size, star.grid.size).matrix(star.grid.size),
            flux=padded(star.flux).astype(np.float32),
            inverse_error=np.zeros(size, np.float32),
            basis=padded(basis).astype(np.float32),
            whitener=np.zeros((0, size), np.float32),
            low=plan.low.astype(np.float32),
            high=plan.high.astype(np.float32),
            prior=_prior(plan, setup),
        )
        used = np.zeros(size, bool)
        used[:n] = plan.used
        return cls(star, plan, problem, padded(star.error, 1.0), used)

    def seen_from(self, theta: np.ndarray, setup: Setup) -> Sight:
        """Return the emulator's error as the pixels see it, for the star at ``theta``."""
        glance = self.glance(theta, setup)
        if not glance.done:
            look(setup, [glance])
        return self.sight(glance, setup)

    def glance(self, theta: np.ndarray, setup: Setup) -> Glance:
        """Return what has to be computed, best for several stars together, before there can be a :meth:`sight`."""
        n_labels = len(setup.parameters.labels)
        labels = setup.parameters.labels.from_cube(np.asarray(theta[:n_labels], np.float32))
        widths = widths_at(self.plan, setup.parameters, theta).astype(np.float32)
        return Glance(self.star.bound, self.star.grid, self.blank, labels, widths, has_error=setup.has_error)

    def sight(self, glance: Glance, setup: Setup) -> Sight:
        """Return the emulator's error as the pixels see it, of a glance that is done."""
        if glance.seen is None:
            size = len(self.used)
            return Sight(np.zeros((0, size)), np.zeros(size))
        model, modes, left = (np.asarray(x, np.float64) for x in glance.seen)
        data, error = np.where(self.used, self.blank.flux, 0.0), np.where(self.used, self.error, np.inf)
        basis = np.asarray(self.blank.basis, np.float64)
        continuum = continuum_of(basis * (model / error)[:, None], data / error, basis)
        residuals = setup.model.residuals
        size = 1.0 if residuals is None else float(residuals.size_at(setup.model.emulator.space, glance.labels))
        return Sight(size * modes * continuum, size * left * continuum)

    def problem(self, sight: Sight, noise: Noise) -> Problem:
        """Return the problem with the emulator's error, and with noise added to it and the stated errors."""
        used = self.used
        variance = self.error[used] ** 2 + sight.left[used] ** 2
        inverse = np.zeros(len(used))
        inverse[used] = noise.variance(variance) ** -0.5
        # An emulator that gives no numbers: the solver finds that out, an eigenvalue problem would only stop.
        modes = sight.modes if np.all(np.isfinite(sight.modes)) else np.zeros((0, len(used)))
        whitener = whitener_of(modes * inverse).astype(np.float32)
        return replace(self.blank, inverse_error=inverse.astype(np.float32), whitener=whitener)


@dataclass(frozen=True, eq=False)
class Sight:
    """The emulator's error on the pixels, times the continuum: modes (k, n), and what they leave (n,).

    What they leave is taken to be alike over one line-spread function: no averaging of it is claimed.
    """

    modes: np.ndarray
    left: np.ndarray


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
    """The model and the emulator's error at one place, still to be seen on the pixels of a star.

    Args:
        bound, grid: the emulator on its grid.
        problem: of the star, without the noise.
        labels, widths: the place: physical labels; shift, vsini², sigma².
        has_error: whether there is anything to be seen.
        seen: normalised model (n,), error modes (k, n) and what they leave (n,); None until it is computed.
    """

    bound: BoundEmulator
    grid: LogGrid
    problem: Problem
    labels: np.ndarray
    widths: np.ndarray
    has_error: bool
    seen: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    @property
    def done(self) -> bool:
        return self.seen is not None or not self.has_error

    @cached_property
    def shape(self) -> object:
        """What must be the same for two of them to share a call of a compiled function."""
        return "glance", id(self.bound), *shapes(self.problem)


def look(setup: Setup, waiting: Sequence[Glance]) -> None:
    """Compute as many glances as one call holds, of problems whose arrays have the same shapes."""
    first = waiting[0]
    curves = setup.error_curves(first.grid, first.problem.broadening)
    assert curves is not None
    size = lanes(first.bound, len(curves[0]), len(waiting))
    filled = [*waiting[:size], *[waiting[-1]] * (size - len(waiting))]
    pixels = stacked([glance.problem for glance in filled], frozenset({"pixels"})).pixels
    labels, widths = (np.stack([getattr(glance, name) for glance in filled]) for name in ("labels", "widths"))
    seen = _observe(first.bound, first.problem.broadening, pixels, labels, widths, *curves)
    model, modes, left = (np.asarray(x) for x in seen)
    for i, glance in enumerate(waiting[:size]):
        glance.seen = model[i], modes[i], left[i]


@eqx.filter_jit
def _observe(
    bound: BoundEmulator,
    broadening: Broadening,
    pixels: PixelMatrix,
    labels: Float[AnyArray, "stars n_labels"],
    widths: Float[AnyArray, "stars three"],
    spectra: Complex[AnyArray, "k frequencies"],
    left: Float[AnyArray, " grid"],
) -> tuple[Float[Array, "stars n"], Float[Array, "stars k n"], Float[Array, "stars n"]]:
    """Return the normalised models, and the emulator's error modes and what they leave, on the pixels."""

    def one(
        pixels: PixelMatrix, labels: Array, widths: Array
    ) -> tuple[Float[Array, " n"], Float[Array, "k n"], Float[Array, " n"]]:
        own = broadening.spectrum(bound(labels) - 1)
        products = jnp.concatenate([own[None], spectra]) * broadening.transfer(*widths)
        seen = pixels(broadening.back(products, len(left)))
        return 1 + seen[0], seen[1:], pixels(jnp.asarray(left))

    return jax.vmap(one)(pixels, labels, widths)


def conditioned(basis: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Return columns that span the same curves, orthogonal on the pixels used.

    Polynomials that are orthogonal on a whole range are nearly dependent on a part of it, more so than the float32 of
    the solver can tell apart. What the pixels used do not tell apart in its digits is left out.
    """
    _, size, directions = np.linalg.svd(np.linalg.qr(basis[used], mode="r"))
    kept = size > 1e-7 * size[0]
    return basis @ (directions[kept].T * (np.sqrt(used.sum()) / size[kept]))


def widened(bands: Bands, size: int, grid_size: int) -> Bands:
    """Return a matrix with rows of zeros up to ``size``, and bands of a rounded width."""
    n, width = bands.weights.shape
    band = -(-width // PAD_BAND) * PAD_BAND
    first, weights = np.zeros(size, np.int32), np.zeros((size, band), np.float32)
    # The band is widened on the right with zeros, and shifted left where that would leave the grid.
    back = np.maximum(bands.first + band - grid_size, 0)
    columns = np.arange(width) + back[:, None]
    weights[np.arange(n)[:, None], columns] = bands.weights
    first[:n] = bands.first - back
    return Bands(first, weights)


def whitener_of(modes: np.ndarray) -> np.ndarray:
    """Return (k, n) Bᵀ such that x − B Bᵀ x is (I + MᵀM)^(−1/2) x for modes M (k, n)."""
    if not len(modes):
        return modes
    square, directions = np.linalg.eigh(modes @ modes.T)
    square = np.maximum(square, 1e-12)
    # Along a direction with eigenvalue 1 + s² of the covariance, 1 − b² s² = (1 + s²)^(−1/2).
    length = np.sqrt((1 - 1 / np.sqrt(1 + square)) / square)
    return length[:, None] * (directions.T @ modes)


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
