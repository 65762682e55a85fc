"""Prediction in bulk: a table of labels → a store of spectra."""

from starpayne.prediction.run import predict_table
from starpayne.prediction.store import Predictions
from starpayne.prediction.table import LabelTable

__all__ = ["LabelTable", "Predictions", "predict_table"]
