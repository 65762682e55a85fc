"""The few spectra of another grid, as the model that is to be fine-tuned wants them, or why it cannot have them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import toy

from starpayne.bundle import Model
from starpayne.errors import GridError, LabelError, TrainingError
from starpayne.grid import Grid
from starpayne.labels import LabelSpace
from starpayne.training import few_spectra


def test_the_labels_are_in_the_model_s_order(payne_model: Model, tmp_path: Path) -> None:
    space = LabelSpace(tuple(reversed(toy.SPACE.labels)))
    other = toy.empty_grid(tmp_path / "g.zarr", space=space, labels=toy.labels()[:, ::-1])
    other.write_all(toy.spectra(toy.labels()), toy.continua(toy.labels()))
    data = few_spectra(payne_model, Grid.open(tmp_path / "g.zarr"), 20)
    assert data.space.names == toy.SPACE.names
    np.testing.assert_array_equal(data.labels, toy.labels()[:20])
    np.testing.assert_array_equal(data.targets[:, 0], toy.spectra(toy.labels())[:20])


def test_all_spectra_but_those_of_the_test_are_taken_by_default(payne_model: Model, deeper_grid: Grid) -> None:
    data = few_spectra(payne_model, deeper_grid)
    assert data.split == {"train": list(range(50)), "validation": [], "test": list(range(50, 60))}
    assert len(data.labels) == len(data.targets) == 50
    assert len(data.validation_labels) == 0


@pytest.mark.parametrize("n", [0, 4, 51])
def test_too_few_or_too_many_spectra_are_refused(n: int, payne_model: Model, deeper_grid: Grid) -> None:
    text = rf"^{n} spectra asked for; the grid has 50 usable ones to train and validate on, .* at least 5"
    with pytest.raises(TrainingError, match=text):
        few_spectra(payne_model, deeper_grid, n)


def test_a_model_of_intensities_is_refused(payne_model: Model, deeper_grid: Grid) -> None:
    domain = dataclasses.replace(toy.domain(), quantity="intensity", mu=(0.5, 1.0))
    model = Model(dataclasses.replace(payne_model.emulator, domain=domain), None, payne_model.training)
    with pytest.raises(TrainingError, match=r"takes grids of fluxes, and the model gives intensities; train afresh"):
        few_spectra(model, deeper_grid, 20)


def test_a_continuum_that_the_grid_lacks_is_refused(payne_model: Model, tmp_path: Path) -> None:
    other = toy.empty_grid(tmp_path / "g.zarr", continuum=False)
    other.write_all(toy.spectra(toy.labels()), None)
    with pytest.raises(GridError, match=r"continuum"):
        few_spectra(payne_model, Grid.open(tmp_path / "g.zarr"), 20, continuum=True)


def test_labels_that_do_not_map_are_refused(payne_model: Model, deeper_grid: Grid) -> None:
    with pytest.raises(LabelError, match=r"teff is a label of the grid; it cannot be held at 5772"):
        few_spectra(payne_model, deeper_grid, 20, hold={"teff": 5772})
