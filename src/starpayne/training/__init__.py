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
from starpayne.training.loop import train
from starpayne.training.recipe import Recipe, presets

__all__ = [
    "AdditiveArchitecture",
    "ConvolutionalArchitecture",
    "GaussianProcessArchitecture",
    "PayneArchitecture",
    "PolynomialArchitecture",
    "Recipe",
    "TrainingData",
    "TransformerArchitecture",
    "presets",
    "train",
]
