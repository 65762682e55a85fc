"""Where a descent starts, how much room it has, and which pixels it may use."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from starpayne.bundle import Model
from starpayne.errors import SpectrumError
from starpayne.fitting.forward import log_velocity, no_overlap, radial_velocity
from starpayne.fitting.instrument import PixelMatrix, pixel_matrix
from starpayne.fitting.observation import Observation, about
from starpayne.fitting.options import FitOptions
from starpayne.fitting.search import Start
from starpayne.fitting.solver import Parameters
from starpayne.wavelengths import SPEED_OF_LIGHT

MIN_COVERAGE = 0.6
"""Less than this fraction of the range shared by spectrum and model is refused."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Where one descent starts and how much room it has.

    Args:
        cube: (n_free,) labels in the unit cube.
        rv: centre of the velocity's room, km/s; ``shift`` its (low, start, high) in km/s around it.
        vsini, broadening: (start, top) in km/s.
        used: (n,) the pixels of χ²; None until they are chosen.
    """

    cube: np.ndarray
    rv: float
    shift: tuple[float, float, float]
    vsini: tuple[float, float]
    broadening: tuple[float, float]
    used: np.ndarray | None = None

    @classmethod
    def of(cls, start: Start, star: Observation, options: FitOptions) -> Plan:
        """Give a start of the search the room that its velocity and rotation may need."""
        sharpest = 100.0 if not isinstance(star.resolution, (int, float)) else SPEED_OF_LIGHT / star.resolution
        rv = start.rv if options.rv is None else options.rv
        vsini = (start.vsini, min(options.vsini_max, max(2 * start.vsini, 15.0)))
        broadening = (3.0, min(10.0, options.broadening_max))
        return cls(
            start.cube, rv, room(rv, 10.0 + 0.5 * min(sharpest, 300.0), options),
            vsini if options.vsini is None else (options.vsini, options.vsini),
            broadening if options.broadening is None else (options.broadening, options.broadening),
        )  # fmt: skip

    @property
    def half_range(self) -> float:
        return max(abs(self.shift[0]), abs(self.shift[2]))

    @property
    def margin(self) -> float:
        """km/s that the model must reach beyond a pixel and its instrumental profile."""
        return self.half_range + max(self.vsini[1], 2.5 * self.broadening[1])

    @property
    def low(self) -> np.ndarray:
        """(3,) lower bounds of shift, vsini², sigma²; the value itself where fixed."""
        fixed = [top if start == top else 0.0 for start, top in (self.vsini, self.broadening)]
        return np.array([self.shift[0], fixed[0] ** 2, fixed[1] ** 2])

    @property
    def high(self) -> np.ndarray:
        """(3,) upper bounds of the same."""
        return np.array([self.shift[2], self.vsini[1] ** 2, self.broadening[1] ** 2])

    def theta(self, parameters: Parameters) -> np.ndarray:
        """Return the starting point in the solver's unit cube."""
        now = np.array([self.shift[1], self.vsini[0] ** 2, self.broadening[0] ** 2])
        free = [parameters.rv, parameters.vsini, parameters.broadening]
        width = np.where(free, self.high - self.low, 1.0)
        return np.concatenate([self.cube, np.clip((now - self.low) / width, 0, 1)[free]])

    def moved(self, values: np.ndarray, cube: np.ndarray, parameters: Parameters, options: FitOptions) -> Plan:
        """Return a plan from where a descent ended (shift, vsini², sigma²), with more room where it ran out of it."""
        tops, starts = [], np.sqrt(np.maximum(values[1:], 0))
        limits = (options.vsini_max, options.broadening_max)
        for (start, top), free, found, limit in zip(
            (self.vsini, self.broadening), (parameters.vsini, parameters.broadening), starts, limits, strict=True
        ):
            tops.append((found, min(limit, 2 * top) if found > 0.98 * top else top) if free else (start, top))
        rv, shift = self.rv, (self.shift[0], float(values[0]), self.shift[2])
        if parameters.rv and self._rv_out_of_room(values[0]):
            rv = float(np.clip(radial_velocity(log_velocity(rv) + values[0]), *options.rv_range))
            shift = room(rv, self.half_range, options)
        return Plan(cube, rv, shift, tops[0], tops[1], self.used)

    def out_of_room(self, values: np.ndarray, parameters: Parameters, options: FitOptions) -> bool:
        """Return whether a descent ended at an end of its room that is not a bound of the fit."""
        wide = [
            free and np.sqrt(max(value, 0)) > 0.98 * top and top < limit
            for value, free, (_, top), limit in zip(
                values[1:], (parameters.vsini, parameters.broadening), (self.vsini, self.broadening),
                (options.vsini_max, options.broadening_max), strict=True,
            )
        ]  # fmt: skip
        total = radial_velocity(log_velocity(self.rv) + float(values[0]))
        slow, fast = options.rv_range
        inside = slow + 0.01 < total < fast - 0.01
        return any(wide) or (parameters.rv and inside and self._rv_out_of_room(values[0]))

    def _rv_out_of_room(self, shift: float) -> bool:
        width = self.shift[2] - self.shift[0]
        return not self.shift[0] + 1e-3 * width < shift < self.shift[2] - 1e-3 * width


def room(rv: float, half: float, options: FitOptions) -> tuple[float, float, float]:
    """Return (low, start, high) of the shift around a velocity, cut at the ends of the range of velocities."""
    if options.rv is not None:
        return 0.0, 0.0, 0.0
    slow, fast = (log_velocity(v) - log_velocity(rv) for v in options.rv_range)
    return max(-half, slow), 0.0, min(half, fast)


def matrix_at(plan: Plan, star: Observation, model: Model) -> tuple[PixelMatrix, np.ndarray]:
    """Return the instrument of a plan and (n,) bool: which pixels it can give."""
    return pixel_matrix(
        star.grid, star.wavelength, star.resolution, velocity=plan.rv,
        model_resolution=model.emulator.domain.resolution, margin=plan.margin,
    )  # fmt: skip


def share_pixels(plans: list[Plan], star: Observation, model: Model, n_linear: int) -> tuple[list[Plan], float]:
    """Give all plans the pixels that every one of them can use, so that their χ² compare; and the coverage.

    Raises:
        SpectrumError: if too little of the shared range, or too few pixels, can be used.
    """
    possible = np.ones(len(star.wavelength), bool)
    for plan in plans:
        possible &= matrix_at(plan, star, model)[1]
    domain = model.emulator.domain
    kept = star.wavelength[possible]
    span = np.log(kept[-1] / kept[0]) if len(kept) else 0.0
    shared = min(np.log(star.wavelength[-1] / star.wavelength[0]), np.log(domain.high / domain.low))
    coverage = float(min(1.0, span / shared))
    if coverage < MIN_COVERAGE:
        raise SpectrumError(
            about(
                star.name,
                f"only {100 * coverage:.0f} % of the range can be used at {plans[0].rv:.0f} km/s, "
                f"{100 * MIN_COVERAGE:.0f} % are needed; {no_overlap(star.wavelength, model.emulator)}",
            )
        )
    used = star.used & possible
    needed = len(plans[0].cube) + n_linear + 3
    if used.sum() <= needed:
        raise SpectrumError(
            about(
                star.name,
                f"{used.sum()} pixels are left for {needed} parameters; fix labels, lower the continuum "
                "degree, or mask less",
            )
        )
    return [replace(plan, used=used) for plan in plans], coverage
