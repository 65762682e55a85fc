"""Label recovery: bias and scatter are what theory says where the emulator is perfect, and never start at the truth."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import toy
from scipy.optimize import least_squares
from shell import run

from starpayne import plots
from starpayne.bundle import Model, save
from starpayne.emulators import SpectralDomain
from starpayne.errors import GridError, SpectrumError
from starpayne.evaluation import recover
from starpayne.evaluation.observed import observe_rows
from starpayne.evaluation.refit import OWN, Fitter
from starpayne.fitting.lockstep import solve_together
from starpayne.grid import Grid
from starpayne.labels import Label, LabelSpace
from starpayne.simulate import Observation, record
from starpayne.training import train
from starpayne.wavelengths import log_grid

WAVELENGTH = log_grid(5000.0, 5030.0, 60_000.0)
RESOLUTION, SNR = 15_000.0, 200.0
N_INNER, N_CORNERS = 40, 8


def lines(labels: np.ndarray) -> np.ndarray:
    """Eighteen lines, each of which follows all labels in its own way."""
    random = np.random.default_rng(2)
    u, flux = toy.SPACE.scale(labels), np.ones((len(labels), len(WAVELENGTH)))
    for centre in np.linspace(5002, 5028, 18):
        strength = 0.3 + 0.2 * np.tanh(u @ random.normal(0, 1.2, 5))
        flux -= strength[:, None] * np.exp(-(((WAVELENGTH - centre) / 0.25) ** 2))
    return flux.astype(np.float32)


@pytest.fixture(scope="module")
def own_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A quadratic polynomial of a toy star with eighteen lines."""
    values = toy.labels()
    kept, held = list(toy.SPLIT.train), list(toy.SPLIT.validation)
    data = toy.data(
        wavelength=WAVELENGTH,
        domain=SpectralDomain(WAVELENGTH[0], WAVELENGTH[-1], "air", 60_000.0),
        targets=lines(values[kept])[:, None],
        validation_targets=lines(values[held])[:, None],
    )
    return train(data, toy.recipe("polynomial"), tmp_path_factory.mktemp("own") / "own.model")


