"""What a fit would find of a star whose labels are known: its errors, before there is a spectrum.

Everything is the fit's own, taken where it would end: the pixels it would use, the derivative of its forward model, its
continuum, the emulator's error as those pixels see it. Only the descent is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np

from starpayne.bundle import Model
from starpayne.errors import LabelError, SpectrumError
from starpayne.fitting.forward import ForwardModel
from starpayne.fitting.lockstep import derivatives
from starpayne.fitting.noise import Noise
from starpayne.fitting.observation import observation
from starpayne.fitting.plan import Plan, share_pixels
from starpayne.fitting.problem import Descent, Scene, Sight
from starpayne.fitting.projection import project, standard_errors
from starpayne.fitting.resolution import Resolution
from starpayne.fitting.search import Start
from starpayne.fitting.setup import Setup
from starpayne.fitting.solver import Solution
from starpayne.fitting.statistics import inverse_in_cube, prior_rows, summarise, to_physical
from starpayne.spectra import ObservedSpectrum

SAME_VALUE = 1e-6
"""A label counts as held at the star's value where they differ by less than this fraction of its range."""


@dataclass(frozen=True, eq=False)
class Forecast:
    """A star of known labels as a fit sees it where it ends.

    Args:
        descent: the problem, and the model and its derivative at the star's labels.
        setup: model and options of the fit.

    Example:
        ``forecast(spectrum, Setup(model, FitOptions()), 47000, labels, rv=12.0, vsini=4.0).errors()``
    """

    descent: Descent
    setup: Setup

    @property
    def names(self) -> tuple[str, ...]:
        """What a fit would fit: free labels, then those of rv, vsini, broadening that are free."""
        return self.setup.parameters.names

    def jacobian(self, emulator_error: bool = True, known_continuum: bool = False) -> np.ndarray:
        """Return (n, p) the derivative of the whitened pixels by the solver's coordinates, in float64."""
        descent, problem = self.descent, self.descent.problem
        if not emulator_error:
            sight = Sight.nothing(len(descent.scene.used))
            problem = descent.scene.problem(sight, Noise())
        return project(problem, descent.solution, known_continuum)[1]

    def prior(self) -> np.ndarray:
        """Return (p, p) what the fit knows beforehand, in the solver's coordinates: priors, and the labels' ranges."""
        descent, setup = self.descent, self.setup
        widths = descent.widths(setup.parameters)
        rows = prior_rows(descent.problem, setup.parameters, setup, descent.theta, widths)[1]
        return rows.T @ rows + np.eye(len(self.names))

    def by_cube(self) -> np.ndarray:
        """Return (p, p) the derivative of the physical parameters by the solver's coordinates."""
        n, parameters = len(self.setup.parameters.labels), self.setup.parameters
        jacobian = self.jacobian()
        in_cube = inverse_in_cube(jacobian.T @ jacobian + self.prior() - np.eye(len(self.names)))
        _, vsini2, sigma2 = self.descent.widths(parameters)
        plan = self.descent.plan
        return to_physical(parameters, plan, self.descent.theta[:n], in_cube, plan.rv, vsini2, sigma2, self.setup)

    def covariance(self, emulator_error: bool = True, known_continuum: bool = False) -> np.ndarray:
        """Return (p, p) covariance of the parameters, physical units, as a fit states it.

        The range of each label, and priors, are known beforehand: what the spectrum does not tell has the range as its
        error.
        """
        jacobian, by_cube = self.jacobian(emulator_error, known_continuum), self.by_cube()
        in_cube = np.linalg.inv(jacobian.T @ jacobian + self.prior())
        return by_cube @ in_cube @ by_cube.T

    def errors(self, emulator_error: bool = True, known_continuum: bool = False) -> dict[str, float]:
        """Return the 1 σ error of each parameter from :meth:`covariance`."""
        sigma = np.sqrt(np.diag(self.covariance(emulator_error, known_continuum)))
        return dict(zip(self.names, map(float, sigma), strict=True))

    def bounds(self, emulator_error: bool = True, known_continuum: bool = False) -> dict[str, float]:
        """Return the Cramér–Rao bound of each parameter: nothing is known but the pixels."""
        sigma = standard_errors(self.jacobian(emulator_error, known_continuum), self.by_cube())
        return dict(zip(self.names, map(float, sigma), strict=True))

    @property
    def flags(self) -> tuple[str, ...]:
        """What the fit would say of this star, but for what depends on where its descent ends."""
        found = summarise(self.descent, self.setup).flags
        return tuple(f for f in found if not f.startswith("at_bound:") and f not in ("not_converged", "poor_fit"))


