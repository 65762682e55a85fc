"""Fitting: from an observed spectrum to labels with errors and flags."""

from starpayne.fitting.fit import fit
from starpayne.fitting.forward import ForwardModel
from starpayne.fitting.linemask import LineMask
from starpayne.fitting.many import fit_many
from starpayne.fitting.masklearning import learn_mask
from starpayne.fitting.options import FitOptions
from starpayne.fitting.posterior import Posterior, sample
from starpayne.fitting.resolution import ResolutionCurve, TabulatedProfile
from starpayne.fitting.result import FitResult
from starpayne.fitting.survey import Survey, fit_survey

__all__ = [
    "FitOptions", "FitResult", "ForwardModel", "LineMask", "Posterior", "ResolutionCurve", "Survey", "TabulatedProfile",
    "fit", "fit_many", "fit_survey", "learn_mask", "sample",
]  # fmt: skip
