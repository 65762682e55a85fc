"""Training: a grid and a recipe → a model folder."""

from starpayne.training.architectures import (
    AdditiveArchitecture,
    ConvolutionalArchitecture,
    GaussianProcessArchitecture,
    PayneArchitecture,
    PolynomialArchitecture,
    TransformerArchitecture,
)
from starpayne.training.data import TrainingData
from starpayne.training.distil import Distillation, distil
from starpayne.training.loop import train
from starpayne.training.recipe import Recipe, presets
from starpayne.training.transfer import (
    FineTuning,
    LearningCurve,
    Tuned,
    few_spectra,
    finetune,
    learning_curve,
    save_tuned,
)

__all__ = [
    "AdditiveArchitecture",
    "ConvolutionalArchitecture",
    "Distillation",
    "FineTuning",
    "GaussianProcessArchitecture",
    "LearningCurve",
    "PayneArchitecture",
    "PolynomialArchitecture",
    "Recipe",
    "TrainingData",
    "TransformerArchitecture",
    "Tuned",
    "distil",
    "few_spectra",
    "finetune",
    "learning_curve",
    "presets",
    "save_tuned",
    "train",
]