def forecast(
    spectrum: ObservedSpectrum, setup: Setup, resolution: Resolution, labels: Mapping[str, float], *,
    rv: float = 0.0, vsini: float = 0.0, broadening: float = 0.0,
) -> Forecast:  # fmt: skip
    """Look at a star of known labels as :func:`starpayne.fitting.fit` would at its end.

    Args:
        spectrum: pixels, errors and flux; the flux tells the level of the continuum (see :func:`expected_spectrum`).
        setup: model and options.
        resolution: λ/FWHM, as of a fit.
        labels: every label of the model, physical units; those that the options fix must have these values.
        rv, vsini, broadening: of the star, km/s.

    Raises:
        LabelError: for labels out of range, or fixed at other values; SpectrumError: as of a fit.
    """
    parameters, space = setup.parameters, setup.model.emulator.space
    vector = space.vector(labels)
    space.check(vector)
    star_has = {**dict(zip(space.names, vector.tolist(), strict=True)), "rv": rv, "vsini": vsini}
    for name, value in parameters.labels.fixed:
        if abs(value - star_has[name]) > SAME_VALUE * (space[name].high - space[name].low):
            raise LabelError(f"{name} is fixed at {value:g} but the star has {star_has[name]:g}: fix it there")
    for name, value in (("rv", setup.options.rv), ("vsini", setup.options.vsini)):
        if value is not None and value != star_has[name]:
            raise SpectrumError(f"{name} is fixed at {value:g} km/s but the star has {star_has[name]:g}: fix it there")
    star = observation(spectrum, resolution, setup)
    free = parameters.labels
    values = np.array([star_has[name] for name in free.names])
    cube = np.zeros(0) if free.free is None else np.asarray(free.free.to_cube(values), np.float64)
    plan = Plan.of(Start(cube, rv, vsini, 0.0), star, setup.options)
    if parameters.broadening:
        low, _, top = plan.broadening
        plan = replace(plan, broadening=(low, broadening, top))
    (plan,) = share_pixels([plan], star, setup)
    scene, theta = Scene.of(star, plan, setup), plan.theta(parameters)
    sight = scene.seen_from(theta, setup)
    problem = scene.problem(sight, Noise())
    at = jnp.asarray(theta, jnp.float32)[None]
    model, derivative = derivatives(star.bound, parameters, problem, at, frozenset())
    solution = Solution(theta, 0.0, 0, np.asarray(model[0]), np.asarray(derivative[0]))
    return Forecast(Descent(scene, sight, problem, solution, Noise(), 0), setup)


def expected_spectrum(
    model: Model, wavelength: np.ndarray, resolution: Resolution, labels: Mapping[str, float], snr: float, *,
    medium: str | None = None, rv: float = 0.0, vsini: float = 0.0,
) -> ObservedSpectrum:  # fmt: skip
    """Return what a spectrograph would record of a star on average: no noise, a flat continuum.

    Args:
        wavelength: (n,) pixels, Å; those that the model cannot give are masked.
        snr: signal-to-noise ratio per pixel at the continuum; the error is the same on all pixels.
        medium: of the wavelengths; by default the model's.
        rv, vsini: km/s.
    """
    emulator = model.emulator
    medium = medium or emulator.domain.medium
    forward, usable = ForwardModel.on(
        emulator, wavelength, resolution, medium=medium, velocity=rv, velocity_range=0.0, vsini_max=max(vsini, 1.0)
    )
    vector = emulator.space.vector(labels)
    flux = np.asarray(forward(jnp.asarray(vector, jnp.float32), rv, vsini), np.float64)
    return ObservedSpectrum(wavelength, flux, np.full(len(flux), 1 / snr), usable, medium)
