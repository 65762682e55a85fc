"""From where the solver ended to labels, errors and flags; host side, float64."""

from __future__ import annotations

from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from starpayne.emulators import flags_for
from starpayne.fitting.bounded import best_step, gain_of
from starpayne.fitting.forward import log_velocity, radial_velocity
from starpayne.fitting.noise import Noise, by_chance, estimate
from starpayne.fitting.plan import Plan
from starpayne.fitting.problem import Descent
from starpayne.fitting.projection import continuum_of, project, whitened_in_float64
from starpayne.fitting.resolution import TabulatedProfile
from starpayne.fitting.result import FitResult
from starpayne.fitting.setup import Setup
from starpayne.fitting.solver import ROOT_SOFTENING, Parameters, Problem
from starpayne.wavelengths import SPEED_OF_LIGHT

LOW_COVERAGE = 0.9
"""Less coverage than this is flagged."""

POOR = 2.0
"""Reduced χ² above which a fit is flagged."""

UNCONSTRAINED = 0.25
"""An error above this fraction of the room that a label has means that the spectrum does not say."""

AT_BOUND = 1e-4
"""Distance from a bound, as a fraction of the range, at which a parameter counts as lying on it."""

CONVERGED = 0.06
"""A converged fit has less than this, times the reduced χ², of χ² to gain: it is within 0.25 σ of the minimum."""


def summarise(descent: Descent, setup: Setup) -> FitResult:
    """Return the result of a descent, with χ² and covariance in float64."""
    star, plan, parameters = descent.scene.star, descent.plan, setup.parameters
    emulator, n_labels = setup.model.emulator, len(parameters.labels)
    problem, solution, jitter = descent.problem, descent.solution, descent.noise.jitter
    theta = np.asarray(solution.theta, np.float64)
    residual, jacobian = descent.projected
    good = bool(np.all(np.isfinite(residual)) and np.all(np.isfinite(jacobian)) and np.all(np.isfinite(theta)))
    freedom = degrees_of_freedom(descent, len(parameters))
    with_jitter = float(residual @ residual) / freedom if good else np.nan
    # With the stated errors and the emulator's alone, without what was added.
    stated = descent.scene.problem(descent.sight, Noise()) if jitter else problem
    stated_residual, stated_jacobian = project(stated, solution) if jitter else (residual, jacobian)
    known = "no_errors" not in star.flags
    chi2 = float(stated_residual @ stated_residual) if known else with_jitter * freedom
    reduced = chi2 / freedom
    factor = covariance_factor(descent, residual, len(parameters)) if good else np.nan
    scale = float(np.sqrt(factor / descent.noise.inflation))

    cube = theta[:n_labels]
    labels = parameters.labels.from_cube(cube)
    shift, vsini2, sigma2 = descent.widths(parameters)
    rv = radial_velocity(log_velocity(plan.rv) + shift)
    by_prior = prior_rows(problem, parameters, setup, theta, np.array([shift, vsini2, sigma2]))[1]
    data = descent.normal[1] / factor
    prior = by_prior.T @ by_prior
    in_cube, from_data = inverse_in_cube(data + prior), inverse_in_cube(data)
    by_cube = to_physical(parameters, plan, cube, in_cube, rv, vsini2, sigma2, setup)
    covariance = by_cube @ in_cube @ by_cube.T
    as_stated = stated_jacobian.T @ stated_jacobian if jitter else descent.normal[1]
    raw = by_cube @ inverse_in_cube(as_stated + prior) @ by_cube.T
    errors = dict(zip(parameters.names, np.sqrt(np.diag(covariance)), strict=True))
    raw_errors = dict(zip(parameters.names, np.sqrt(np.diag(raw)), strict=True))

    flags = list(star.flags)
    if not good:
        flags.append("failed")
    else:
        spread = np.sqrt(np.diag(by_cube @ from_data @ by_cube.T))
        flags += _label_flags(parameters, plan, theta, spread, by_cube, setup)
        if not converged(descent, setup):
            flags.append("not_converged")
        # Where no errors are stated, the scatter between neighbouring pixels stands for them.
        if float(stated_residual @ stated_residual) / freedom > POOR:
            flags.append("poor_fit")
        flags += flags_for(emulator.space, emulator.domain.physics, labels)
    if plan.coverage < LOW_COVERAGE:
        flags.append("low_coverage")
    if setup.model.residuals is None and setup.options.emulator_error:
        flags.append("emulator_error_unknown")

    mask = setup.options.line_mask
    zero_points = {} if mask is None else {k: v for k, v in mask.zero_points.items() if k in parameters.labels.names}
    if mask is not None and mask.zero_points and set(mask.free) != set(parameters.labels.names):
        flags.append("zero_points_of_other_labels")
    model_flux, continuum = _curves(descent, good)
    error = star.scale * (star.error if known else np.hypot(star.error, jitter) * scale)
    values = dict(zip(emulator.space.names, labels, strict=True))
    fixed = tuple(name for name, _ in parameters.labels.fixed)
    resolution, used = star.resolution, plan.used
    assert used is not None
    return FitResult(
        name=star.name,
        labels={name: float(value) - zero_points.get(name, 0.0) if good else np.nan for name, value in values.items()},
        zero_points=zero_points,
        errors={name: float(errors.get(name, 0.0)) for name in values},
        raw_errors={name: float(raw_errors.get(name, 0.0)) for name in (*values, "rv", "vsini", "broadening")},
        fixed=fixed,
        rv=rv if good else np.nan, rv_error=float(errors.get("rv", 0.0)),
        vsini=float(np.sqrt(max(vsini2, 0))) if good else np.nan, vsini_error=float(errors.get("vsini", 0.0)),
        broadening=float(np.sqrt(max(sigma2, 0))) if good else np.nan,
        broadening_error=float(errors.get("broadening", 0.0)),
        chi2=chi2 if good else np.nan, reduced_chi2=reduced if good else np.nan, jitter=jitter,
        flags=tuple(dict.fromkeys(flags)), names=parameters.names,
        covariance=covariance, raw_covariance=raw,
        wavelength=star.own_wavelength, flux=star.flux * star.scale, error=error,
        model=model_flux, continuum=continuum, used=used, coverage=plan.coverage,
        snr=float(np.median(star.flux[used] * star.scale / error[used])),
        resolution=None if isinstance(resolution, TabulatedProfile) else float(np.median(resolution)),
        iterations=descent.iterations,
        medium=star.medium,
    )  # fmt: skip


