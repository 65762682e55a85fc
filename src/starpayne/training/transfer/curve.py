"""How many spectra are needed: fine-tuning on growing subsets, and the law its error follows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from starpayne.bundle import Model
from starpayne.errors import TrainingError
from starpayne.grid import Grid
from starpayne.training.transfer.data import few_spectra
from starpayne.training.transfer.finetune import finetune
from starpayne.training.transfer.settings import FineTuning

SIZES = (10, 20, 50, 100, 200, 500, 1000)
"""Numbers of spectra that are tried where none are given, as far as the grid has them."""

MOST = math.log(1e15)
"""More spectra than this are called infinitely many."""


@dataclass(frozen=True)
class LearningCurve:
    """The error of fine-tuned models against the number of spectra.

    Args:
        n: numbers of spectra, increasing.
        mae: of each, on spectra that none of the models has seen.
        before: of the base model, adapted to the grid's labels and wavelengths, on those of the largest n.
        slope, scale: the power law ``mae = scale * n**slope`` through the points that improve; NaN where fewer than
            two do.
    """

    n: tuple[int, ...]
    mae: tuple[float, ...]
    before: float
    slope: float
    scale: float

    @classmethod
    def through(cls, n: Sequence[int], mae: Sequence[float], before: float) -> LearningCurve:
        """Fit the law, by least squares in the logarithms, to the sizes whose error is under that of the base."""
        better = [(math.log(a), math.log(b)) for a, b in zip(n, mae, strict=True) if b < before]
        slope = scale = math.nan
        if len(better) > 1:
            x, y = np.array(better).T
            slope, intercept = (float(v) for v in np.polyfit(x, y, 1))
            scale = math.exp(intercept)
        return cls(tuple(n), tuple(mae), before, slope, scale)

    def expected(self, n: float) -> float:
        """Return the error that the law gives for n spectra; NaN where there is no law."""
        return self.scale * n**self.slope

    def needed(self, mae: float) -> float:
        """Return how many spectra the law asks for an error; infinity where the error does not fall."""
        if not (self.slope < 0 and mae > 0):
            return math.inf
        power = (math.log(mae) - math.log(self.scale)) / self.slope
        return math.exp(power) if power < MOST else math.inf

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        law = None if math.isnan(self.slope) else {"slope": self.slope, "scale": self.scale}
        return {"n": list(self.n), "mae": list(self.mae), "mae_before": self.before, "law": law}


def learning_curve(
    base: Model,
    grid: Grid,
    settings: FineTuning,
    sizes: Sequence[int] = (),
    *,
    error: Callable[[Model], float] | None = None,
    progress: Callable[[int, int, Mapping[str, float]], None] | None = None,
    **options: Any,
) -> LearningCurve:
    """Fine-tune on the first n spectra of the grid for growing n.

    Args:
        base, grid, settings: as of :func:`finetune`.
        sizes: numbers of spectra; by default 10, 20, 50 … as far as the grid has them.
        error: of a model; by default its error on the spectra that were held out of its own.
        progress: called as ``progress(size number, sizes, {"validation_mae": …})``.
        options: of :func:`few_spectra`.

    Raises:
        TrainingError: for sizes that the grid does not have.
    """
    available = len(grid.usable([*grid.split.train, *grid.split.validation]))
    chosen = sorted(set(sizes)) or [n for n in SIZES if n <= available]
    if not chosen or chosen[-1] > available:
        raise TrainingError(
            f"a learning curve over {chosen or 'no'} spectra: the grid has {available} to train and validate on"
        )
    errors, before = [], math.nan
    for i, n in enumerate(chosen):
        tuned = finetune(base, few_spectra(base, grid, n, **options), settings)
        if error is None:
            errors.append(tuned.model.validation["mae"])
            before = tuned.model.training["finetuning"]["mae_before"]
        else:
            errors.append(error(tuned.model))
            before = error(replace(tuned.model, emulator=tuned.start))
        if progress is not None:
            progress(i + 1, len(chosen), {"validation_mae": errors[-1]})
    return LearningCurve.through(chosen, errors, before)
