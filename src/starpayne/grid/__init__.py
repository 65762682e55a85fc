"""A grid of synthetic spectra on disk."""

from starpayne.grid.split import SPLITS, Failure, Split
from starpayne.grid.store import DONE, FAILED, MAX_CHUNK, MISSING, SCHEMA, Grid

__all__ = ["DONE", "FAILED", "Failure", "Grid", "MAX_CHUNK", "MISSING", "SCHEMA", "SPLITS", "Split"]
