"""Where a descent starts, how much room it has, and which pixels it may use."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from starpayne.errors import SpectrumError
from starpayne.fitting.forward import log_velocity, no_overlap, radial_velocity
from starpayne.fitting.observation import Observation, about
from starpayne.fitting.options import FitOptions
from starpayne.fitting.resolution import typical_fwhm
from starpayne.fitting.search import Start
from starpayne.fitting.setup import Setup
from starpayne.fitting.solver import Parameters
from starpayne.wavelengths import doppler_factor

MIN_COVERAGE = 0.6
"""Less than this fraction of the range shared by spectrum and model is refused."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Where one descent starts and how much room it has.

    Args:
        cube: (n_free,) labels in the unit cube.
        rv: centre of the velocity's room, km/s; ``shift`` its (low, start, high) in km/s around it.
        vsini, broadening: (low, start, top) in km/s.
        used: (n,) the pixels of χ², and basis: (n, columns) the curves of the continuum that they determine; None until
            they are chosen.
        coverage: the fraction of the range shared by spectrum and model that they span.
    """

    cube: np.ndarray
    rv: float
    shift: tuple[float, float, float]
    vsini: tuple[float, float, float]
    broadening: tuple[float, float, float]
    used: np.ndarray | None = None
    basis: np.ndarray | None = None
    coverage: float = 0.0

    @classmethod
    def of(cls, start: Start, star: Observation, options: FitOptions) -> Plan:
        """Give a start of the search the room that its velocity and rotation may need."""
        rv = start.rv if options.rv is None else options.rv
        slow, fast = options.vsini_limits
        narrow, wide = options.broadening_limits
        vsini = float(np.clip(start.vsini, slow, fast))
        return cls(
            start.cube, rv, room(rv, half_room(star), options),
            (slow, vsini, min(fast, max(2 * vsini, 15.0))),
            (narrow, float(np.clip(3.0, narrow, wide)), min(max(10.0, narrow), wide)),
        )  # fmt: skip

    @property
    def half_range(self) -> float:
        return max(abs(self.shift[0]), abs(self.shift[2]))

    @property
    def margin(self) -> float:
        """km/s that the model must reach beyond a pixel and its instrumental profile."""
        return self.half_range + max(self.vsini[2], 2.5 * self.broadening[2])

    @property
    def low(self) -> np.ndarray:
        """(3,) lower bounds of shift, vsini², sigma²; the value itself where fixed."""
        return np.array([self.shift[0], self.vsini[0] ** 2, self.broadening[0] ** 2])

    @property
    def high(self) -> np.ndarray:
        """(3,) upper bounds of the same."""
        return np.array([self.shift[2], self.vsini[2] ** 2, self.broadening[2] ** 2])

    def theta(self, parameters: Parameters) -> np.ndarray:
        """Return the starting point in the solver's unit cube."""
        now = np.array([self.shift[1], self.vsini[1] ** 2, self.broadening[1] ** 2])
        free = [parameters.rv, parameters.vsini, parameters.broadening]
        width = np.where(free, self.high - self.low, 1.0)
        return np.concatenate([self.cube, np.clip((now - self.low) / width, 0, 1)[free]])

    def moved(self, values: np.ndarray, cube: np.ndarray, parameters: Parameters, options: FitOptions) -> Plan:
        """Return a plan from where a descent ended (shift, vsini², sigma²), with more room where it ran out of it."""
        tops, starts = [], np.sqrt(np.maximum(values[1:], 0))
        limits = (options.vsini_limits[1], options.broadening_limits[1])
        for (low, start, top), free, found, limit in zip(
            (self.vsini, self.broadening), (parameters.vsini, parameters.broadening), starts, limits, strict=True
        ):
            wider = min(limit, 2 * top) if found > 0.98 * top else top
            tops.append((low, float(found), wider) if free else (low, start, top))
        rv, shift = self.rv, (self.shift[0], float(values[0]), self.shift[2])
        if parameters.rv and self._rv_out_of_room(values[0]):
            rv = float(np.clip(radial_velocity(log_velocity(rv) + values[0]), *options.rv_limits))
            shift = room(rv, self.half_range, options)
        return Plan(cube, rv, shift, tops[0], tops[1])

    def out_of_room(self, values: np.ndarray, parameters: Parameters, options: FitOptions) -> bool:
        """Return whether a descent ended at an end of its room that is not a bound of the fit."""
        wide = [
            free and np.sqrt(max(value, 0)) > 0.98 * top and top < limit
            for value, free, (_, _, top), limit in zip(
                values[1:], (parameters.vsini, parameters.broadening), (self.vsini, self.broadening),
                (options.vsini_limits[1], options.broadening_limits[1]), strict=True,
            )
        ]  # fmt: skip
        total = radial_velocity(log_velocity(self.rv) + float(values[0]))
        slow, fast = options.rv_limits
        inside = slow + 0.01 < total < fast - 0.01
        return any(wide) or (parameters.rv and inside and self._rv_out_of_room(values[0]))

    def _rv_out_of_room(self, shift: float) -> bool:
        width = self.shift[2] - self.shift[0]
        return not self.shift[0] + 1e-3 * width < shift < self.shift[2] - 1e-3 * width


def room(rv: float, half: float, options: FitOptions) -> tuple[float, float, float]:
    """Return (low, start, high) of the shift around a velocity, cut at the ends of the range of velocities."""
    if options.rv is not None:
        return 0.0, 0.0, 0.0
    slow, fast = (log_velocity(v) - log_velocity(rv) for v in options.rv_limits)
    return max(-half, slow), 0.0, min(half, fast)


def half_room(star: Observation) -> float:
    """Return how far, in km/s, the velocity may be from that of a start: half a resolution element and more."""
    return 10.0 + 0.5 * min(typical_fwhm(star.resolution), 300.0)


def share_pixels(plans: list[Plan], star: Observation, setup: Setup) -> list[Plan]:
    """Give all plans the pixels that every one of them can use, so that their χ² compare.

    The first plan's velocity says where the windows of a line mask lie.

    Raises:
        SpectrumError: if too little of the shared range, or too few pixels, can be used.
    """
    possible = np.ones(len(star.wavelength), bool)
    for plan in plans:
        possible &= star.reached(plan.rv, plan.margin)
    kept = star.wavelength[possible]
    span = np.log(kept[-1] / kept[0]) if len(kept) else 0.0
    emulator = setup.model.emulator
    domain = emulator.domain
    shared = min(np.log(star.wavelength[-1] / star.wavelength[0]), np.log(domain.high / domain.low))
    coverage = float(min(1.0, span / shared))
    if coverage < MIN_COVERAGE:
        raise SpectrumError(
            about(
                star.name,
                f"only {100 * coverage:.0f} % of the range can be used at {plans[0].rv:.0f} km/s, "
                f"{100 * MIN_COVERAGE:.0f} % are needed; {no_overlap(star.wavelength, emulator)}",
            )
        )
    used = star.used & possible
    if setup.options.line_mask is not None:
        used &= setup.options.line_mask.keeps(star.wavelength / doppler_factor(plans[0].rv), domain.medium)
    basis = setup.options.continuum.basis(star.own_wavelength, used)
    needed = len(plans[0].cube) + basis.shape[1] + 3
    if used.sum() <= needed:
        raise SpectrumError(
            about(
                star.name,
                f"{used.sum()} pixels are left for {needed} parameters; fix labels, give the "
                "continuum less freedom, or mask less",
            )
        )
    return [replace(plan, used=used, basis=basis, coverage=coverage) for plan in plans]
