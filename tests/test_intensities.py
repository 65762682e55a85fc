"""Emulators of intensities: what they are trained on, and that their disc adds up to the star."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import intensities
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from starpayne import bundle
from starpayne.emulators import SpectralDomain, disc_flux, disc_quadrature
from starpayne.emulators.disc import Quadrature, rings, unseen
from starpayne.errors import BundleError, GridError, LabelError, SpectrumError, TrainingError, WavelengthError
from starpayne.evaluation import evaluate
from starpayne.fitting import ForwardModel, fit
from starpayne.grid import Failure, Grid, Split
from starpayne.labels import Label, LabelSpace
from starpayne.spectra import ObservedSpectrum
from starpayne.training import PolynomialArchitecture, Recipe, TrainingData, train

BOTH = ("flux", "log10_continuum")
RECIPE = Recipe(architecture=PolynomialArchitecture(4, 1e-8), channels=BOTH, quantity="intensity")
# Enough rows for a polynomial that is close to the truth.
MANY, MANY_SPLIT = toy.labels(200), Split.last_rows(200, 20, 20)


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    return intensities.write_grid(tmp_path_factory.mktemp("grid") / "g", labels=MANY, split=MANY_SPLIT)


@pytest.fixture(scope="module")
def model(grid: Grid, tmp_path_factory: pytest.TempPathFactory) -> bundle.Model:
    path = tmp_path_factory.mktemp("models") / "m"
    train(TrainingData.from_grid(grid, channels=BOTH, quantity="intensity"), RECIPE, path)
    return bundle.load(path)


# -- training data -----------------------------------------------------------------------------------------------


def test_every_pair_of_spectrum_and_angle_is_a_row(grid: Grid) -> None:
    data = TrainingData.from_grid(grid, 7, BOTH, quantity="intensity")
    assert data.labels.shape == (35, 6)
    assert data.space.names == (*toy.SPACE.names, "mu")
    assert data.space.constraints == toy.SPACE.constraints
    mu = data.space["mu"]
    assert (mu.low, mu.high, mu.transform, mu.unit) == (intensities.MU[0], intensities.MU[-1], "linear", "")
    for row, angle in ((0, 0), (3, 4), (6, 2)):
        np.testing.assert_array_equal(data.labels[5 * row + angle], [*grid.labels[row], intensities.MU[angle]])
        i, continuum = np.pi * grid.intensity([row])[0, angle] / grid.continuum([row])[0], grid.continuum([row])[0]
        np.testing.assert_allclose(data.targets[5 * row + angle, 0], i, rtol=1e-6)
        np.testing.assert_allclose(data.targets[5 * row + angle, 1], np.log10(continuum), rtol=1e-6)
    assert data.targets.dtype == np.float32
    assert (data.domain.quantity, data.domain.mu) == ("intensity", tuple(intensities.MU))


def test_the_target_is_of_order_one_and_its_disc_is_the_flux(grid: Grid) -> None:
    targets = TrainingData.from_grid(grid, 10, quantity="intensity").targets[:, 0].reshape(10, 5, -1)
    np.testing.assert_allclose(targets.mean(axis=1), grid.flux(range(10)), rtol=1e-5)
    assert 0 < targets.min() < targets.max() < 1.5


def test_spectra_are_split_not_rows(tmp_path: Path) -> None:
    grid = intensities.write_grid(tmp_path / "g", split=Split(tuple(range(50)), (), tuple(range(50, 60))))
    data = TrainingData.from_grid(grid, quantity="intensity")
    train_rows, validation = data.split["train"], data.split["validation"]
    assert (len(train_rows), len(validation)) == (48, 2)
    assert (len(data.labels), len(data.validation_labels)) == (48 * 5, 2 * 5)
    stars = {tuple(x) for x in data.labels[:, :-1]}
    assert not stars & {tuple(x) for x in data.validation_labels[:, :-1]}
    assert not stars & {tuple(x) for x in grid.labels[50:]}


def test_spectra_that_failed_are_passed_over_with_all_their_angles(tmp_path: Path) -> None:
    grid = toy.empty_grid(tmp_path / "g", mu=intensities.MU)
    i, continua = intensities.normalised(grid.labels, intensities.MU), toy.continua(grid.labels)
    for row in range(60):
        if row != 1:
            grid.write(row, flux=i[row, 0], continuum=continua[row], intensity=i[row])
    grid.fail([Failure(1, {}, "no")])
    data = TrainingData.from_grid(Grid.open(tmp_path / "g"), 3, quantity="intensity")
    assert data.split["train"] == [0, 2, 3]
    np.testing.assert_array_equal(np.unique(data.labels[:, 0]), np.unique(grid.labels[[0, 2, 3], 0]))


def test_the_order_of_the_angles_on_disk_does_not_matter(grid: Grid, tmp_path: Path) -> None:
    order, few = [3, 0, 4, 1, 2], Split.last_rows(20, 5, 5)
    shuffled = intensities.write_grid(tmp_path / "g", mu=intensities.MU[order], labels=MANY[:20], split=few)
    data = TrainingData.from_grid(shuffled, 2, quantity="intensity")
    assert data.domain == TrainingData.from_grid(grid, 2, quantity="intensity").domain
    row = int(np.flatnonzero(data.labels[:, -1] == intensities.MU[0])[0])
    np.testing.assert_allclose(data.targets[row, 0], np.pi * grid.intensity([0])[0, 0] / grid.continuum([0])[0], 1e-6)


def test_intensities_are_other_data_than_the_flux(grid: Grid) -> None:
    same = TrainingData.from_grid(grid, 5, quantity="intensity").fingerprint
    assert same == TrainingData.from_grid(grid, 5, quantity="intensity").fingerprint
    assert same != TrainingData.from_grid(grid, 5).fingerprint


def test_what_the_grid_does_not_have_is_refused_with_the_remedy(finished_grid: Grid, tmp_path: Path) -> None:
    with pytest.raises(GridError, match=r"stores no intensities; synthesize it anew with viewing angles, mu = \["):
        TrainingData.from_grid(finished_grid, quantity="intensity")
    with pytest.raises(TrainingError, match=r"^quantity = 'colour' is not known; choose one of flux, intensity$"):
        TrainingData.from_grid(finished_grid, quantity="colour")
    one = intensities.write_grid(tmp_path / "one", mu=np.array([0.7]))
    with pytest.raises(GridError, match=r"has the one viewing angle mu = 0.7; at least two make a label of it"):
        TrainingData.from_grid(one, quantity="intensity")
    named = LabelSpace((*toy.SPACE.labels[:4], Label("mu", -0.5, 0.9)))
    with pytest.raises(LabelError, match=r"labels given twice: mu"):
        TrainingData.from_grid(toy.empty_grid(tmp_path / "named", space=named, mu=intensities.MU), quantity="intensity")


def test_recipe_and_data_must_agree(grid: Grid, tmp_path: Path) -> None:
    data = TrainingData.from_grid(grid, quantity="intensity")
    with pytest.raises(TrainingError, match=r"the recipe's quantity 'flux' is not that of the data, 'intensity'"):
        train(data, toy.recipe("polynomial"), tmp_path / "m")


# -- the model ---------------------------------------------------------------------------------------------------


def test_mu_is_a_label_like_any_other(model: bundle.Model) -> None:
    emulator = model.emulator
    star = dict(zip(toy.SPACE.names, MANY[0].tolist(), strict=True))
    with pytest.raises(LabelError, match=r"missing labels: mu \(0.316228 to 0.948683\)"):
        emulator.predict(star)
    with pytest.raises(LabelError, match=r"mu = 0.1 is outside the range 0.316228 to 0.948683"):
        emulator.predict({**star, "mu": 0.1})
    limb, centre = (emulator.predict({**star, "mu": mu}) for mu in (0.32, 0.94))
    assert (limb.quantity, centre.quantity) == ("intensity", "intensity")
    assert limb.flux.max() < centre.flux.max()


def test_the_intensity_itself_follows_from_the_continuum(model: bundle.Model, grid: Grid) -> None:
    row, angle = MANY_SPLIT.test[0], 2
    prediction = model.emulator.predict([*grid.labels[row], intensities.MU[angle]])
    assert prediction.specific_intensity is not None
    np.testing.assert_allclose(prediction.specific_intensity, grid.intensity([row])[0, angle], rtol=0.05)


def test_a_model_of_fluxes_knows_no_specific_intensity(polynomial_model: bundle.Model) -> None:
    prediction = polynomial_model.emulator.predict(toy.labels()[0])
    assert (prediction.quantity, prediction.specific_intensity) == ("flux", None)


def test_a_saved_model_remembers_what_it_gives(model: bundle.Model, tmp_path: Path) -> None:
    again = bundle.load(bundle.save(model, tmp_path / "m"))
    assert again.emulator.domain == model.emulator.domain
    assert (again.emulator.domain.quantity, again.emulator.domain.mu) == ("intensity", tuple(intensities.MU))


def test_older_model_folders_are_models_of_fluxes(polynomial_model: bundle.Model, tmp_path: Path) -> None:
    manifest = bundle.save(polynomial_model, tmp_path / "m") / bundle.MANIFEST
    facts = json.loads(manifest.read_text())
    del facts["domain"]["quantity"], facts["domain"]["mu"]
    manifest.write_text(json.dumps(facts))
    assert bundle.load(tmp_path / "m").emulator.domain == polynomial_model.emulator.domain
    assert "quantity" not in facts["training"]["identity"]["recipe"], "so that it is still the same training"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"quantity": "colour"}, r"quantity = 'colour' is not known; choose one of flux, intensity"),
        ({"quantity": "intensity", "mu": []}, r"quantity = 'intensity' with mu = \(\): intensities alone have angles"),
        (
            {"quantity": "intensity", "mu": [0.2, 0.9]},
            r"an intensity emulator has 'mu' as its last label; the labels are teff, logg, alpha_fe, vmic, mg_fe",
        ),
    ],
)
def test_a_quantity_that_cannot_be_is_refused(
    polynomial_model: bundle.Model, tmp_path: Path, changes: dict, text: str
) -> None:
    manifest = bundle.save(polynomial_model, tmp_path / "m") / bundle.MANIFEST
    facts = json.loads(manifest.read_text())
    facts["domain"] |= changes
    manifest.write_text(json.dumps(facts))
    with pytest.raises(BundleError, match=text):
        bundle.load(tmp_path / "m")


def test_a_flux_has_no_angles() -> None:
    with pytest.raises(WavelengthError, match=r"quantity = 'flux' with mu = \(0.5,\)"):
        SpectralDomain(5000, 5010, "air", 20000, mu=(0.5,))


def test_fitting_refuses_intensities(model: bundle.Model) -> None:
    wavelength = toy.WAVELENGTH[5:-5]
    spectrum = ObservedSpectrum(wavelength, np.ones(30), np.full(30, 0.01), medium="air")
    for attempt in (
        lambda: fit(spectrum, model, 5000.0),
        lambda: ForwardModel.on(model.emulator, wavelength, 5000.0),
    ):
        with pytest.raises(SpectrumError, match=r"gives intensities at one viewing angle, not the flux of a star's"):
            attempt()


# -- the disc ----------------------------------------------------------------------------------------------------


def test_rings_of_equal_area_have_equal_weights() -> None:
    rule = disc_quadrature(np.round(rings(7), 5)[::-1])
    np.testing.assert_allclose(rule.weight, 1 / 7)
    assert unseen(rings(7)) == 0
    np.testing.assert_allclose(2 * (rule.weight * rule.mu**2).sum(), 1, rtol=1e-5)  # ∫ μ² d(μ²)


@pytest.mark.parametrize("mu", [(0.05, 0.4, 1.0), (0.1, 0.3, 0.6, 0.99), tuple(np.linspace(0.02, 1, 9))])
def test_other_angles_integrate_smooth_intensities(mu: tuple[float, ...]) -> None:
    rule = disc_quadrature(mu)
    assert (rule.mu.min(), rule.mu.max()) == (mu[0], mu[-1]), "nothing is extrapolated"
    assert rule.weight.sum() == pytest.approx(1)
    for power, slope in ((1, 1.0), (2, 2.0), (4, 4.0)):
        error = abs((rule.weight * rule.mu**power).sum() - 2 / (power + 2))
        # Held constant beyond the outermost angles.
        assert error <= 1.1 * slope * (mu[0] ** 3 / 3 + (1 - mu[-1]) ** 2) + 1e-12


@pytest.mark.parametrize(
    ("mu", "text"),
    [
        ((0.5,), r"mu = \[0.5\]: at least two different cosines of viewing angles in \(0, 1\] are needed"),
        ((0.5, 0.5), r"at least two different cosines"),
        ((0.0, 1.0), r"in \(0, 1\]"),
        ((0.5, 0.7, 1.0), r"mu = 0.5 to 1 leave 25 % of the disc unseen, at most 10 % may be; take a grid with angles"),
    ],
)
def test_angles_that_do_not_cover_the_disc_are_refused(mu: tuple[float, ...], text: str) -> None:
    with pytest.raises(LabelError, match=text):
        disc_quadrature(mu)


def test_the_disc_of_an_emulator_is_the_flux(model: bundle.Model, grid: Grid) -> None:
    bound = model.emulator.on()
    stars = jnp.asarray(MANY[list(MANY_SPLIT.test)], jnp.float32)
    flux = np.asarray(jax.vmap(lambda star: disc_flux(bound, star))(stars))
    np.testing.assert_allclose(flux, grid.flux(MANY_SPLIT.test), atol=0.02)
    # With fine nodes it is the integral itself, here within the range of the grid's angles and a polynomial's reach.
    fine = Quadrature(rings(400), np.full(400, 1 / 400))
    exact = intensities.flux(MANY[list(MANY_SPLIT.test)])
    np.testing.assert_allclose(np.asarray(disc_flux(bound, stars[0], fine)), exact[0], atol=0.02)


def test_the_analytic_flux_is_the_integral_of_the_analytic_intensity() -> None:
    rule = disc_quadrature(np.linspace(0.001, 1, 5))
    total = np.einsum("m,nmw->nw", rule.weight, intensities.normalised(MANY, rule.mu))
    np.testing.assert_allclose(total, intensities.flux(MANY), atol=2e-6)


def test_the_disc_is_a_pure_function_of_the_labels(model: bundle.Model) -> None:
    bound, star = model.emulator.on(), jnp.asarray(MANY[3], jnp.float32)
    expected = disc_flux(model.emulator, star)
    np.testing.assert_allclose(jax.jit(lambda x: disc_flux(bound, x))(star), expected, atol=1e-5)
    step = jnp.asarray([10.0, 0, 0, 0, 0])
    slope = (disc_flux(bound, star + step) - disc_flux(bound, star - step)) / 20
    derivative = jax.jacfwd(lambda x: disc_flux(bound, x))(star)[:, 0]
    np.testing.assert_allclose(derivative, slope, atol=2e-6)


def test_the_disc_of_a_flux_is_refused(polynomial_model: bundle.Model) -> None:
    with pytest.raises(LabelError, match=r"gives the flux of the whole disc already"):
        disc_flux(polynomial_model.emulator, jnp.zeros(4))


# -- evaluation --------------------------------------------------------------------------------------------------


def test_evaluation_counts_pairs_and_the_disc(model: bundle.Model, grid: Grid) -> None:
    result = evaluate(model, grid)
    facts = result.to_dict()
    test = list(MANY_SPLIT.test)
    assert result.true.shape == (100, 40)
    assert (facts["n_spectra"], facts["quantity"]) == (20, "intensity")
    assert result.rows.tolist() == np.repeat(test, 5).tolist()
    predicted = model.emulator.predict(result.labels)
    np.testing.assert_allclose(result.predicted, predicted.flux, atol=1e-6)
    assert facts["mae"] == pytest.approx(np.mean(np.abs(predicted.flux - result.true)), rel=1e-4)
    assert set(facts["worst"][0]["labels"]) == {*toy.SPACE.names, "mu"}
    disc = predicted.flux.reshape(20, 5, 40).mean(axis=1)
    error = np.abs(disc / grid.flux(test) - 1)
    assert facts["disc_flux_error"]["mean"] == pytest.approx(error.mean(), rel=1e-3)
    assert facts["disc_flux_error"]["99"] == pytest.approx(np.percentile(error, 99), rel=1e-3)
    assert facts["disc_flux_error"]["max"] == pytest.approx(error.max(), rel=1e-3)
    assert predicted.continuum is not None
    relative = np.abs(predicted.continuum / np.repeat(grid.continuum(test), 5, axis=0) - 1)
    assert facts["continuum_error"]["median"] == pytest.approx(np.median(relative), rel=1e-2)


def test_angles_outside_the_models_are_left_out_and_a_disc_out_of_reach_is_not_reported(
    model: bundle.Model, tmp_path: Path
) -> None:
    mu = np.array([0.2, 0.5, 0.9])
    other = intensities.write_grid(tmp_path / "g", mu=mu)
    result = evaluate(model, other)
    assert result.n_outside == 10
    assert set(np.round(result.labels[:, -1], 6)) == {0.5, 0.9}
    domain = replace(model.emulator.domain, mu=(0.5, 0.9))
    narrow = replace(model, emulator=replace(model.emulator, domain=domain))
    assert evaluate(narrow, other).disc_flux_error is None


def test_a_grid_of_fluxes_cannot_evaluate_intensities(model: bundle.Model, finished_grid: Grid) -> None:
    with pytest.raises(GridError, match=r"stores no intensities; synthesize it anew with viewing angles"):
        evaluate(model, finished_grid)


def test_the_continuum_is_evaluated_where_both_have_one(finished_grid: Grid, payne_model, tmp_path: Path) -> None:
    assert evaluate(payne_model, finished_grid).continuum_error is None
    with_continuum = train(toy.data(BOTH), toy.recipe("polynomial", channels=BOTH), tmp_path / "m")
    facts = evaluate(with_continuum, finished_grid).to_dict()
    rows = list(toy.SPLIT.test)
    predicted = with_continuum.emulator.predict(finished_grid.labels[rows]).continuum
    relative = np.abs(predicted / finished_grid.continuum(rows) - 1)
    assert facts["continuum_error"]["median"] == pytest.approx(np.median(relative), rel=1e-3)
    assert facts["continuum_error"]["95"] == pytest.approx(np.percentile(relative, 95), rel=1e-3)
    assert "disc_flux_error" not in facts
    bare = toy.empty_grid(tmp_path / "bare", continuum=False)
    bare.write_all(toy.spectra(bare.labels))
    assert evaluate(with_continuum, Grid.open(tmp_path / "bare")).continuum_error is None
