"""Evaluation: a model against spectra it has never seen, and against their labels."""

from starpayne.evaluation.distillation import Comparison, compare_distilled
from starpayne.evaluation.recovery import Recovery, recover
from starpayne.evaluation.residuals import Evaluation, evaluate
from starpayne.evaluation.transfer import drift, forgotten

__all__ = ["Comparison", "Evaluation", "Recovery", "compare_distilled", "drift", "evaluate", "forgotten", "recover"]