@pytest.fixture(scope="module")
def own_grid(own_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Grid:
    """Spectra that the emulator itself made: inner stars, then corners of the label table."""
    random = np.random.default_rng(8)
    inner = random.uniform(0.3, 0.7, (N_INNER, 5))
    corners = np.where(random.random((N_CORNERS, 5)) < 0.5, 0.04, 0.96)
    values = toy.SPACE.from_cube(np.concatenate([inner, corners]))
    path = tmp_path_factory.mktemp("grid") / "own.zarr"
    grid = toy.empty_grid(
        path, labels=values, wavelength=WAVELENGTH, split=toy.Split((), (), tuple(range(len(values))))
    )
    flux = own_model.emulator.predict(values).flux
    grid.write_all(flux, np.ones_like(flux))
    return Grid.open(path)


@pytest.fixture(scope="module")
def recovery(own_model: Model, own_grid: Grid):
    return recover(own_model, own_grid, resolution=RESOLUTION, snr=SNR)


def test_own_spectra_scatter_as_the_bound_says(recovery) -> None:
    inner = slice(0, N_INNER)
    assert recovery.converged[inner].all()
    bound = recovery.bound[inner]
    # Near a bound of the table the scatter must be smaller, and is no test.
    far = 3 * bound < 0.25 * recovery.ranges
    pulls = ((recovery.fitted - recovery.truth)[inner] / bound)[far]
    assert len(pulls) > 60
    assert np.std(pulls) == pytest.approx(1.0, abs=0.2)
    assert abs(np.mean(pulls)) < 0.3
    assert np.mean(recovery.chi2) == pytest.approx(1.0, abs=0.05)


def test_own_spectra_without_noise_return_the_truth(recovery) -> None:
    off = np.abs(recovery.noiseless - recovery.truth) / recovery.bound
    assert np.percentile(off, 99) < 0.3


def test_corners_are_reached_from_the_search(recovery) -> None:
    corners = slice(N_INNER, None)
    off = np.abs(recovery.fitted - recovery.truth)[corners]
    assert recovery.converged[corners].all()
    assert np.mean(off < 4 * recovery.bound[corners]) > 0.95
    assert recovery.chi2[corners].max() < 1.4


def test_bound_is_that_of_finite_differences_in_float64(own_model: Model, recovery) -> None:
    setup = Observation(resolution=RESOLUTION)
    step = 0.01 * recovery.ranges

    def seen(labels: np.ndarray) -> np.ndarray:
        flux = own_model.emulator.predict(labels, extrapolate=True).flux.astype(np.float64)
        return record(WAVELENGTH, flux, low, high, setup)[1]

    # The detector of the recovery.
    margin = 1 + 5 * setup.added_sigma / 299792.458 + 5 / 60_000
    low, high = WAVELENGTH[0] * margin, WAVELENGTH[-1] / margin
    for i in (0, 7, N_INNER - 1):
        truth = recovery.truth[i]
        by_label = [(seen(truth + step * e) - seen(truth - step * e)) / (2 * step @ e) for e in np.eye(5)]
        design = np.stack([*by_label, seen(truth)], axis=1) * SNR
        scale = np.append(recovery.ranges, 1.0)
        covariance = np.linalg.inv((design * scale).T @ (design * scale))
        expected = (scale * np.sqrt(np.diag(covariance)))[:5]
        assert recovery.bound[i] == pytest.approx(expected, rel=0.03)


def test_summary_separates_emulator_and_noise(recovery) -> None:
    facts = recovery.summary()
    assert tuple(facts) == toy.SPACE.names
    for values in facts.values():
        if values["constrained"] == 1:
            assert values["emulator_scatter"] < 0.1 * values["noise_scatter"]
            assert values["scatter"] == pytest.approx(values["noise_scatter"], rel=0.2)
            assert values["scatter_constrained"] == values["scatter"]
    assert facts["teff"]["range"] == 3000
    text = json.dumps(recovery.to_dict(), allow_nan=False)
    assert json.loads(text)["n_converged"] == recovery.converged.sum()


def test_noise_follows_seed_and_row_alone(own_grid) -> None:
    setup = {"resolution": RESOLUTION, "snr": SNR, "pixels_per_fwhm": 3.0}
    stars = observe_rows(own_grid, np.array([3, 5, 9]), seed=0, **setup)
    alone = observe_rows(own_grid, np.array([5]), seed=0, **setup)
    assert np.array_equal(stars.noisy[1], alone.noisy[0])
    assert not np.allclose(stars.noisy, observe_rows(own_grid, np.array([3, 5, 9]), seed=1, **setup).noisy)
    assert np.std((stars.noisy - stars.flux) * SNR) == pytest.approx(1.0, abs=0.1)


def test_every_model_meets_the_very_same_spectra(payne_model, polynomial_model, finished_grid, monkeypatch) -> None:
    met = []

    def look(self: Fitter, flux: np.ndarray, *rest: object) -> None:
        met.append(flux)
        raise InterruptedError

    monkeypatch.setattr(Fitter, "search_and_fit", look)
    for model in (payne_model, polynomial_model):
        with pytest.raises(InterruptedError):
            recover(model, finished_grid, resolution=10_000, seed=3)
    assert np.array_equal(met[0], met[1])


def test_side_by_side_and_one_by_one_find_the_minimum_of_scipy(own_model, own_grid) -> None:
    stars = observe_rows(own_grid, np.arange(6), resolution=RESOLUTION, snr=SNR, pixels_per_fwhm=3.0, seed=0)
    fitter = Fitter.of(own_model.emulator, stars, RESOLUTION, "air")
    starts = fitter.starts(stars.noisy, 64, 1, 0)[:, 0]
    bound, parameters = fitter.forward.bound, fitter.parameters
    together, alone = (fitter.lanes(stars.noisy, starts) for _ in range(2))
    solve_together(bound, parameters, together, OWN)
    for lane in alone:
        solve_together(bound, parameters, [lane], OWN)
    assert np.allclose([lane.chi2 for lane in together], [lane.chi2 for lane in alone], atol=0.1)
    assert all(0 < lane.renewed < lane.iterations for lane in together)
    for i in range(3):

        def residual(cube: np.ndarray, i: int = i) -> np.ndarray:
            """Without the level, which is solved."""
            labels = jnp.asarray(fitter.parameters.labels.from_cube(np.asarray(cube, np.float32)))
            model = np.asarray(fitter.forward(labels, 0.0), np.float64)
            level = model @ stars.noisy[i] / (model @ model)
            return (stars.noisy[i] - level * model) / stars.error

        # Steps of the numerical derivative that float32 can resolve.
        found = least_squares(residual, together[i].theta.astype(float), bounds=(-1e-9, 1 + 1e-9), diff_step=1e-2)
        assert together[i].chi2 < 2 * found.cost + 0.1


def test_rows_outside_the_models_labels_are_counted(own_model, tmp_path) -> None:
    wide = LabelSpace((Label("teff", 3000.0, 9000.0), *toy.SPACE.labels[1:]), toy.SPACE.constraints)
    values = toy.labels(4)
    values[1, 0] = 3100.0
    grid = toy.empty_grid(
        tmp_path / "w.zarr", space=wide, labels=values, wavelength=WAVELENGTH, split=toy.Split((), (), (0, 1, 2, 3))
    )
    grid.write_all(lines(values), np.ones((4, len(WAVELENGTH)), np.float32))
    result = recover(own_model, grid, n_spectra=3, resolution=RESOLUTION)
    # Rows 0, 2 and 3 are chosen before any is left out: the same for a model that knows 3100 K.
    assert list(result.rows) == [0, 2, 3]
    assert recover(own_model, grid, [0, 1], resolution=RESOLUTION).n_outside == 1


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"n_spectra": 0}, "n_spectra = 0 must be at least 1"),
        ({"snr": 0.0}, "snr = 0 must be a positive number"),
        ({"snr": float("nan")}, "snr = nan must be a positive number"),
        ({"resolution": 31_000.0}, "resolution = 31000 is above half the sampling of the grid, 30000: give a lower"),
        ({"resolution": 300.0}, "leave a detector of resolution = 300 0 pixels; at least 16 are needed"),
        ({"seed": -1}, "seed = -1 must be 0 or more"),
    ],
)
def test_what_cannot_be_observed_is_refused(settings: dict, text: str, own_model, own_grid) -> None:
    with pytest.raises(SpectrumError, match=text):
        recover(own_model, own_grid, **{"resolution": RESOLUTION, **settings})


