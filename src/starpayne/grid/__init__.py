"""A grid of synthetic spectra on disk."""

from starpayne.grid.angles import labels_with_mu, normalised_intensity, space_with_mu
from starpayne.grid.split import SPLITS, Failure, Split
from starpayne.grid.store import DONE, FAILED, MAX_CHUNK, MISSING, SCHEMA, Grid

__all__ = [
    "DONE", "FAILED", "Failure", "Grid", "MAX_CHUNK", "MISSING", "SCHEMA", "SPLITS", "Split", "labels_with_mu",
    "normalised_intensity", "space_with_mu",
]  # fmt: skip
