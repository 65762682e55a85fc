"""Evaluation: a model against spectra it has never seen."""

from starpayne.evaluation.residuals import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate"]