def degrees_of_freedom(descent: Descent, n_parameters: int) -> int:
    """Return pixels less parameters, at least one."""
    return max(1, int(descent.scene.used.sum()) - n_parameters - descent.problem.basis.shape[1])


def covariance_factor(descent: Descent, residual: np.ndarray, n_parameters: int) -> float:
    """Return by what the covariance of the parameters is larger than the weights of the pixels imply.

    By the correlation of the noise that was added; and by the reduced χ² where that is above one, or where neither
    errors nor jitter say what the noise is.
    """
    reduced = float(residual @ residual) / degrees_of_freedom(descent, n_parameters)
    known = "no_errors" not in descent.scene.star.flags or descent.noise.jitter > 0
    return descent.noise.inflation * (max(1.0, reduced) if known else reduced)


def inverse_in_cube(hessian: np.ndarray) -> np.ndarray:
    """Invert in the unit cube, with a Gaussian of the full range on each coordinate.

    It bounds what the data leave open, and takes 3 % off an error of a quarter of the range.
    """
    if not np.all(np.isfinite(hessian)):
        return np.full_like(hessian, np.nan)
    return np.linalg.inv(hessian + np.eye(len(hessian))) if len(hessian) else hessian


class Ahead(NamedTuple):
    """Where a descent could still go, by its derivative in float64.

    Args:
        step: (p,) the best one inside the unit cube.
        gain: by how much it should lower χ².
        reduced: the reduced χ² where it starts.
    """

    step: np.ndarray
    gain: float
    reduced: float

    @property
    def little(self) -> bool:
        """Whether it is no more than chance."""
        return self.gain <= CONVERGED * max(1.0, self.reduced)


def ahead(descent: Descent, setup: Setup) -> Ahead | None:
    """Return where a descent could still go; None if it has no numbers."""
    # Asked where a course ends, and for the result that follows.
    if descent not in _AHEAD:
        _AHEAD[descent] = _ahead(descent, setup)
    return _AHEAD[descent]


_AHEAD: WeakKeyDictionary[Descent, Ahead | None] = WeakKeyDictionary()


def _ahead(descent: Descent, setup: Setup) -> Ahead | None:
    parameters, theta = setup.parameters, descent.theta
    residual, jacobian = descent.projected
    if not (np.all(np.isfinite(residual)) and np.all(np.isfinite(jacobian))):
        return None
    off, by_prior = prior_rows(descent.problem, parameters, setup, theta, descent.widths(parameters))
    gradient, hessian = descent.normal
    gradient, hessian = gradient + by_prior.T @ off, hessian + by_prior.T @ by_prior
    step = best_step(hessian, gradient, theta)
    reduced = float(residual @ residual) / degrees_of_freedom(descent, len(parameters))
    return Ahead(step, gain_of(step, hessian, gradient), reduced)


def converged(descent: Descent, setup: Setup) -> bool:
    """Return whether a descent has no more than chance to gain."""
    left = ahead(descent, setup)
    return left is not None and left.little


