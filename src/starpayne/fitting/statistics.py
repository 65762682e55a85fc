"""From where the solver ended to labels, errors and flags; host side, float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import lsq_linear

from starpayne.bundle import Model
from starpayne.emulators import flags_for
from starpayne.fitting.continuum import design_matrix
from starpayne.fitting.forward import log_velocity, radial_velocity
from starpayne.fitting.instrument import TabulatedProfile
from starpayne.fitting.noise import Noise, estimate
from starpayne.fitting.observation import Observation
from starpayne.fitting.options import FitOptions
from starpayne.fitting.plan import Plan
from starpayne.fitting.problem import Descent, forward_of
from starpayne.fitting.result import FitResult
from starpayne.fitting.solver import Parameters, Problem, Solution

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


def summarise(
    star: Observation,
    descent: Descent,
    stated: Problem,
    parameters: Parameters,
    model: Model,
    options: FitOptions,
    coverage: float,
) -> FitResult:
    """Return the result of a descent, with χ² and covariance in float64.

    Args:
        stated: the problem with the stated errors and the emulator's; that of ``descent`` has the added noise as well.
    """
    emulator, n_labels = model.emulator, len(parameters.labels)
    plan, problem, solution, jitter = descent.plan, descent.problem, descent.solution, descent.noise.jitter
    theta = np.asarray(solution.theta, np.float64)
    residual, jacobian = project(problem, solution)
    good = bool(np.all(np.isfinite(residual)) and np.all(np.isfinite(jacobian)) and np.all(np.isfinite(theta)))
    used = plan.used
    assert used is not None
    n = int(used.sum())
    freedom = max(1, n - len(parameters) - problem.basis.shape[1])
    with_jitter = float(residual @ residual) / freedom if good else np.nan
    stated_residual, stated_jacobian = project(stated, solution)
    known = "no_errors" not in star.flags
    chi2 = float(stated_residual @ stated_residual) if known else with_jitter * freedom
    reduced = chi2 / freedom
    # Without stated errors, and without jitter, the residuals are all there is to know the noise from.
    scale = float(np.sqrt(max(1.0, with_jitter) if known or jitter else with_jitter)) if good else np.nan

    cube = theta[:n_labels]
    labels = parameters.labels.from_cube(cube)
    shift, vsini2, sigma2 = descent.widths(parameters)
    rv = radial_velocity(log_velocity(plan.rv) + shift)
    in_cube = _inverse(jacobian.T @ jacobian)
    by_cube = _to_physical(parameters, plan, theta, in_cube, rv, vsini2, sigma2)
    covariance = by_cube @ in_cube @ by_cube.T * scale**2 * descent.noise.inflation
    raw = by_cube @ _inverse(stated_jacobian.T @ stated_jacobian) @ by_cube.T
    sigma = np.sqrt(np.diag(covariance))
    errors = dict(zip(parameters.names, sigma, strict=True))

    flags = list(star.flags)
    if not good:
        flags.append("failed")
    else:
        flags += _label_flags(parameters, plan, theta, sigma, by_cube, options)
        if to_gain(residual, jacobian, theta) > CONVERGED * max(1.0, with_jitter):
            flags.append("not_converged")
        # Where no errors are stated, the scatter between neighbouring pixels stands for them.
        if float(stated_residual @ stated_residual) / freedom > POOR:
            flags.append("poor_fit")
        flags += flags_for(emulator.space, emulator.domain.physics, labels)
    if coverage < LOW_COVERAGE:
        flags.append("low_coverage")

    model_flux, continuum = _curves(star, plan, problem, labels, rv, vsini2, sigma2, model, options, good)
    error = star.scale * (star.error if known else np.hypot(star.error, jitter) * scale)
    values = dict(zip(emulator.space.names, labels, strict=True))
    fixed = tuple(name for name, _ in parameters.labels.fixed)
    resolution = star.resolution
    return FitResult(
        name=star.name,
        labels={name: float(value) if good else np.nan for name, value in values.items()},
        errors={name: float(errors.get(name, 0.0)) for name in values},
        fixed=fixed,
        rv=rv if good else np.nan, rv_error=float(errors.get("rv", 0.0)),
        vsini=float(np.sqrt(max(vsini2, 0))) if good else np.nan, vsini_error=float(errors.get("vsini", 0.0)),
        broadening=float(np.sqrt(max(sigma2, 0))) if good else np.nan,
        broadening_error=float(errors.get("broadening", 0.0)),
        chi2=chi2 if good else np.nan, reduced_chi2=reduced if good else np.nan, jitter=jitter,
        flags=tuple(dict.fromkeys(flags)), names=parameters.names,
        covariance=covariance, raw_covariance=raw,
        wavelength=star.own_wavelength, flux=star.flux * star.scale, error=error,
        model=model_flux, continuum=continuum, used=used, coverage=coverage,
        snr=float(np.median(star.flux[used] * star.scale / error[used])),
        resolution=None if isinstance(resolution, TabulatedProfile) else float(np.median(resolution)),
        iterations=descent.iterations,
        medium=star.medium,
    )  # fmt: skip


def to_gain(residual: np.ndarray, jacobian: np.ndarray, theta: np.ndarray) -> float:
    """Return by how much the best step inside the unit cube should lower χ²."""
    if not len(theta):
        return 0.0
    q, r = np.linalg.qr(jacobian)
    target = -q.T @ residual
    inside = np.clip(theta, 0.0, 1.0)
    step = lsq_linear(r, target, (-inside - 1e-9, 1 - inside + 1e-9), method="bvls").x
    return float(target @ target - np.sum((r @ step - target) ** 2))


def _inverse(hessian: np.ndarray) -> np.ndarray:
    """Invert in the unit cube, with a Gaussian of the full range on each coordinate.

    It bounds what the data leave open, and takes 3 % off an error of a quarter of the range.
    """
    if not np.all(np.isfinite(hessian)):
        return np.full_like(hessian, np.nan)
    return np.linalg.inv(hessian + np.eye(len(hessian))) if len(hessian) else hessian


def noise_for(descent: Descent, n_parameters: int, robust: bool) -> Noise:
    """Return the noise with which the reduced χ² of a descent would be 1."""
    problem = descent.problem
    w = np.asarray(problem.inverse_error, np.float64)
    rows = np.flatnonzero(w > 0)
    residual = project(problem, descent.solution)[0][rows] / w[rows]
    freedom = max(1, len(rows) - n_parameters - problem.basis.shape[1])
    return estimate(residual, descent.noise.stated(w[rows] ** -2.0), freedom, robust)


def project(problem: Problem, solution: Solution) -> tuple[np.ndarray, np.ndarray]:
    """Return residual and derivative with the linear parameters solved, as the solver has them, in float64."""
    w = np.asarray(problem.inverse_error, np.float64)
    basis, modes, flux = (np.asarray(a, np.float64) for a in (problem.basis, problem.modes, problem.flux))
    model, derivative = np.asarray(solution.model, np.float64), np.asarray(solution.jacobian, np.float64)
    n_modes = modes.shape[1]
    prior = np.hstack([np.zeros((n_modes, basis.shape[1])), np.eye(n_modes)])
    design = np.vstack([np.hstack([basis * (model * w)[:, None], modes * w[:, None]]), prior])
    data = np.concatenate([flux * w, np.zeros(n_modes)])
    if not np.all(np.isfinite(design)):
        return np.full(len(data), np.nan), np.full((len(data), len(derivative)), np.nan)
    q, r = np.linalg.qr(design)
    coefficients = np.linalg.lstsq(r, q.T @ data, rcond=None)[0]
    continuum = basis @ coefficients[: basis.shape[1]]
    columns = np.vstack([(derivative * (continuum * w)).T, np.zeros((n_modes, len(derivative)))])
    return data - q @ (q.T @ data), -(columns - q @ (q.T @ columns))


def _to_physical(
    parameters: Parameters, plan: Plan, theta: np.ndarray, in_cube: np.ndarray, rv: float, vsini2: float, sigma2: float
) -> np.ndarray:
    """Return the (p, p) derivative of the physical parameters by the solver's coordinates."""
    n = len(parameters.labels)
    out = np.zeros((len(theta), len(theta)))
    table = parameters.labels.free
    if table is not None:
        out[:n, :n] = np.asarray(jax.jacfwd(table.from_cube)(jnp.asarray(theta[:n], jnp.float32)))
    width = plan.high - plan.low
    squares = {"rv": 0.0, "vsini": vsini2, "broadening": sigma2}
    for i in range(n, len(theta)):
        name = parameters.names[i]
        if name == "rv":
            beta = (rv / 299792.458) ** 2
            out[i, i] = width[0] * (1 - beta)
        else:
            span = width[1] if name == "vsini" else width[2]
            # d√q = dq / 2√q; near zero the error of q itself sets the scale, and at zero √σ_q is the one-sided 1 σ
            # limit.
            spread = span * np.sqrt(in_cube[i, i])
            out[i, i] = span / (2 * max(np.sqrt(max(squares[name], 0.0)), 0.5 * np.sqrt(spread)))
    return out


