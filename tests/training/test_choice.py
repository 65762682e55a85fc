"""Which few stars to fine-tune on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import toy
from shell import refuse

from starpayne.bundle import Model
from starpayne.emulators.coordinates import smooth_coordinates
from starpayne.errors import TrainingError
from starpayne.grid import Grid
from starpayne.synthesis import Design
from starpayne.training import few_spectra
from starpayne.training.marginal_likelihood import covariance
from starpayne.training.transfer import representative
from starpayne.training.transfer.choice import NOISE, least_variance
from starpayne.training.transfer.correction import expected_lengths


def left(kernel: np.ndarray, places: Sequence[int]) -> float:
    """The mean variance of a Gaussian process given noisy values at places (Rasmussen & Williams, eq. 2.26)."""
    known = kernel[np.ix_(places, places)] + NOISE * np.eye(len(places))
    return float(np.mean(np.diag(kernel - kernel[:, places] @ np.linalg.inv(known) @ kernel[places])))


def test_no_exchange_makes_the_choice_better() -> None:
    x = np.random.default_rng(0).normal(size=(14, 2))
    kernel = covariance("matern52", x, x)
    assert left(kernel, least_variance(kernel, 1)) == pytest.approx(min(left(kernel, [i]) for i in range(14)))
    every = sorted(left(kernel, list(c)) for c in combinations(range(14), 3))
    # Single exchanges need not end at the best choice of all 364, but among the best.
    assert left(kernel, least_variance(kernel, 3)) <= every[4]
    assert sorted(least_variance(kernel, 14)) == list(range(14))


def test_the_choice_leaves_less_unknown_than_any_of_fifty_random_ones(payne_model: Model, deeper_grid: Grid) -> None:
    labels = deeper_grid.labels[:50]
    chosen = representative(deeper_grid.space, labels, 6)
    scaled = smooth_coordinates(toy.SPACE, labels) / expected_lengths(toy.SPACE)
    kernel = covariance("matern52", scaled, scaled)
    random = np.random.default_rng(1)
    assert left(kernel, list(chosen)) < min(left(kernel, list(random.permutation(50)[:6])) for _ in range(50))
    data = few_spectra(payne_model, deeper_grid, 6, pick="representative")
    assert data.split["train"] == list(chosen)
    np.testing.assert_array_equal(data.labels, labels[chosen])


@pytest.mark.parametrize("n", [0, 51])
def test_more_stars_than_there_are_cannot_be_chosen(n: int, deeper_grid: Grid) -> None:
    with pytest.raises(TrainingError, match=rf"^{n} representative stars asked for: they are chosen among 50"):
        representative(deeper_grid.space, deeper_grid.labels[:50], n)


def test_an_unknown_choice_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = refuse(monkeypatch, capsys, "finetune", "m", "g", "--pick", "best", "--out", tmp_path / "o")
    assert "--pick best is not known; choose one of first, representative" in text


def test_a_design_of_some_rows_alone() -> None:
    whole = Design.shipped("demo")
    few = whole.only([7, 2, 11])
    np.testing.assert_array_equal(few.labels, whole.labels[[7, 2, 11]])
    assert (few.n_spectra, few.n_test, few.n_validation) == (3, 0, 0)
    assert Design.from_dict(few.to_dict()) == few
    np.testing.assert_array_equal(few.only([2, 0]).labels, whole.labels[[11, 7]])