def noise_for(descent: Descent, n_parameters: int, robust: bool) -> Noise:
    """Return the noise with which the reduced χ² of a descent would be 1."""
    problem, used = descent.problem, descent.scene.used
    freedom = degrees_of_freedom(descent, n_parameters)
    if descent.noise.nothing and descent.chi2 < 0.999 * by_chance(freedom):
        # What is estimated from is smaller still.
        return Noise()
    w = np.asarray(problem.inverse_error, np.float64)[used]
    # Whitened once more: C⁻¹ r is the residual less what the modes of the emulator's error explain of it.
    residual = whitened_in_float64(problem, descent.solved.residual)[used] / w
    return estimate(residual, descent.noise.stated(w**-2.0), freedom, robust)


def prior_rows(
    problem: Problem, parameters: Parameters, setup: Setup, theta: np.ndarray, widths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return how far each value with a prior is from its mean, in units of its σ, and the derivative in the cube."""
    prior = problem.prior
    if prior is None:
        return np.zeros(0), np.zeros((0, len(theta)))
    n = len(parameters.labels)
    inverse = np.asarray(prior.inverse_sigma, np.float64)
    free = [setup.model.emulator.space.names.index(name) for name in parameters.labels.names]
    derivative = np.zeros((len(inverse), len(theta)))
    derivative[np.ix_(free, range(n))] = setup.cube_to_labels(theta[:n])
    low, high = (np.asarray(x, np.float64) for x in (problem.low, problem.high))
    root = np.sqrt(np.maximum(widths[1:], 0) + ROOT_SOFTENING)
    slopes = np.array([1.0, *(0.5 / root)]) * (high - low)
    i = n
    for j, is_free in enumerate((parameters.rv, parameters.vsini, parameters.broadening)):
        if is_free:
            derivative[len(inverse) - 3 + j, i] = slopes[j]
            i += 1
    labels = parameters.labels.from_cube(theta[:n])
    off = (np.concatenate([labels, widths[:1], root]) - np.asarray(prior.mean, np.float64)) * inverse
    held = inverse > 0
    return off[held], (derivative * inverse[:, None])[held]


def to_physical(
    parameters: Parameters, plan: Plan, cube: np.ndarray, in_cube: np.ndarray, rv: float, vsini2: float, sigma2: float,
    setup: Setup,
) -> np.ndarray:  # fmt: skip
    """Return the (p, p) derivative of the physical parameters by the solver's coordinates."""
    n = len(cube)
    out = np.zeros(in_cube.shape)
    out[:n, :n] = setup.cube_to_labels(cube)
    width = plan.high - plan.low
    squares = {"rv": 0.0, "vsini": vsini2, "broadening": sigma2}
    for i in range(n, len(out)):
        name = parameters.names[i]
        if name == "rv":
            beta = (rv / SPEED_OF_LIGHT) ** 2
            out[i, i] = width[0] * (1 - beta)
        else:
            span = width[1] if name == "vsini" else width[2]
            # d√q = dq / 2√q; near zero the error of q itself sets the scale, and at zero √σ_q is the one-sided 1 σ
            # limit.
            spread = span * np.sqrt(in_cube[i, i])
            out[i, i] = span / (2 * max(np.sqrt(max(squares[name], 0.0)), 0.5 * np.sqrt(spread)))
    return out


def _label_flags(
    parameters: Parameters, plan: Plan, theta: np.ndarray, sigma: np.ndarray, by_cube: np.ndarray, setup: Setup
) -> list[str]:
    """Return flags of parameters on a bound, and of labels that the spectrum does not constrain.

    Args:
        sigma: (p,) errors as the data alone have them, without priors.
    """
    flags = []
    tops = {"vsini": (plan.vsini[2], setup.options.vsini_limits[1]),
            "broadening": (plan.broadening[2], setup.options.broadening_limits[1])}  # fmt: skip
    for i, name in enumerate(parameters.names):
        at_low, at_high = theta[i] < AT_BOUND, theta[i] > 1 - AT_BOUND
        if name in tops:
            at_high = at_high and tops[name][0] >= tops[name][1]
        if at_low or at_high:
            flags.append(f"at_bound:{name}")
        # The prior of unit width on each coordinate turns an error of 0.25 into 0.2425.
        limit = UNCONSTRAINED / np.sqrt(1 + UNCONSTRAINED**2)
        if name in parameters.labels.names and sigma[i] > limit * abs(by_cube[i, i]):
            flags.append(f"unconstrained:{name}")
    return flags


def _curves(descent: Descent, good: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return model times continuum and continuum on all pixels, in the unit of the spectrum; NaN where there is no
    model."""
    star, problem = descent.scene.star, descent.problem
    n = len(star.wavelength)
    if not good:
        return np.full(n, np.nan), np.full(n, np.nan)
    normalised = np.asarray(descent.solution.model, np.float64)[:n]
    weight = np.asarray(problem.inverse_error, np.float64)[:n]
    basis = np.asarray(problem.basis, np.float64)[:n]
    continuum = continuum_of(basis * (normalised * weight)[:, None], star.flux * weight, basis)
    continuum = np.where(problem.pixels.reached()[:n], continuum, np.nan) * star.scale
    return continuum * normalised, continuum
