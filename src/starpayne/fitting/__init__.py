"""Fitting: from an observed spectrum to labels with errors and flags."""

from starpayne.fitting.fit import fit
from starpayne.fitting.forward import ForwardModel
from starpayne.fitting.linemask import LineMask
from starpayne.fitting.masklearning import learn_mask
from starpayne.fitting.options import FitOptions
from starpayne.fitting.posterior import Posterior, sample
from starpayne.fitting.resolution import ResolutionCurve, TabulatedProfile
from starpayne.fitting.result import FitResult
from starpayne.fitting.survey import fit_many

__all__ = [
    "FitOptions", "FitResult", "ForwardModel", "LineMask", "Posterior", "ResolutionCurve", "TabulatedProfile", "fit",
    "fit_many", "learn_mask", "sample",
]  # fmt: skip
