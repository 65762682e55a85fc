"""What may be chosen about a fit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from starpayne.errors import SpectrumError
from starpayne.fitting.broadening import LIMB_DARKENING
from starpayne.fitting.continuum import Continuum
from starpayne.fitting.linemask import LineMask
from starpayne.wavelengths import check_medium

WIDTHS = ("vsini", "broadening")
MOTIONS = ("rv", *WIDTHS)


@dataclass(frozen=True)
class FitOptions:
    """Choices of a fit; the defaults need no guess for any star.

    Args:
        fix: label name → value in physical units; these labels are not fitted (reported with error 0).
        bounds: label name → (low, high) in physical units, within the model's own; ``rv``, ``vsini`` and ``broadening``
            (km/s) have theirs here too.
        prior: name → (mean, standard deviation) of a Gaussian prior on a label, or on ``rv``, ``vsini`` or
            ``broadening``.
        rv: fixed radial velocity in km/s; None fits it.
        vsini: fixed v sin i in km/s; None fits it.
        broadening: standard deviation in km/s of a Gaussian on top (macroturbulence), fixed; None fits it. For slow
            rotators it cannot be told from v sin i, so by default it is fixed at 0 and v sin i stands for both.
        rv_range: km/s searched for the velocity.
        vsini_max, broadening_max: upper bounds in km/s.
        limb_darkening: linear coefficient of the rotation profile.
        continuum_degree: of the Chebyshev polynomial over the fitted range, or over each segment.
        continuum_knots: Å between the knots of a cubic spline in its place.
        segments: (low, high) in Å of parts with a continuum each, such as the orders of an echelle; pixels in none are
            not fitted. "gaps" parts the spectrum where pixels are missing.
        mask: (low, high) windows in Å, in the spectrum's own medium and frame, that are not used.
        line_mask: rest-frame windows that are not used, and zero points that are taken off the labels; see LineMask.
        window: (low, high) Å; only this part is used. None for everything that the model covers.
        medium: "air" or "vacuum", where the spectrum does not say. It is believed where the spectrum says otherwise,
            and that is flagged.
        emulator_error: whether the emulator's validation residuals enter the likelihood.
        jitter: whether noise of one size on all pixels is added until the reduced χ² is 1, where it is above. Where
            physics that the model lacks limits the fit, it keeps the smallest stated errors from ruling, and widens
            the errors.
        robust: whether pixels with a large misfit (bad lines, cosmic rays) then count less, as in a Student-t
            distribution.
        n_search: templates of the search for starting values.
        n_starts: how many of its results are followed to the end.
        max_iterations: of the solver.
        seed: of the templates' design.

    Raises:
        SpectrumError: for a value that is out of its range.
    """

    fix: Mapping[str, float] = field(default_factory=dict)
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    prior: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    rv: float | None = None
    vsini: float | None = None
    broadening: float | None = 0.0
    rv_range: tuple[float, float] = (-500.0, 500.0)
    vsini_max: float = 200.0
    broadening_max: float = 20.0
    limb_darkening: float = LIMB_DARKENING
    continuum_degree: int = 3
    continuum_knots: float | None = None
    segments: tuple[tuple[float, float], ...] | str = ()
    mask: tuple[tuple[float, float], ...] = ()
    line_mask: LineMask | None = None
    window: tuple[float, float] | None = None
    medium: str | None = None
    emulator_error: bool = True
    jitter: bool = True
    robust: bool = True
    n_search: int = 128
    n_starts: int = 3
    max_iterations: int = 60
    seed: int = 0

    def __post_init__(self) -> None:
        if self.medium is not None:
            check_medium(self.medium)
        if self.line_mask is not None and not isinstance(self.line_mask, LineMask):
            raise SpectrumError(f"line_mask = {self.line_mask!r} is no LineMask: read a file with LineMask.read(path)")
        _ = self.continuum  # refuses what cannot be
        windows = [*self.mask, *([self.window] if self.window else []), self.rv_range]
        for low, high in windows:
            if not low < high:
                raise SpectrumError(f"the range {low:g} to {high:g} must have its lower end first")
        for name, (low, high) in self.bounds.items():
            if not low < high:
                raise SpectrumError(f"bounds of {name}: {low:g} to {high:g} must have the lower end first")
            if name in WIDTHS and low < 0:
                raise SpectrumError(f"bounds of {name}: {low:g} km/s must not be negative")
            if name in MOTIONS and getattr(self, name) is not None:
                raise SpectrumError(f"{name} is fixed at {getattr(self, name):g} km/s: it has no bounds")
        for name, (mean, sigma) in self.prior.items():
            if not (math.isfinite(mean) and 0 < sigma < math.inf):
                raise SpectrumError(
                    f"prior of {name}: {mean:g} ± {sigma:g} must be finite, and the standard deviation positive"
                )
            if name in self.fix or (name in MOTIONS and getattr(self, name) is not None):
                raise SpectrumError(f"{name} is fixed: it cannot have a prior")
        for name, value, low, high in (
            ("rv", self.rv, -10_000, 10_000), ("vsini", self.vsini, 0, self.vsini_max),
            ("broadening", self.broadening, 0, self.broadening_max), ("vsini_max", self.vsini_max, 1, 1000),
            ("broadening_max", self.broadening_max, 1, 200), ("rv_range", min(self.rv_range), -10_000, 10_000),
            ("rv_range", max(self.rv_range), -10_000, 10_000), ("limb_darkening", self.limb_darkening, 0, 1),
            ("n_search", self.n_search, 1, 100_000),
            ("n_starts", self.n_starts, 1, 100), ("max_iterations", self.max_iterations, 1, 10_000),
        ):  # fmt: skip
            if value is not None and not low <= value <= high:
                raise SpectrumError(f"{name} = {value:g} is outside the range {low:g} to {high:g}")

    @property
    def continuum(self) -> Continuum:
        """How the continuum may bend."""
        return Continuum(self.continuum_degree, self.continuum_knots, self.segments)

    @property
    def label_bounds(self) -> dict[str, tuple[float, float]]:
        """The bounds of labels alone."""
        return {name: bounds for name, bounds in self.bounds.items() if name not in MOTIONS}

    @property
    def label_priors(self) -> dict[str, tuple[float, float]]:
        """The priors of labels alone."""
        return {name: prior for name, prior in self.prior.items() if name not in MOTIONS}

    @property
    def rv_limits(self) -> tuple[float, float]:
        """km/s between which the radial velocity is searched and fitted; twice the same where it is fixed."""
        if self.rv is not None:
            return self.rv, self.rv
        return self.bounds.get("rv", self.rv_range)

    @property
    def vsini_limits(self) -> tuple[float, float]:
        """km/s between which v sin i is fitted; twice the same where it is fixed."""
        if self.vsini is not None:
            return self.vsini, self.vsini
        return self.bounds.get("vsini", (0.0, self.vsini_max))

    @property
    def broadening_limits(self) -> tuple[float, float]:
        """km/s between which the Gaussian broadening is fitted; twice the same where it is fixed."""
        if self.broadening is not None:
            return self.broadening, self.broadening
        return self.bounds.get("broadening", (0.0, self.broadening_max))
