"""Fit one observed spectrum: from pixels to labels with errors and flags."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from starpayne.bundle import Model
from starpayne.fitting.forward import refuse_intensities
from starpayne.fitting.freedom import FreeLabels
from starpayne.fitting.instrument import Resolution
from starpayne.fitting.noise import Noise
from starpayne.fitting.observation import Observation, observation
from starpayne.fitting.options import FitOptions
from starpayne.fitting.plan import Plan, share_pixels
from starpayne.fitting.problem import Descent, build
from starpayne.fitting.result import FitResult
from starpayne.fitting.search import Start, Templates, coarse_search
from starpayne.fitting.solver import Parameters, Solution, solve
from starpayne.fitting.statistics import noise_for, summarise
from starpayne.spectra import ObservedSpectrum

NEAR = 100.0
"""km/s: starts whose velocity is further from the best one's would leave another set of pixels, and are not
compared."""

REFINEMENTS = 6
"""How often error modes and jitter are made anew."""

ROUNDS = 4
"""How often the velocity or rotation may run into the room made for it before the fit is left as it is."""


def fit(
    spectrum: ObservedSpectrum, model: Model, resolution: Resolution, options: FitOptions | None = None
) -> FitResult:
    """Fit labels, radial velocity, broadening and continuum of one star; no guess is needed.

    A coarse search over templates and velocities gives starting values; bounded least squares with exact derivatives
    does the rest. The error budget is the spectrum's errors plus, in quadrature and with its correlations, the
    emulator's validation error.

    Args:
        spectrum: the observation, on any increasing sampling.
        model: an emulator with its validation residuals.
        resolution: λ/FWHM of the spectrograph: a number, one per pixel of the spectrum, or a TabulatedProfile.
        options: see FitOptions.

    Returns:
        the result; a fit that fails is a result with flags, not an exception.

    Raises:
        SpectrumError: the spectrum cannot be fitted with this model (no overlap, resolution too high, too few pixels, a
            model of intensities).
        LabelError: a fixed label is unknown or out of range.

    Example:
        ``fit(ObservedSpectrum.read("sun.fits"), load("model"), 47000, FitOptions(fix={"alpha_fe": 0})).labels``
    """
    refuse_intensities(model.emulator)
    options = options or FitOptions()
    free = FreeLabels.of(model.emulator.space, options.fix)
    star = observation(spectrum, model, resolution, options)
    templates = Templates.of(model.emulator, star.grid, free, options.n_search, options.seed)
    starts = search(star, templates, model, options)
    parameters = Parameters(free, options.rv is None, options.vsini is None, options.broadening is None)
    plans = [Plan.of(start, star, options) for start in starts]
    plans, coverage = share_pixels(plans, star, model, options.continuum_degree + 1)
    found = [descend(star, plan, plan.theta(parameters), parameters, model, options) for plan in plans]
    best = min(found, key=lambda d: d.chi2)
    descent = replace(best, iterations=sum(d.iterations for d in found))
    for _ in range(ROUNDS):
        descent = refine(star, descent, parameters, model, options)
        end = descent.widths(parameters)
        if not np.isfinite(descent.chi2) or not descent.plan.out_of_room(end, parameters, options):
            break
        moved = descent.plan.moved(end, descent.theta[: len(free)], parameters, options)
        (moved,), coverage = share_pixels([moved], star, model, options.continuum_degree + 1)
        # The pixels may be others now: their weights are made anew.
        noise, done = Noise(descent.noise.jitter), descent.iterations
        descent = descend(star, moved, moved.theta(parameters), parameters, model, options, noise, done)
    stated = build(star, descent.plan, parameters, descent.theta, model, options, Noise())
    return summarise(star, descent, stated, parameters, model, options, coverage)


def search(star: Observation, templates: Templates, model: Model, options: FitOptions) -> list[Start]:
    """Return the starts worth following, the best first."""
    used = star.used
    rv = options.rv
    starts = coarse_search(
        templates, star.wavelength[used], star.flux[used], star.error[used] ** -2.0, star.resolution_of(used),
        model_resolution=model.emulator.domain.resolution,
        rv_range=options.rv_range if rv is None else (rv, rv),
        vsini=options.vsini, vsini_max=options.vsini_max, degree=options.continuum_degree,
        limb_darkening=options.limb_darkening,
    )  # fmt: skip
    near = [s for s in starts if abs(s.rv - starts[0].rv) < NEAR]
    return near[: options.n_starts]


def descend(
    star: Observation, plan: Plan, theta: np.ndarray, parameters: Parameters, model: Model, options: FitOptions,
    noise: Noise | None = None, done: int = 0,
) -> Descent:  # fmt: skip
    """Solve once, with the emulator's error as it is at ``theta``, after ``done`` iterations already."""
    noise = noise or Noise()
    problem = build(star, plan, parameters, theta, model, options, noise)
    # A batch of one: the same compiled function serves every start and every round.
    stacked = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], problem)
    solved = solve(star.bound, parameters, stacked, jnp.asarray(theta, jnp.float32)[None], options.max_iterations)
    solution = Solution(*(np.asarray(leaf)[0] for leaf in solved))
    return Descent(plan, problem, solution, noise, done + int(solution.iterations))


def refine(star: Observation, descent: Descent, parameters: Parameters, model: Model, options: FitOptions) -> Descent:
    """Solve again, with the emulator's error and the jitter as the star found has them, until they stay."""
    again = descent.problem.modes.shape[1] > 0
    for _ in range(REFINEMENTS):
        if not np.isfinite(descent.chi2):
            break
        noise = noise_for(descent, len(parameters), options.robust) if options.jitter else descent.noise
        if not again and noise.like(descent.noise):
            break
        done = descent.iterations
        descent = descend(star, descent.plan, descent.theta, parameters, model, options, noise, done)
        again = False
    return descent
