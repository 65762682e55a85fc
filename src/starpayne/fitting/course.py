"""The course of one star's fit, from pixels to the best labels, interrupted wherever descents are to be followed.

It is a generator: it asks for descents and goes on when they have ended, so that those of many stars can be followed
side by side (see :mod:`starpayne.fitting.following`).
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from starpayne.emulators import BoundEmulator
from starpayne.fitting.lanes import Lane, shapes
from starpayne.fitting.noise import Noise
from starpayne.fitting.observation import Observation, observation
from starpayne.fitting.plan import Plan, share_pixels
from starpayne.fitting.problem import Descent, Glance, Scene, Sight
from starpayne.fitting.resolution import Resolution
from starpayne.fitting.search import Inquiry, Query, Start
from starpayne.fitting.setup import Setup
from starpayne.fitting.statistics import ahead, noise_for
from starpayne.spectra import ObservedSpectrum

SAME = 5.0
"""km/s: starts whose velocity is nearer to the best one's than this take that one: they share its pixels."""

REFINEMENTS = 6
"""How often error modes and jitter are made anew."""

ROUNDS = 4
"""How often the velocity or rotation may run into the room made for it before the fit is left as it is."""

REPAIRS = 4
"""How often a descent that has ended too early is taken up again."""

STRIDES = 1.0, 0.3
"""From where: fractions of the step that it should have taken."""

WORTH = 0.1
"""A repair that gains less than this fraction of what it promised is the last."""

CHANCE = 4.0
"""Standard deviations of the reduced χ² above one, up to which the best start counts as the one that found its star."""

FIRST, LAST = 0.5, 0.01
"""Tolerances of the solver: for descents whose errors are made anew where they end, and for those that stay."""


@dataclass(frozen=True, eq=False)
class Request:
    """A descent to be followed."""

    bound: BoundEmulator
    lane: Lane

    @property
    def done(self) -> bool:
        return self.lane.done

    @cached_property
    def shape(self) -> object:
        """What must be the same for two of them to share a call of a compiled function."""
        return "descent", id(self.bound), *shapes(self.lane.problem)


Asked = Request | Glance | Inquiry
Course = Generator[list[Asked], None, Descent]


def course(spectrum: ObservedSpectrum, resolution: Resolution, setup: Setup) -> Course:
    """Fit one star; returns where the last descent ended.

    Raises:
        SpectrumError: as :func:`starpayne.fitting.fit`.
    """
    star = observation(spectrum, resolution, setup)
    options, parameters = setup.options, setup.parameters
    starts = yield from search(star, setup)

    (plan,) = share_pixels([Plan.of(starts[0], star, options)], star, setup)
    descent = yield from descend(star, plan, setup)
    if len(starts) > 1 and doubtful(descent, setup):
        found = [descent]
        plans = share_pixels([Plan.of(start, star, options) for start in starts], star, setup)
        if np.any(plans[0].used != plan.used):
            found = [(yield from descend(star, plans[0], setup))]
        for other in plans[1:]:
            found.append((yield from descend(star, other, setup)))
        best = min(found, key=lambda d: d.chi2)
        descent = best.after(sum(d.iterations for d in found))
    for _ in range(ROUNDS):
        descent = yield from refine(descent, setup)
        end = descent.widths(parameters)
        if not np.isfinite(descent.chi2) or not descent.plan.out_of_room(end, parameters, options):
            break
        moved = descent.plan.moved(end, descent.theta[: len(parameters.labels)], parameters, options)
        (moved,) = share_pixels([moved], star, setup)
        # The pixels may be others now: their weights are made anew.
        noise, done = Noise(descent.noise.jitter), descent.iterations
        descent = yield from descend(star, moved, setup, noise, done)
    for _ in range(REPAIRS):
        left = ahead(descent, setup)
        if left is None or left.little:
            break
        before, descent = descent.chi2, (yield from repair(descent, left.step, setup))
        if before - descent.chi2 < WORTH * left.gain:
            break
    return descent


