"""How many spectra are needed: a power law through the errors of growing subsets, and what it asks for a goal."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import toy

from starpayne.bundle import Model
from starpayne.errors import TrainingError
from starpayne.evaluation import evaluate
from starpayne.grid import Grid
from starpayne.training import FineTuning, LearningCurve, TrainingData, Tuned, learning_curve


def test_a_power_law_is_found_and_inverted() -> None:
    n = (10, 40, 160)
    curve = LearningCurve.through(n, [0.1 * x**-0.5 for x in n], before=0.05)
    assert curve.slope == pytest.approx(-0.5)
    assert curve.scale == pytest.approx(0.1)
    assert curve.expected(640) == pytest.approx(0.1 / 640**0.5)
    assert curve.needed(curve.expected(640)) == pytest.approx(640)
    assert curve.to_dict() == {
        "n": [10, 40, 160], "mae": list(curve.mae), "mae_before": 0.05,
        "law": {"slope": curve.slope, "scale": curve.scale},
    }  # fmt: skip


def test_sizes_that_do_not_improve_on_the_base_are_no_part_of_the_law() -> None:
    curve = LearningCurve.through((5, 10, 40), [0.06, 0.1 * 10**-0.5, 0.1 * 40**-0.5], before=0.05)
    assert curve.slope == pytest.approx(-0.5)
    none = LearningCurve.through((5, 10, 40), [0.06, 0.07, 0.04], before=0.05)
    assert np.isnan(none.slope)
    assert np.isnan(none.expected(100))
    assert none.needed(0.01) == np.inf
    assert none.to_dict()["law"] is None


@pytest.mark.parametrize("goal", [0.0, 1e-300])
def test_a_goal_beyond_reach_needs_infinitely_many(goal: float) -> None:
    assert LearningCurve.through((10, 40), [0.1, 0.09], before=1.0).needed(goal) == np.inf


def test_an_error_that_rises_reaches_no_goal() -> None:
    assert LearningCurve.through((10, 40), [0.1, 0.2], before=1.0).needed(0.05) == np.inf


def test_the_learning_curve_holds_the_error_of_each_size(
    payne_model: Model, tuned_payne: Tuned, deeper_grid: Grid
) -> None:
    seen: list[tuple[int, int]] = []
    curve = learning_curve(
        payne_model,
        deeper_grid,
        toy.fine_tuning(),
        (20, 10),
        progress=lambda step, total, _: seen.append((step, total)),
    )
    assert curve.n == (10, 20)
    assert seen == [(1, 2), (2, 2)]
    assert curve.mae[1] == tuned_payne.model.validation["mae"]
    assert curve.before == tuned_payne.model.training["finetuning"]["mae_before"]


@pytest.fixture
def sizes_tried(tuned_payne: Tuned, monkeypatch) -> list[int]:
    """How many spectra each fine-tuning of the next learning curve is given; none of them is carried out."""
    seen: list[int] = []

    def pretended(base: Model, data: TrainingData, settings: FineTuning) -> Tuned:
        seen.append(len(data.labels))
        return tuned_payne

    monkeypatch.setattr(importlib.import_module("starpayne.training.transfer.curve"), "finetune", pretended)
    return seen


def test_base_and_tuned_models_are_measured_on_the_same_spectra(
    payne_model: Model, tuned_payne: Tuned, deeper_grid: Grid, sizes_tried: list[int]
) -> None:
    curve = learning_curve(
        payne_model, deeper_grid, toy.fine_tuning(), (20,), error=lambda model: evaluate(model, deeper_grid).mae
    )
    assert sizes_tried == [20]
    assert curve.before == evaluate(payne_model, deeper_grid).mae
    assert curve.mae == (evaluate(tuned_payne.model, deeper_grid).mae,)


def test_the_learning_curve_takes_sizes_as_far_as_the_grid_has_them(
    payne_model: Model, deeper_grid: Grid, sizes_tried: list[int]
) -> None:
    assert learning_curve(payne_model, deeper_grid, toy.fine_tuning()).n == (10, 20, 50)
    assert sizes_tried == [10, 20, 50]
    with pytest.raises(TrainingError, match=r"^a learning curve over \[10, 51\] spectra: the grid has 50 to train"):
        learning_curve(payne_model, deeper_grid, toy.fine_tuning(), (10, 51))
    assert sizes_tried == [10, 20, 50]
