"""Fitting: from an observed spectrum to labels with errors and flags."""

from starpayne.fitting.fit import fit
from starpayne.fitting.forward import ForwardModel
from starpayne.fitting.instrument import TabulatedProfile
from starpayne.fitting.options import FitOptions
from starpayne.fitting.result import FitResult

__all__ = ["FitOptions", "FitResult", "ForwardModel", "TabulatedProfile", "fit"]