def repair(descent: Descent, step: np.ndarray, setup: Setup) -> Course:
    """Take a descent that has ended too early up again, from further along the way that float64 shows.

    Along a long valley the solver loses the way in float32. Valleys bend: what a whole step misses a part of it may
    reach.
    """
    done = descent.iterations
    for fraction in STRIDES:
        theta = np.clip(descent.theta + fraction * step, 0.0, 1.0)
        tried = yield from follow(descent.scene, descent.sight, descent.noise, theta, None, setup, LAST, done)
        if tried.chi2 < descent.chi2:
            return tried
        done = tried.iterations
    return descent.after(done)


def search(star: Observation, setup: Setup) -> Generator[list[Asked], None, list[Start]]:
    """Return the starts worth following, the best first."""
    options, used = setup.options, star.used
    query = Query(
        star.wavelength[used], star.flux[used], star.error[used] ** -2.0, star.resolution_of(used),
        star.model_resolution, options.rv_limits, options.vsini_limits, options.continuum_degree,
        options.limb_darkening, options.n_starts,
    )  # fmt: skip
    inquiry = setup.searcher(star.grid).about(query)
    yield [inquiry]
    assert inquiry.starts is not None
    best = inquiry.starts[0].rv
    return [replace(s, rv=best) if abs(s.rv - best) < SAME else s for s in inquiry.starts]


def doubtful(descent: Descent, setup: Setup) -> bool:
    """Return whether χ² or the solver says that another start may have led to another place."""
    used = int(descent.scene.used.sum())
    freedom = max(1, used - len(setup.parameters) - descent.problem.basis.shape[1])
    likely = descent.chi2 / freedom < 1 + CHANCE * np.sqrt(2 / freedom)
    return not likely or int(descent.solution.iterations) >= setup.options.max_iterations


def descend(star: Observation, plan: Plan, setup: Setup, noise: Noise | None = None, done: int = 0) -> Course:
    """Solve once, with the emulator's error as it is at the plan's start, after ``done`` iterations already."""
    scene, theta = Scene.of(star, plan, setup), plan.theta(setup.parameters)
    sight = yield from see(scene, theta, setup)
    return (yield from follow(scene, sight, noise or Noise(), theta, None, setup, FIRST, done))


def refine(descent: Descent, setup: Setup) -> Course:
    """Solve again, with the emulator's error and the jitter as the star found has them, until they stay."""
    options = setup.options
    again = True
    for _ in range(REFINEMENTS):
        if not np.isfinite(descent.chi2):
            break
        noise = noise_for(descent, len(setup.parameters), options.robust) if options.jitter else descent.noise
        if not again and noise.like(descent.noise):
            break
        scene, theta = descent.scene, descent.theta
        sight = descent.sight
        if again:
            sight = yield from see(scene, theta, setup)
        descent = yield from follow(scene, sight, noise, theta, descent, setup, LAST, descent.iterations)
        again = False
    return descent


def see(scene: Scene, theta: np.ndarray, setup: Setup) -> Generator[list[Asked], None, Sight]:
    """Look at the emulator's error from where the star is."""
    glance = scene.glance(theta, setup)
    if not glance.done:
        yield [glance]
    return glance.sight


def follow(
    scene: Scene, sight: Sight, noise: Noise, theta: np.ndarray, known: Descent | None, setup: Setup,
    tolerance: float, done: int,
) -> Course:  # fmt: skip
    """Follow one descent; ``known`` has the model and its derivative at the start already."""
    problem = scene.problem(sight, noise)
    lane = Lane(problem, theta, tolerance, setup.options.max_iterations)
    if known is not None:
        lane = replace(lane, model=known.solution.model, derivative=known.solution.jacobian)
    yield [Request(scene.star.bound, lane)]
    return Descent(scene, sight, problem, lane.solution, noise, done + lane.iterations)