def test_a_grid_of_other_labels_is_refused(own_model, tmp_path: Path) -> None:
    grid = toy.empty_grid(tmp_path / "f.zarr", space=LabelSpace(toy.SPACE.labels[:4]), labels=toy.labels()[:, :4])
    with pytest.raises(GridError, match=r"it lacks \['mg_fe'\] and has none more"):
        recover(own_model, grid)


def test_command_prints_a_table_and_writes_all(payne_model, finished_grid, tmp_path) -> None:
    folder = save(payne_model, tmp_path / "p.model")
    words = ("--recover", 4, "--snr", 50, "--resolution", 10000, "--figures", tmp_path / "f")
    text = run("evaluate", folder, finished_grid.path, *words, "--json", tmp_path / "e.json")
    assert "labels recovered from 4 spectra at R = 10,000, S/N 50" in text
    assert all(name in text for name in toy.SPACE.names)
    facts = json.loads((tmp_path / "e.json").read_text())["recovery"]
    assert facts["snr"] == 50
    assert len(facts["fitted"]) == 4
    assert (tmp_path / "f" / "label_recovery.png").stat().st_size > 10_000


def test_figure_has_a_panel_per_label(recovery) -> None:
    figure = plots.label_recovery({"polynomial": recovery})
    shown = [axis.get_xlabel() for axis in figure.axes if axis.get_visible()]
    assert len(shown) == 5
    assert shown[0].endswith("(K)")


def test_fits_that_have_not_converged_count_and_failed_ones_do_not(recovery) -> None:
    stopped = replace(recovery, converged=np.zeros(len(recovery.rows), bool))
    assert stopped.summary() == recovery.summary()
    lost = recovery.fitted.copy()
    lost[0] = np.nan
    failed = replace(recovery, fitted=lost)
    assert failed.finite.tolist() == [False] + [True] * (len(recovery.rows) - 1)
    expected = np.median((recovery.fitted - recovery.truth)[1:, 0])
    assert failed.summary()["teff"]["bias"] == pytest.approx(expected)
