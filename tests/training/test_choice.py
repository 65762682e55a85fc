"""Which few stars to fine-tune on."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import toy
from shell import refuse

from starpayne.bundle import Model
from starpayne.errors import LabelError, TrainingError
from starpayne.grid import Grid
from starpayne.labels import LabelSpace
from starpayne.synthesis import Design
from starpayne.training import few_spectra
from starpayne.training.transfer import representative
from starpayne.training.transfer.choice import distances, k_medoids


def test_no_exchange_makes_the_choice_better() -> None:
    distance = distances(np.random.default_rng(0).normal(size=(14, 3)))

    def cost(*chosen: int) -> float:
        return float(distance[list(chosen)].min(axis=0).sum())

    assert cost(*k_medoids(distance, 1)) == pytest.approx(min(cost(i) for i in range(14)))
    three = k_medoids(distance, 3)
    every = sorted(cost(*c) for c in combinations(range(14), 3))
    # Single exchanges need not end at the best choice of all 364, but among the best.
    assert cost(*three) <= every[4]
    assert sorted(k_medoids(distance, 14)) == list(range(14))


def test_the_choice_is_by_the_spectra_that_the_model_predicts(payne_model: Model, deeper_grid: Grid) -> None:
    labels = deeper_grid.labels[:50]
    chosen = representative(payne_model, deeper_grid.space, labels, 6)
    flux = payne_model.emulator.predict(labels).flux

    def cost(places: np.ndarray) -> float:
        return float(np.abs(flux[:, None] - flux[None, places]).mean(axis=2).min(axis=1).mean())

    random = np.random.default_rng(1)
    assert cost(chosen) < min(cost(random.permutation(50)[:6]) for _ in range(50))
    data = few_spectra(payne_model, deeper_grid, 6, pick="representative")
    assert data.split["train"] == list(chosen)
    np.testing.assert_array_equal(data.labels, labels[chosen])


def test_a_grid_that_lacks_a_label_or_goes_further(payne_model: Model) -> None:
    names = toy.SPACE.names
    fewer = LabelSpace(tuple(label for label in toy.SPACE.labels if label.name != names[-1]))
    labels = toy.labels(30)[:, :-1]
    with pytest.raises(LabelError, match=names[-1]):
        representative(payne_model, fewer, labels, 5)
    held = representative(payne_model, fewer, labels, 5, {names[-1]: toy.SPACE[names[-1]].low})
    assert len(set(held)) == 5


@pytest.mark.parametrize("n", [0, 51])
def test_more_stars_than_there_are_cannot_be_chosen(n: int, payne_model: Model, deeper_grid: Grid) -> None:
    with pytest.raises(TrainingError, match=rf"^{n} representative stars asked for: they are chosen among 50"):
        representative(payne_model, deeper_grid.space, deeper_grid.labels[:50], n)


def test_an_unknown_choice_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = refuse(monkeypatch, capsys, "finetune", "m", "g", "--pick", "best", "--out", tmp_path / "o")
    assert "--pick best is not known; choose one of first, representative" in text


@pytest.mark.parametrize("words", [("--few", 5), ("--model", "m")])
def test_few_stars_need_a_model_to_be_chosen_by(
    words: tuple[object, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert "--few and --model go together" in refuse(
        monkeypatch, capsys, "synthesize", "d.toml", *words, "--out", tmp_path / "g"
    )


def test_a_design_of_some_rows_alone() -> None:
    whole = Design.shipped("demo")
    few = whole.only([7, 2, 11])
    np.testing.assert_array_equal(few.labels, whole.labels[[7, 2, 11]])
    assert (few.n_spectra, few.n_test, few.n_validation) == (3, 0, 0)
    assert Design.from_dict(few.to_dict()) == few
    np.testing.assert_array_equal(few.only([2, 0]).labels, whole.labels[[11, 7]])
