"""Training: a grid and a recipe → a model folder."""

from starpayne.training.data import TrainingData
from starpayne.training.loop import train
from starpayne.training.recipe import PayneArchitecture, Recipe, TransformerArchitecture, presets

__all__ = ["PayneArchitecture", "Recipe", "TrainingData", "TransformerArchitecture", "presets", "train"]
