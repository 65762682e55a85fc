"""A correction in closed form: it is exact algebra, makes any base model better, and leaves it as it was."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from starpayne import bundle
from starpayne.bundle import Model
from starpayne.description import as_text, describe_model
from starpayne.emulators import CHANNELS, Corrected, Emulator
from starpayne.emulators.base import predict_in_chunks
from starpayne.errors import BundleError, RecipeError, TrainingError
from starpayne.evaluation import drift, evaluate, forgotten
from starpayne.exporting import export
from starpayne.grid import Grid
from starpayne.inside.atlas import atlas
from starpayne.labels import Label, LabelSpace
from starpayne.training import FineTuning, few_spectra, finetune, train
from starpayne.training.marginal_likelihood import Expected, covariance, maximise_likelihood
from starpayne.training.transfer import correction
from starpayne.training.transfer.data import parted

CORRECTION = FineTuning(moves="correction")
# The package exports a function of the module's name.
finetune_module = importlib.import_module("starpayne.training.transfer.finetune")


def emulator_of(model: Model) -> Corrected:
    assert isinstance(model.emulator, Corrected)
    return model.emulator


# -- what is learned --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["payne", "transformer", "gaussian_process"])
def test_any_model_is_made_better_and_its_base_is_left_alone(
    name: str, deeper_grid: Grid, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(f"{name}_model")
    tuned = finetune(model, few_spectra(model, deeper_grid, 20), FineTuning())
    facts = tuned.model.training["finetuning"]
    assert evaluate(tuned.model, deeper_grid).mae < 0.7 * evaluate(model, deeper_grid).mae
    assert facts["helped"]
    assert tuned.model.validation["mae"] < facts["mae_before"]
    assert toy.same_weights(Model(emulator_of(tuned.model).base), model)
    assert facts["settings"]["moves"] == "correction"
    assert facts["weights_stored"] == 20 * 5 + 5 + 20 * len(toy.WAVELENGTH)
    assert facts["weights_in_all"] >= facts["weights_stored"]


def test_products_of_a_corrected_transformer_can_be_rounded(transformer_model: Model, deeper_grid: Grid) -> None:
    exact = finetune(transformer_model, few_spectra(transformer_model, deeper_grid, 10), CORRECTION).model.emulator
    assert exact.with_products("float32") is exact
    labels = toy.SPACE.sobol(4, 5)
    rounded = exact.predict(labels, precision="bfloat16").flux
    difference = np.abs(rounded - exact.predict(labels).flux).max()
    assert 0 < difference < 0.05
    with pytest.raises(RecipeError, match="precision = 'half' is not known"):
        exact.with_products("half")


def test_attention_of_a_corrected_transformer_is_that_of_its_base(
    transformer_model: Model, deeper_grid: Grid
) -> None:  # fmt: skip
    tuned = finetune(transformer_model, few_spectra(transformer_model, deeper_grid, 10), CORRECTION).model
    with pytest.raises(BundleError, match="give the model that it corrects"):
        atlas(tuned, deeper_grid, 2)


def test_a_spectrum_is_left_out_as_if_it_had_not_been_there(payne_model: Model, deeper_grid: Grid) -> None:
    data = few_spectra(payne_model, deeper_grid, 20)
    made = correction.correct(payne_model.emulator, data)
    with pytest.MonkeyPatch.context() as fixed:
        # Lengths and noise are those of all spectra, which is how the closed form has it.
        fixed.setattr(correction, "maximise_likelihood", lambda *_: made.found)
        for i in (0, 7):
            others = correction.correct(payne_model.emulator, parted(data, np.array([i])))
            found = others.emulator.predict(data.labels[i], extrapolate=True).flux
            np.testing.assert_allclose(made.left_out[i], found, rtol=0, atol=2e-6)


def test_the_spectra_themselves_are_met_up_to_the_noise(payne_model: Model, deeper_grid: Grid) -> None:
    data = few_spectra(payne_model, deeper_grid, 20)
    made = correction.correct(payne_model.emulator, data)
    own = made.emulator
    before = payne_model.emulator.predict(data.labels).flux.astype(float)
    # K (K + noise)^-1 of the difference is what a Gaussian process gives at its own points.
    points = np.asarray(own.points, float) / np.asarray(own.lengths, float)
    kernel = covariance("matern52", points, points)
    strength = ((before * (1 - before)) ** 2 + 1e-3**2) ** 0.25
    difference = (data.targets[:, 0] - before) / strength
    expected = before + strength * (kernel @ np.linalg.solve(kernel + made.found.noise * np.eye(20), difference))
    np.testing.assert_allclose(own.predict(data.labels).flux, expected, rtol=0, atol=3e-6)


def test_a_network_that_leaves_the_range_of_fluxes_spoils_nothing(payne_model: Model, deeper_grid: Grid) -> None:
    data = few_spectra(payne_model, deeper_grid, 20)
    flux = payne_model.emulator.predict(data.labels).flux
    # An emission of 0.1 at the pixel where lines are deepest, in the star that has the weakest there.
    pixel = int(np.argmin(flux.mean(axis=0)))
    star = int(np.argmax(flux[:, pixel]))

    def beyond(emulator: Emulator, labels: np.ndarray, wavelength: np.ndarray) -> np.ndarray:
        found = predict_in_chunks(emulator, labels, wavelength)
        found[star, 0, pixel] = 1.1
        return found

    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(correction, "predict_in_chunks", beyond)
        made = correction.correct(payne_model.emulator, data)
    # One wild pixel of one star; were it divided by the small f (1 - f) of a flux at 1, others would be off by tens.
    others = np.arange(20) != star
    assert np.abs(made.left_out - data.targets[:, 0])[others].max() < 0.5


def test_the_residual_covariance_is_that_of_the_spectra_left_out(payne_model: Model, deeper_grid: Grid) -> None:
    data = few_spectra(payne_model, deeper_grid, 20)
    model = finetune(payne_model, data, CORRECTION).model
    made = correction.correct(payne_model.emulator, data)
    residual = made.left_out - data.targets[:, 0]
    assert model.residuals is not None
    np.testing.assert_allclose(model.residuals.sigma, np.sqrt(np.mean(residual**2, axis=0)), rtol=1e-4, atol=1e-9)
    assert model.validation["mae"] == pytest.approx(np.mean(np.abs(residual)))
    assert model.validation["n_spectra"] == 20


def test_a_perfect_base_is_returned_as_it_is(payne_model: Model, deeper_grid: Grid) -> None:
    data = few_spectra(payne_model, deeper_grid, 20)
    perfect = payne_model.emulator.predict(data.labels).flux[:, None]
    tuned = finetune(payne_model, dataclasses.replace(data, targets=perfect), CORRECTION)
    assert not tuned.model.training["finetuning"]["helped"]
    assert tuned.model.validation["mae"] == tuned.model.training["finetuning"]["mae_before"] == 0
    labels = toy.labels(5)
    found, expected = (m.emulator.predict(labels).flux for m in (tuned.model, payne_model))
    np.testing.assert_array_equal(found, expected)


def test_what_does_not_help_is_not_used(payne_model: Model, deeper_grid: Grid) -> None:
    data = few_spectra(payne_model, deeper_grid, 20)
    # Noise of other stars tells nothing of a star.
    own = payne_model.emulator.predict(data.labels).flux[:, None]
    noise = np.random.default_rng(3).normal(0, 0.01, own.shape).astype(np.float32)
    tuned = finetune(payne_model, dataclasses.replace(data, targets=own + noise), CORRECTION)
    facts = tuned.model.training["finetuning"]
    labels = toy.labels(5)
    moved = np.abs(tuned.model.emulator.predict(labels).flux - payne_model.emulator.predict(labels).flux)
    assert tuned.model.validation["mae"] <= facts["mae_before"]
    assert np.mean(moved) < 0.001


def test_a_continuum_is_corrected_too(deeper_grid: Grid, tmp_path: Path) -> None:
    base = train(toy.data(CHANNELS), toy.recipe("polynomial", channels=CHANNELS), tmp_path / "p.model")
    dimmer = toy.empty_grid(tmp_path / "dimmer.zarr")
    dimmer.write_all(deeper_grid.flux(range(60)), 0.5 * deeper_grid.continuum(range(60)))
    other = Grid.open(tmp_path / "dimmer.zarr")
    tuned = finetune(base, few_spectra(base, other, 30, continuum=True), FineTuning())
    assert tuned.model.emulator.channels == CHANNELS
    rows = list(other.split.test)
    found, before = (m.emulator.predict(other.labels[rows]).continuum for m in (tuned.model, base))
    assert found is not None
    assert before is not None
    truth = other.continuum(rows)
    assert np.mean(np.abs(np.log(found / truth))) < 0.3 * np.mean(np.abs(np.log(before / truth)))


def test_a_label_that_the_grid_lacks_is_held(payne_model: Model, tmp_path: Path) -> None:
    values = toy.labels()
    values[:, 4] = 0
    space = LabelSpace(toy.SPACE.labels[:4])
    grid = toy.empty_grid(tmp_path / "no_mg.zarr", space=space, labels=values[:, :4])
    grid.write_all(toy.deeper_spectra(values), toy.continua(values))
    other = Grid.open(grid.path)
    tuned = finetune(payne_model, few_spectra(payne_model, other, 20, hold={"mg_fe": 0}), FineTuning())
    assert isinstance(tuned.model.emulator, Corrected)
    assert tuned.model.emulator.space.names == space.names
    held = np.column_stack([values[:5, :4], np.zeros(5)])
    np.testing.assert_allclose(
        tuned.start.predict(values[:5, :4]).flux,
        payne_model.emulator.predict(held, extrapolate=True).flux,
        rtol=0,
        atol=1e-6,
    )
    assert evaluate(tuned.model, other).mae < 0.7 * tuned.model.training["finetuning"]["mae_before"]
    again = bundle.load(bundle.save(tuned.model, tmp_path / "c.model"))
    np.testing.assert_array_equal(
        again.emulator.predict(values[:5, :4]).flux, tuned.model.emulator.predict(values[:5, :4]).flux
    )


# -- when it is chosen ------------------------------------------------------------------------------------------------


def test_a_new_label_a_new_channel_and_another_window_are_trained(payne_model: Model, tmp_path: Path) -> None:
    feh = Label("feh", -1.0, 0.0)
    values = np.column_stack([toy.labels(), np.linspace(-1, 0, 60)])
    grid = toy.empty_grid(tmp_path / "g.zarr", space=LabelSpace((*toy.SPACE.labels, feh)), labels=values)
    grid.write_all(toy.deeper_spectra(values[:, :5]), toy.continua(values[:, :5]))
    data = few_spectra(payne_model, Grid.open(grid.path), 10)
    begun = finetune_module._begun(payne_model, data, FineTuning())
    assert begun[0] == "all"
    plain = toy.write_deeper_grid(tmp_path / "plain.zarr")
    assert finetune_module._begun(payne_model, few_spectra(payne_model, plain, 10), FineTuning())[0] == "correction"
    both = few_spectra(payne_model, plain, 10, continuum=True)
    assert finetune_module._begun(payne_model, both, FineTuning())[0] == "all"
    beyond = toy.write_deeper_grid(tmp_path / "beyond.zarr", wavelength=toy.WAVELENGTH + 1)
    assert finetune_module._begun(payne_model, few_spectra(payne_model, beyond, 10), FineTuning())[0] == "all"


@pytest.mark.parametrize("given", [{"steps": 10}, {"learning_rate": 1e-3}])
def test_steps_and_rates_belong_to_training(given: dict[str, float]) -> None:
    assert FineTuning(**given).moves == "all"
    with pytest.raises(RecipeError, match=r"^a correction is solved for; steps and learning_rate belong to what is tr"):
        FineTuning(moves="correction", **given)


def test_a_corrected_model_cannot_be_fine_tuned(corrected_model: Model, deeper_grid: Grid) -> None:
    data = few_spectra(corrected_model, deeper_grid, 10)
    for settings in (FineTuning(), CORRECTION, FineTuning(moves="lora")):
        with pytest.raises(RecipeError, match=r"^the model is a corrected one already; give its base model, and the"):
            finetune(corrected_model, data, settings)


def test_spectra_that_are_not_finite_or_too_many_are_refused(
    payne_model: Model, deeper_grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = few_spectra(payne_model, deeper_grid, 10)
    broken = dataclasses.replace(data, targets=np.where(data.targets > 0.99, np.nan, data.targets))
    with pytest.raises(TrainingError, match=r"^the spectra hold values that are not finite; check the grid"):
        finetune(payne_model, broken, CORRECTION)
    monkeypatch.setattr(correction, "MAX_SPECTRA", 9)
    with pytest.raises(TrainingError, match=r"^a correction from 10 spectra; the most is 9: take fewer"):
        finetune(payne_model, data, CORRECTION)


# -- lengths and noise ------------------------------------------------------------------------------------------------


def test_what_is_expected_decides_where_the_spectra_cannot() -> None:
    random = np.random.default_rng(0)
    expected = Expected(np.array([0.4, 3.0]), 0.05)
    inputs = random.random((6, 2))
    found = maximise_likelihood("matern52", inputs, random.normal(size=(6, 1)), 1e-3, expected=expected)
    assert np.all(np.abs(np.log(found.lengths / expected.lengths)) < 1.5)
    # Two hundred spectra that follow one label within 0.1 leave no doubt.
    inputs = random.random((200, 2))
    many = maximise_likelihood("matern52", inputs, np.sin(30 * inputs[:, :1]), 1e-3, expected=expected)
    assert many.lengths[0] < 0.15 < 1 < many.lengths[1]
    free = maximise_likelihood("matern52", inputs, np.sin(30 * inputs[:, :1]), 1e-3)
    np.testing.assert_allclose(np.log(many.lengths[0]), np.log(free.lengths[0]), atol=0.3)


def test_lengths_are_physical_whatever_the_bounds() -> None:
    wide = LabelSpace((Label("teff", 4000, 8000), Label("mg_fe", -0.5, 0.5), Label("vsini", 0, 50)))
    narrow = LabelSpace((Label("teff", 5000, 6000), Label("mg_fe", -0.5, 0.5), Label("vsini", 0, 10)))
    np.testing.assert_allclose(correction.expected_lengths(wide), [1700 / 4000, 5, 1])
    np.testing.assert_allclose(correction.expected_lengths(narrow), [1.7, 5, 1])


# -- the model --------------------------------------------------------------------------------------------------------


def test_it_comes_back_from_its_folder(corrected_model: Model, payne_model: Model, tmp_path: Path) -> None:
    path = bundle.save(corrected_model, tmp_path / "c.model")
    again = bundle.load(path)
    labels = toy.labels(7, seed=2)
    assert toy.same_weights(again, corrected_model)
    assert bundle.digest(again.emulator) == bundle.digest(corrected_model.emulator)
    np.testing.assert_array_equal(again.emulator.predict(labels).flux, corrected_model.emulator.predict(labels).flux)
    assert bundle.digest(emulator_of(again).base) == bundle.digest(payne_model.emulator)
    rounded = bundle.load(bundle.save(corrected_model, tmp_path / "half.model", precision="bfloat16"))
    np.testing.assert_array_equal(emulator_of(rounded).points, emulator_of(corrected_model).points)
    np.testing.assert_allclose(
        rounded.emulator.predict(labels).flux, corrected_model.emulator.predict(labels).flux, rtol=0, atol=0.03
    )


@pytest.mark.parametrize("name", ["corrected", "unheard_of"])
def test_a_base_of_another_kind_is_refused(name: str, corrected_model: Model, tmp_path: Path) -> None:
    path = bundle.save(corrected_model, tmp_path / "c.model")
    manifest = json.loads((path / "emulator.json").read_text())
    manifest["config"]["base"]["architecture"] = name
    (path / "emulator.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=rf"the base of a correction is '{name}'; it may be payne, transformer"):
        bundle.load(path)


def test_the_derivative_at_its_own_spectra_is_finite(corrected_model: Model, deeper_grid: Grid) -> None:
    labels = jnp.asarray(deeper_grid.labels[0], jnp.float32)
    assert np.all(np.isfinite(jax.jit(jax.jacfwd(corrected_model.emulator.on()))(labels)))


def test_any_subset_of_wavelengths_gives_the_same_flux(corrected_model: Model) -> None:
    every = np.linspace(5000.5, 5009.0, 60)
    whole, part = (corrected_model.emulator.predict(toy.labels(3), w).flux for w in (every, every[10:20]))
    np.testing.assert_allclose(part, whole[:, 10:20], rtol=0, atol=1e-6)


def test_it_cannot_take_training_steps(corrected_model: Model) -> None:
    bound = corrected_model.emulator.on()
    with pytest.raises(RecipeError, match=r"^a corrected model is solved for, not trained; fine-tune its base model"):
        bound.at(corrected_model.emulator)


def test_drift_and_forgetting_are_told(corrected_model: Model, payne_model: Model, finished_grid: Grid) -> None:
    moved = drift(payne_model.emulator, corrected_model.emulator)
    assert 0.005 < moved["mae"] < 0.2
    lost = forgotten(payne_model, corrected_model, finished_grid)
    assert lost["after"] > lost["before"]


def test_it_is_exported_as_a_graph_and_not_as_arrays(corrected_model: Model, tmp_path: Path) -> None:
    pytest.importorskip("jax2onnx")
    written = export(corrected_model, tmp_path / "c.onnx", "onnx")
    assert written.largest <= 1e-5
    with pytest.raises(BundleError, match=r"there is no NumPy reader for the architecture 'corrected'; export it as o"):
        export(corrected_model, tmp_path / "c.npz", "npz")


def test_what_it_was_made_of_is_told_and_cited(transformer_model: Model, deeper_grid: Grid) -> None:
    source = {"grid": "old.zarr", "provenance": {"engine": "PySME"}}
    base = dataclasses.replace(transformer_model, training={**transformer_model.training, "source": source})
    model = finetune(base, few_spectra(base, deeper_grid, 10), CORRECTION, name="old.model").model
    facts = describe_model(model)
    assert facts["finetuned"]["architecture"] == "transformer"
    assert [work.split(",")[0] for work in facts["cite"]] == [
        "Kennedy & O'Hagan 2000", "Różański et al. 2024", "Wehrhahn et al. 2023",
    ]  # fmt: skip
    assert f"from old.model, transformer, digest {bundle.digest(base.emulator)}" in as_text(facts)
