"""What fine-tuning did to a model: how far it moved, and what it forgot."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import toy

from starpayne.bundle import Model
from starpayne.emulators import Emulator, Target, adapted
from starpayne.evaluation import drift, evaluate, forgotten
from starpayne.grid import Grid
from starpayne.labels import Label, LabelSpace, mapped_space

NA = Label("na_fe", -0.3, 0.6)
WINDOW = toy.log_grid(5005.0, 5016.0, 20000.0)


def moved(
    emulator: Emulator, space: LabelSpace = toy.SPACE, wavelength: np.ndarray = toy.WAVELENGTH, by: float = 0.0
) -> Emulator:
    """The emulator adapted to other labels and wavelengths, and every flux higher by a number."""
    center, width = np.full((1, len(wavelength)), 0.9, np.float32), np.full((1, len(wavelength)), 0.1, np.float32)
    domain = dataclasses.replace(toy.domain(), low=float(wavelength[0]), high=float(wavelength[-1]))
    found = adapted(emulator, Target(space, domain, wavelength, emulator.channels, center, width))
    return dataclasses.replace(found, center=found.center + by)


@pytest.fixture
def payne(payne_model: Model) -> Emulator:
    return payne_model.emulator


# -- drift ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["payne", "transformer"])
def test_a_model_has_not_moved_from_itself(name: str, request: pytest.FixtureRequest) -> None:
    emulator = request.getfixturevalue(f"{name}_model").emulator
    assert drift(emulator, emulator)["mae"] == 0


def test_the_drift_is_how_far_the_flux_has_moved(payne: Emulator) -> None:
    found = drift(payne, moved(payne, by=0.01))
    assert found["mae"] == pytest.approx(0.01, rel=1e-4)
    assert found["wavelength"] == [toy.WAVELENGTH[0], toy.WAVELENGTH[-1]]


def test_the_drift_is_measured_where_the_windows_overlap(payne: Emulator) -> None:
    found = drift(payne, moved(payne, wavelength=WINDOW, by=0.01))
    inside = toy.WAVELENGTH[WINDOW[0] <= toy.WAVELENGTH]
    assert found["wavelength"] == [inside[0], inside[-1]]
    assert 0.005 < found["mae"] < 0.02  # interpolated from other pixels


def test_held_and_new_labels_do_not_count_as_drift() -> None:
    payne = toy.network(toy.recipe("payne"))
    space = mapped_space(toy.SPACE, LabelSpace((NA, *toy.SPACE.labels[:4])), {"mg_fe": 0.3})
    held = moved(payne, space)
    assert drift(payne, held)["mae"] < 1e-6
    # From there to a grid that has the held label again, where it is asked at the value it had.
    free = moved(held, mapped_space(space, toy.SPACE, {"na_fe": 0.0}))
    assert drift(held, free)["mae"] < 1e-6
    again = moved(held, mapped_space(space, LabelSpace((*toy.SPACE.labels, NA)), {}))
    assert drift(held, again)["mae"] < 1e-6


def test_bounds_and_order_do_not_count_as_drift(payne: Emulator) -> None:
    grid = LabelSpace(
        (Label("mg_fe", 0.0, 2.0), Label("logg", 4.0, 6.0), *toy.SPACE.labels[2:4], Label("teff", 1, 9e3))
    )
    assert drift(payne, moved(payne, mapped_space(toy.SPACE, grid, {})))["mae"] < 1e-6


def test_models_without_anything_in_common_have_no_drift(payne: Emulator) -> None:
    far = moved(payne, wavelength=WINDOW + 20)
    assert drift(payne, far) == {"why": "the two have no wavelengths in common"}
    between = toy.WAVELENGTH[3] + np.linspace(0.01, 0.1, 5)  # all between two pixels
    assert drift(payne, moved(payne, wavelength=between)) == {"why": "the two have no wavelengths in common"}
    grid = LabelSpace((Label("teff", 8000, 9000), *toy.SPACE.labels[1:]))
    hot = moved(payne, mapped_space(toy.SPACE, grid, {}))
    assert drift(payne, hot) == {"why": "the two have no labels in common"}


# -- what was forgotten -----------------------------------------------------------------------------------------------


def test_what_was_forgotten_is_the_error_on_the_old_test_spectra(payne_model: Model, finished_grid: Grid) -> None:
    before = evaluate(payne_model, finished_grid)
    found = forgotten(payne_model, Model(moved(payne_model.emulator, by=0.05)), finished_grid)
    assert found["before"] == before.mae
    assert found["after"] == pytest.approx(np.mean(np.abs(before.residual + 0.05)), rel=1e-4)
    same = forgotten(payne_model, payne_model, finished_grid)
    assert same["after"] == pytest.approx(same["before"], rel=1e-6)


def test_what_lies_outside_the_new_bounds_is_asked_too_in_any_order(payne_model: Model, finished_grid: Grid) -> None:
    grid = LabelSpace((Label("teff", 5900, 6000), *reversed(toy.SPACE.labels[1:])))
    found = forgotten(payne_model, Model(moved(payne_model.emulator, mapped_space(toy.SPACE, grid, {}))), finished_grid)
    assert found["after"] == pytest.approx(found["before"], rel=1e-3)
    turned = Model(moved(payne_model.emulator, LabelSpace(tuple(reversed(toy.SPACE.labels)))))
    assert forgotten(payne_model, turned, finished_grid)["after"] == pytest.approx(found["before"], rel=1e-3)


def test_a_transformer_is_asked_where_its_base_was_trained(transformer_model: Model, finished_grid: Grid) -> None:
    found = forgotten(transformer_model, Model(moved(transformer_model.emulator, wavelength=WINDOW)), finished_grid)
    assert found["after"] == pytest.approx(found["before"], rel=1e-6)


def test_models_of_other_labels_or_pixels_cannot_be_compared(payne_model: Model, finished_grid: Grid) -> None:
    payne = payne_model.emulator
    more = Model(moved(payne, mapped_space(toy.SPACE, LabelSpace((*toy.SPACE.labels, NA)), {})))
    assert forgotten(payne_model, more, finished_grid) == {"why": "the fine-tuned model has other labels"}
    window = Model(moved(payne, wavelength=WINDOW))
    assert forgotten(payne_model, window, finished_grid) == {"why": "the fine-tuned model has other pixels"}
