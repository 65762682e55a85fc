"""What stands beside the spectra of a grid: the split into training, validation and test, and what failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from starpayne.errors import GridError

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Failure:
    """One spectrum that could not be synthesized: its row, its labels and the reason in plain words."""

    row: int
    labels: Mapping[str, float]
    reason: str


@dataclass(frozen=True)
class Split:
    """Which rows train (in the order in which ``--n-train N`` takes them), validate and test."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]

    @classmethod
    def last_rows(cls, n: int, n_validation: int, n_test: int) -> Split:
        """Test on the last rows, validate on those before them, train on the rest (a Sobol prefix fills the box)."""
        if n_validation < 0 or n_test < 0 or n_validation + n_test >= n:
            raise GridError(
                f"a split with {n_validation} validation and {n_test} test spectra leaves none of {n} to train on"
            )
        rows = range(n)
        n_train = n - n_validation - n_test
        return cls(tuple(rows[:n_train]), tuple(rows[n_train : n - n_test]), tuple(rows[n - n_test :]))

    def check(self, n: int) -> None:
        """Raise GridError if a row is named twice or does not exist among n."""
        rows = np.array([*self.train, *self.validation, *self.test], dtype=np.int64)
        if len(rows) and (rows.min() < 0 or rows.max() >= n):
            raise GridError(f"the split names row {rows.max() if rows.max() >= n else rows.min()} of {n} spectra")
        if len(np.unique(rows)) != len(rows):
            raise GridError("the split names a row twice: train, validation and test must not overlap")
