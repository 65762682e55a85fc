"""Evaluation: the figures that are quoted."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import toy

from starpayne.errors import GridError, WavelengthError
from starpayne.evaluation import evaluate
from starpayne.grid import Split
from starpayne.labels import Label, LabelSpace
from starpayne.wavelengths import air_to_vacuum


def test_figures_are_those_of_the_residuals(payne_model, finished_grid) -> None:
    result = evaluate(payne_model, finished_grid)
    rows = list(toy.SPLIT.test)
    predicted = payne_model.emulator.predict(finished_grid.labels[rows]).flux
    residual = predicted.astype(float) - finished_grid.flux(rows)
    facts = result.to_dict()
    assert facts["n_spectra"] == 10
    assert facts["mae"] == pytest.approx(np.mean(np.abs(residual)), rel=1e-5)
    assert facts["rmse"] == pytest.approx(np.sqrt(np.mean(residual**2)), rel=1e-5)
    assert facts["percentiles"]["absolute_residual"]["95"] == pytest.approx(
        np.percentile(np.abs(residual), 95), rel=1e-4
    )


def test_worst_spectrum_is_named_with_its_labels(payne_model, finished_grid) -> None:
    result = evaluate(payne_model, finished_grid)
    worst = result.worst(1)[0]
    assert worst["mae"] == pytest.approx(result.per_spectrum.max())
    assert worst["labels"]["teff"] == pytest.approx(finished_grid.labels[worst["row"], 0])


def test_the_models_own_test_spectra_are_taken_on_its_own_grid(payne_model, finished_grid, tmp_path) -> None:
    elsewhere = toy.write_grid(tmp_path / "other.zarr", split=Split(tuple(range(50)), (), (50, 51)))
    assert evaluate(payne_model, elsewhere).split == "test spectra of another grid"
    own = dataclasses.replace(payne_model, training={
        **payne_model.training, "source": {"fingerprint": finished_grid.fingerprint}, "split": {"test": [3, 4, 5]},
    })  # fmt: skip
    assert evaluate(own, finished_grid).rows.tolist() == [3, 4, 5]


def test_rows_outside_the_models_domain_are_left_out_and_counted(payne_model, tmp_path) -> None:
    wide = LabelSpace((Label("teff", 3000.0, 9000.0), *toy.SPACE.labels[1:]), toy.SPACE.constraints)
    values = toy.labels()
    values[-1, 0], values[-2, 0] = 3100.0, 8500.0
    grid = toy.write_grid(tmp_path / "wide.zarr", space=wide, labels=values)
    result = evaluate(payne_model, grid)
    assert result.n_outside == 2
    assert len(result.rows) == 8


def test_labels_are_matched_by_name_not_by_order(payne_model, finished_grid, tmp_path) -> None:
    order = [4, 2, 0, 1, 3]
    space = LabelSpace(tuple(toy.SPACE.labels[i] for i in order), toy.SPACE.constraints)
    grid = toy.empty_grid(tmp_path / "shuffled.zarr", space=space, labels=toy.labels()[:, order])
    grid.write_all(finished_grid.flux(), finished_grid.continuum())
    assert evaluate(payne_model, grid).mae == pytest.approx(evaluate(payne_model, finished_grid).mae, rel=1e-6)


def test_another_grids_labels_or_wavelengths_are_refused(payne_model, tmp_path) -> None:
    fewer = LabelSpace(toy.SPACE.labels[:4])
    grid = toy.empty_grid(tmp_path / "fewer.zarr", space=fewer, labels=toy.labels()[:, :4])
    with pytest.raises(GridError, match=r"it lacks \['mg_fe'\] and has none more"):
        evaluate(payne_model, grid)
    shifted = toy.write_grid(tmp_path / "shifted.zarr", wavelength=toy.WAVELENGTH + 100)
    with pytest.raises(WavelengthError, match=r"5100.000 to 5109.760 Å leave the model's range 5000.000 to"):
        evaluate(payne_model, shifted)


def test_a_grid_in_the_other_medium_is_converted(payne_model, finished_grid, tmp_path) -> None:
    grid = toy.empty_grid(tmp_path / "vacuum.zarr", wavelength=air_to_vacuum(toy.WAVELENGTH), medium="vacuum")
    grid.write_all(finished_grid.flux(), finished_grid.continuum())
    assert evaluate(payne_model, grid).mae == pytest.approx(evaluate(payne_model, finished_grid).mae, rel=1e-4)
