"""What a fit returns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class FitResult:
    """Labels of one star with errors, and everything needed to judge and to draw the fit.

    Errors are 1 σ, marginalised over continuum and emulator error. They include the jitter; without it (or where it
    cannot make up for it) they are scaled by sqrt(max(1, reduced χ²)).

    Args:
        name: of the spectrum.
        labels, errors: name → value, physical units. A fixed label has error 0.
        zero_points: label → what was taken off its value (see LineMask); empty without a mask that has them.
        raw_errors: name → 1 σ as the stated errors and the emulator's alone imply, without jitter; labels, ``rv``,
            ``vsini`` and ``broadening``.
        fixed: names of the labels that were not fitted.
        rv, rv_error: radial velocity, km/s, in the frame of the spectrum's wavelengths.
        vsini, vsini_error: km/s. At 0 the error is one-sided: the 1 σ upper limit.
        broadening, broadening_error: standard deviation of the Gaussian, km/s.
        chi2: χ² by the stated errors and the emulator's, with the squares of the error-mode amplitudes; no jitter in
            it.
        reduced_chi2: that over the degrees of freedom.
        jitter: 1 σ noise added to every pixel, as a fraction of the median flux, so that the reduced χ² with it is 1.
        flags: what to know before using the numbers: ``at_bound:NAME``, ``unconstrained:NAME``, ``poor_fit``
            (reduced χ² above 2), ``not_converged``, ``failed`` (no number is of use), ``no_errors`` (noise taken
            from the scatter, χ² says nothing), ``medium_assumed``, ``unit_assumed:UNIT``, ``low_coverage``,
            ``masked_nan``, and the emulator's own.
        names: parameters of the covariance, in order.
        covariance: (p, p) with jitter; ``raw_covariance`` as the stated errors and the emulator's alone imply.
        wavelength, flux, error: (n,) the part of the spectrum that the model covers, as observed, in ``medium``.
        model: (n,) model times continuum; ``continuum`` (n,); NaN where the model does not reach.
        used: (n,) bool, the pixels of χ².
        coverage: fraction of the range shared by spectrum and model that could be used.
        snr: median flux over error of the pixels used.
        resolution: as given (the median, if one per pixel; None for a table).
        iterations: of the solver, over all starts and refinements.
    """

    name: str
    labels: Mapping[str, float]
    errors: Mapping[str, float]
    zero_points: Mapping[str, float]
    raw_errors: Mapping[str, float]
    fixed: tuple[str, ...]
    rv: float
    rv_error: float
    vsini: float
    vsini_error: float
    broadening: float
    broadening_error: float
    chi2: float
    reduced_chi2: float
    jitter: float
    flags: tuple[str, ...]
    names: tuple[str, ...]
    covariance: np.ndarray
    raw_covariance: np.ndarray
    wavelength: np.ndarray
    flux: np.ndarray
    error: np.ndarray
    model: np.ndarray
    continuum: np.ndarray
    used: np.ndarray
    coverage: float
    snr: float
    resolution: float | None
    iterations: int
    medium: str

    @property
    def residual(self) -> np.ndarray:
        """(n,) observed minus model, in the unit of flux."""
        return self.flux - self.model

    @property
    def n_pixels(self) -> int:
        """Pixels that entered χ²."""
        return int(self.used.sum())

    @property
    def correlation(self) -> np.ndarray:
        """(p, p) correlation of the fitted parameters."""
        sigma = np.sqrt(np.diag(self.covariance))
        return self.covariance / np.outer(sigma, sigma)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data; numbers that do not exist (a failed fit) are None."""
        return {
            "file": self.name,
            "labels": {
                name: {
                    "value": _number(value),
                    "error": _number(self.errors[name]),
                    "raw_error": _number(self.raw_errors[name]),
                }
                for name, value in self.labels.items()
            },
            "rv": _number(self.rv),
            "vsini": _number(self.vsini),
            "chi2": _number(self.chi2),
            "flags": list(self.flags),
            "rv_error": _number(self.rv_error),
            "vsini_error": _number(self.vsini_error),
            "broadening": _number(self.broadening),
            "broadening_error": _number(self.broadening_error),
            **{f"{name}_raw_error": _number(self.raw_errors[name]) for name in ("rv", "vsini", "broadening")},
            "zero_points": dict(self.zero_points),
            "reduced_chi2": _number(self.reduced_chi2),
            "jitter": _number(self.jitter),
            "n_pixels": self.n_pixels,
            "coverage": _number(self.coverage),
            "snr": _number(self.snr),
            "resolution": self.resolution,
            "fixed": list(self.fixed),
            "iterations": self.iterations,
        }


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
