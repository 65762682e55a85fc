"""A Payne that was fine-tuned on twenty spectra of deeper lines: all its weights, or a low-rank update of them."""

from __future__ import annotations

import pytest
import toy

from starpayne.bundle import Model
from starpayne.grid import Grid
from starpayne.training import Tuned, few_spectra, finetune


@pytest.fixture(scope="session")
def tuned_payne(payne_model: Model, deeper_grid: Grid, reports: list[tuple[int, int]]) -> Tuned:
    """The Payne with all its weights fine-tuned on twenty spectra."""
    data = few_spectra(payne_model, deeper_grid, 20, name="deeper.zarr")
    return finetune(
        payne_model, data, toy.fine_tuning(), lambda step, total, _: reports.append((step, total)), "payne.model"
    )


@pytest.fixture(scope="session")
def reports() -> list[tuple[int, int]]:
    """What the fine-tuning of ``tuned_payne`` said of its progress."""
    return []


@pytest.fixture(scope="session")
def low_rank_payne(payne_model: Model, deeper_grid: Grid) -> Tuned:
    """A low-rank update of the Payne, of the same spectra."""
    return finetune(payne_model, few_spectra(payne_model, deeper_grid, 20), toy.fine_tuning(moves="lora"))