def _label_flags(
    parameters: Parameters, plan: Plan, theta: np.ndarray, sigma: np.ndarray, by_cube: np.ndarray, options: FitOptions
) -> list[str]:
    """Return flags of parameters on a bound, and of labels that the spectrum does not constrain."""
    flags = []
    room_ends = {"rv": options.rv_range, "vsini": options.vsini_max, "broadening": options.broadening_max}
    for i, name in enumerate(parameters.names):
        at_low, at_high = theta[i] < AT_BOUND, theta[i] > 1 - AT_BOUND
        if name in ("vsini", "broadening"):
            top = plan.vsini[1] if name == "vsini" else plan.broadening[1]
            at_high = at_high and top >= room_ends[name]
        if at_low or at_high:
            flags.append(f"at_bound:{name}")
        # The prior of unit width on each coordinate turns an error of 0.25 into 0.2425.
        limit = UNCONSTRAINED / np.sqrt(1 + UNCONSTRAINED**2)
        if name in parameters.labels.names and sigma[i] > limit * abs(by_cube[i, i]):
            flags.append(f"unconstrained:{name}")
    return flags


def _curves(
    star: Observation, plan: Plan, problem: Problem, labels: np.ndarray, rv: float, vsini2: float, sigma2: float,
    model: Model, options: FitOptions, good: bool,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return model times continuum and continuum on all pixels, in the unit of the spectrum; NaN where there is no
    model."""
    nothing = np.full(len(star.wavelength), np.nan)
    if not good:
        return nothing, nothing
    forward = forward_of(star, plan, model, options)
    reached = np.asarray(forward.pixels.weights).any(axis=1)
    normalised = np.asarray(
        forward(jnp.asarray(labels, jnp.float32), rv, np.sqrt(max(vsini2, 0)), np.sqrt(max(sigma2, 0))), np.float64
    )
    basis = design_matrix(star.own_wavelength, options.continuum_degree)
    used = plan.used
    assert used is not None
    weight = 1 / np.asarray(problem.inverse_error, np.float64)[: used.sum()]
    design = basis[used] * (normalised[used] / weight)[:, None]
    coefficients = np.linalg.lstsq(design, star.flux[used] / weight, rcond=None)[0]
    continuum = np.where(reached, basis @ coefficients, np.nan) * star.scale
    return continuum * normalised, continuum
