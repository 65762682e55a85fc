"""Fine-tuning: a trained emulator on another grid, with few spectra."""

from starpayne.training.transfer.choice import representative
from starpayne.training.transfer.curve import LearningCurve, learning_curve
from starpayne.training.transfer.data import PICKS, few_spectra
from starpayne.training.transfer.finetune import Tuned, finetune, refuse_place, save_tuned
from starpayne.training.transfer.settings import MOVES, FineTuning

__all__ = [
    "MOVES",
    "PICKS",
    "FineTuning",
    "LearningCurve",
    "Tuned",
    "few_spectra",
    "finetune",
    "learning_curve",
    "refuse_place",
    "representative",
    "save_tuned",
]
