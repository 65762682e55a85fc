"""Evaluation: a model against spectra it has never seen, and against their labels."""

from starpayne.evaluation.recovery import Recovery, recover
from starpayne.evaluation.residuals import Evaluation, evaluate

__all__ = ["Evaluation", "Recovery", "evaluate", "recover"]
