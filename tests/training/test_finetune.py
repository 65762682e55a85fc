"""Fine-tuning: few spectra of other lines make a trained network better, and what it did to it is known."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path

import numpy as np
import pytest
import toy

from starpayne import bundle
from starpayne.bundle import Model
from starpayne.emulators import CHANNELS, adapted, learned_arrays
from starpayne.errors import (
    BundleError,
    OutputExistsError,
    RecipeError,
    TrainingError,
    WavelengthError,
)
from starpayne.evaluation import evaluate
from starpayne.grid import Grid, Split
from starpayne.labels import Label, LabelSpace
from starpayne.training import (
    FineTuning,
    TrainingData,
    Tuned,
    few_spectra,
    finetune,
    save_tuned,
)
from starpayne.training.loop import Run
from starpayne.training.transfer import refuse_place
from starpayne.training.transfer.data import target_of
from starpayne.wavelengths import air_to_vacuum

# The package exports a function of the module's name.
MODULE = importlib.import_module("starpayne.training.transfer.finetune")


# -- what is learned --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "moves"),
    [
        ("payne", "all"), ("payne", "head"), ("payne", "labels"), ("payne", "lora"), ("transformer", "all"),
        ("transformer", "lora"),
    ],
)  # fmt: skip
def test_twenty_spectra_lower_the_error_and_move_what_they_may(
    name: str, moves: str, deeper_grid: Grid, request: pytest.FixtureRequest
) -> None:
    base = request.getfixturevalue(f"{name}_model")
    done = {("payne", "all"): "tuned_payne", ("payne", "lora"): "low_rank_payne"}
    if (name, moves) in done:
        tuned = request.getfixturevalue(done[name, moves])
    else:
        tuned = finetune(base, few_spectra(base, deeper_grid, 20), toy.fine_tuning(moves=moves))
    facts = tuned.model.training["finetuning"]
    assert evaluate(tuned.model, deeper_grid).mae < 0.95 * evaluate(base, deeper_grid).mae
    assert facts["best_step"] > 0
    assert tuned.model.validation["mae"] < facts["mae_before"]
    before, after = (bundle.named_arrays(m.emulator) for m in (base, tuned.model))
    moved = {key for key in before if not np.array_equal(before[key], after[key])}
    if moves in ("head", "labels"):
        assert moved == set(learned_arrays(base.emulator, moves))
    else:
        assert moved == set(before) - {"center", "width"}
    assert (tuned.update is None) == (moves != "lora")
    if tuned.update is not None:
        assert facts["weights_stored"] == tuned.update.size < facts["weights_in_all"]


def test_the_error_before_is_that_of_the_base(payne_model: Model, tuned_payne: Tuned, deeper_grid: Grid) -> None:
    rows = list(range(20))
    before = np.mean(np.abs(payne_model.emulator.predict(deeper_grid.labels[rows]).flux - deeper_grid.flux(rows)))
    assert tuned_payne.model.training["finetuning"]["mae_before"] == pytest.approx(before, rel=1e-5)


@pytest.mark.parametrize("moves", ["all", "lora"])
def test_the_base_is_kept_if_no_step_helps(moves: str, payne_model: Model, deeper_grid: Grid) -> None:
    data = few_spectra(payne_model, deeper_grid, 20)
    perfect = payne_model.emulator.predict(data.labels).flux[:, None]
    tuned = finetune(payne_model, dataclasses.replace(data, targets=perfect), toy.fine_tuning(moves=moves, steps=20))
    facts = tuned.model.training["finetuning"]
    assert facts["best_step"] == 0
    assert facts["mae_before"] == tuned.model.validation["mae"] < 1e-6
    assert tuned.model.validation["rmse"] < 1e-6
    assert all(point["validation_mae"] > 1e-6 for point in facts["curve"][1:])
    assert toy.same_weights(tuned.model, payne_model)


def test_a_continuum_is_learned_beside_the_flux(payne_model: Model, deeper_grid: Grid) -> None:
    data = few_spectra(payne_model, deeper_grid, 40, continuum=True)
    assert data.channels == CHANNELS
    tuned = finetune(payne_model, data, toy.fine_tuning(steps=200))
    assert tuned.model.emulator.channels == CHANNELS
    rows = list(deeper_grid.split.test)
    found = tuned.model.emulator.predict(deeper_grid.labels[rows]).continuum
    truth, mean = deeper_grid.continuum(rows), 10 ** np.mean(data.targets[:, 1], axis=0)
    assert found is not None
    assert np.mean(np.abs(np.log(found / truth))) < 0.6 * np.mean(np.abs(np.log(mean / truth)))
    assert evaluate(tuned.model, deeper_grid).mae < evaluate(payne_model, deeper_grid).mae


def test_labels_that_the_grid_lacks_are_held_and_new_ones_learned(payne_model: Model, tmp_path: Path) -> None:
    feh = Label("feh", -1.0, 0.0)
    space = LabelSpace((feh, *toy.SPACE.labels[:4]))
    values = np.column_stack([np.linspace(-1, 0, 60), toy.labels()[:, :4]])
    fixed = toy.labels()
    fixed[:, 4] = 0.1
    # Metallicity deepens every line.
    flux = 1 - (1.5 + 0.5 * values[:, :1]) * (1 - toy.spectra(fixed))
    made = toy.empty_grid(tmp_path / "g.zarr", space=space, labels=values)
    made.write_all(flux.astype(np.float32), toy.continua(fixed))
    other = Grid.open(tmp_path / "g.zarr")
    tuned = finetune(payne_model, few_spectra(payne_model, other, 40, hold={"mg_fe": 0.1}), toy.fine_tuning(steps=200))
    assert tuned.model.emulator.space.names == ("teff", "logg", "alpha_fe", "vmic", "feh")
    assert tuned.model.training["finetuning"]["held"] == {"mg_fe": 0.1}
    start = dataclasses.replace(tuned.model, emulator=tuned.start)
    assert evaluate(tuned.model, other).mae < 0.6 * evaluate(start, other).mae
    solar = {"teff": 5500, "logg": 4, "alpha_fe": 0.1, "vmic": 1}
    depths = [1 - tuned.model.emulator.predict({**solar, "feh": x}).flux.min() for x in (-0.9, -0.1)]
    assert depths[1] > depths[0] + 0.02


def test_another_medium_is_refused_and_converted_on_demand(
    payne_model: Model, tuned_payne: Tuned, deeper_grid: Grid, tmp_path: Path
) -> None:
    vacuum = toy.write_deeper_grid(tmp_path / "g.zarr", wavelength=air_to_vacuum(toy.WAVELENGTH), medium="vacuum")
    text = r"of the grid are in vacuum, those of the model in air: the same line would be at two places; --convert-med"
    with pytest.raises(WavelengthError, match=text):
        few_spectra(payne_model, vacuum, 20)
    data = few_spectra(payne_model, vacuum, 20, convert=True)
    np.testing.assert_allclose(data.wavelength, toy.WAVELENGTH, rtol=1e-11)
    assert data.domain.medium == "air"
    tuned = finetune(payne_model, data, toy.fine_tuning()).model
    assert tuned.training["finetuning"]["mae_before"] == pytest.approx(
        tuned_payne.model.training["finetuning"]["mae_before"], rel=1e-4
    )
    assert evaluate(tuned, vacuum).mae == pytest.approx(evaluate(tuned_payne.model, deeper_grid).mae, rel=0.05)


def test_a_grid_too_small_to_train_on_can_be_fine_tuned_on(payne_model: Model, tmp_path: Path) -> None:
    other = toy.write_deeper_grid(tmp_path / "g.zarr", labels=toy.labels()[:5], split=Split.last_rows(5, 0, 0))
    tuned = finetune(payne_model, few_spectra(payne_model, other), toy.fine_tuning(steps=20))
    assert tuned.model.training["finetuning"]["n_spectra"] == 5


# -- what is held out -------------------------------------------------------------------------------------------------


@pytest.fixture
def held_out(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The rows that each fold of the next fine-tuning holds out."""
    seen: list[list[int]] = []
    parted = MODULE.parted

    def recorded(data: TrainingData, held: np.ndarray) -> TrainingData:
        part = parted(data, held)
        assert sorted([*part.split["train"], *part.split["validation"]]) == sorted(data.split["train"])
        seen.append(part.split["validation"])
        return part

    monkeypatch.setattr(MODULE, "parted", recorded)
    return seen


def test_under_fifty_spectra_each_is_held_out_once(
    payne_model: Model, deeper_grid: Grid, held_out: list[list[int]]
) -> None:
    tuned = finetune(payne_model, few_spectra(payne_model, deeper_grid, 49), toy.fine_tuning(steps=2))
    assert len(held_out) == 5
    assert sorted(np.concatenate(held_out)) == list(range(49))
    assert tuned.model.validation["n_spectra"] == 49
    assert tuned.model.training["split"] == {"train": list(range(49)), "validation": [], "test": list(range(50, 60))}


def test_from_fifty_spectra_on_a_fifth_is_held_out(
    payne_model: Model, deeper_grid: Grid, held_out: list[list[int]]
) -> None:
    tuned = finetune(payne_model, few_spectra(payne_model, deeper_grid, 50), toy.fine_tuning(steps=2))
    assert len(held_out) == 1
    assert len(set(held_out[0])) == 10
    assert tuned.model.validation["n_spectra"] == 10


def test_the_residual_covariance_is_that_of_the_held_out_spectra(
    payne_model: Model, deeper_grid: Grid, held_out: list[list[int]], monkeypatch
) -> None:
    # As from 500 spectra on, the best weights are kept, so that the held-out residuals are those of the model.
    monkeypatch.setattr(MODULE, "MANY", 50)
    tuned = finetune(payne_model, few_spectra(payne_model, deeper_grid, 50), toy.fine_tuning())
    assert tuned.model.training["finetuning"]["best_step"] > 0
    rows = held_out[0]
    residual = tuned.model.emulator.predict(deeper_grid.labels[rows]).flux - deeper_grid.flux(rows)
    assert tuned.model.validation["mae"] == pytest.approx(np.mean(np.abs(residual)), rel=1e-4)
    found = tuned.model.residuals
    assert found is not None
    variance = np.sum(found.modes.astype(float) ** 2, axis=0) + found.noise.astype(float) ** 2
    np.testing.assert_allclose(variance, np.mean(residual.astype(float) ** 2, axis=0), rtol=1e-3)
    assert tuned.model.validation["rmse"] == pytest.approx(np.sqrt(np.mean(variance)), rel=1e-3)


def test_the_residual_covariance_of_folds_is_not_that_of_the_training(tuned_payne: Tuned, deeper_grid: Grid) -> None:
    found = tuned_payne.model.residuals
    assert found is not None
    variance = np.sum(found.modes.astype(float) ** 2, axis=0) + found.noise.astype(float) ** 2
    assert tuned_payne.model.validation["rmse"] == pytest.approx(np.sqrt(np.mean(variance)), rel=1e-3)
    seen = tuned_payne.model.emulator.predict(deeper_grid.labels[:20]).flux - deeper_grid.flux(range(20))
    assert np.mean(variance) > np.mean(seen**2)


# -- what is known of it ----------------------------------------------------------------------------------------------


def test_the_model_says_what_it_was_made_of(payne_model: Model, tuned_payne: Tuned, deeper_grid: Grid) -> None:
    training = tuned_payne.model.training
    digest = bundle.digest(payne_model.emulator)
    assert training["identity"]["base"] == digest
    assert training["identity"]["finetuning"] == toy.fine_tuning().to_dict() == training["finetuning"]["settings"]
    assert training["finetuning"]["base"] == {
        "name": "payne.model", "digest": digest, "architecture": "payne", "validation": payne_model.validation,
        "source": payne_model.training["source"], "base": {},
    }  # fmt: skip
    assert training["source"]["grid"] == "deeper.zarr"
    assert training["source"]["fingerprint"] == deeper_grid.fingerprint
    steps = [point["step"] for point in training["finetuning"]["curve"]]
    assert steps == list(range(0, 81, 4))
    best = min(training["finetuning"]["curve"], key=lambda point: point["validation_mae"])
    assert best == {"step": training["finetuning"]["best_step"], "validation_mae": tuned_payne.model.validation["mae"]}


@pytest.mark.parametrize("fixture", ["tuned_payne", "low_rank_payne"])
def test_the_same_seed_gives_the_same_model(
    fixture: str, payne_model: Model, deeper_grid: Grid, request: pytest.FixtureRequest
) -> None:
    one = request.getfixturevalue(fixture).model
    settings = FineTuning(**one.training["finetuning"]["settings"])
    same = finetune(payne_model, few_spectra(payne_model, deeper_grid, 20), settings).model
    assert toy.same_weights(one, same)
    assert one.validation == same.validation


def test_another_seed_gives_another_model(tuned_payne: Tuned, payne_model: Model, deeper_grid: Grid) -> None:
    other = finetune(payne_model, few_spectra(payne_model, deeper_grid, 20), toy.fine_tuning(seed=1)).model
    assert not toy.same_weights(tuned_payne.model, other)
    assert other.validation["mae"] != tuned_payne.model.validation["mae"]  # the folds are others too


def test_a_fine_tuned_model_can_be_fine_tuned_again(tuned_payne: Tuned, deeper_grid: Grid) -> None:
    again = finetune(tuned_payne.model, few_spectra(tuned_payne.model, deeper_grid, 20), toy.fine_tuning(steps=20))
    assert again.model.training["identity"]["base"] == bundle.digest(tuned_payne.model.emulator)


@pytest.mark.usefixtures("tuned_payne")
def test_progress_runs_to_its_end_over_all_folds(reports: list[tuple[int, int]]) -> None:
    steps = [step for step, _ in reports]
    assert {total for _, total in reports} == {6 * 80}  # five folds, and all spectra
    assert steps == sorted(steps)
    assert steps[-1] == 6 * 80
    assert {80, 160, 240, 320, 400} <= set(steps)


@pytest.mark.parametrize("fixture", ["tuned_payne", "low_rank_payne"])
def test_what_is_saved_predicts_as_before(
    fixture: str, payne_model: Model, deeper_grid: Grid, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    tuned = request.getfixturevalue(fixture)
    base_path = bundle.save(payne_model, tmp_path / "base.model")
    path = save_tuned(tuned, payne_model, base_path, tmp_path / "new.model")
    assert (path / bundle.ADAPTER).exists() == (fixture == "low_rank_payne")
    again = bundle.load(path)
    assert toy.same_weights(again, tuned.model)
    assert again.training == tuned.model.training
    assert evaluate(again, deeper_grid).mae == evaluate(tuned.model, deeper_grid).mae


@pytest.mark.parametrize("output", ["raw", "standardised"])
def test_what_is_new_starts_from_the_mean_whatever_the_network_gives(
    output: str, payne_model: Model, deeper_grid: Grid
) -> None:
    data = few_spectra(payne_model, deeper_grid, 20, continuum=True)
    recipe = toy.recipe("payne").replace(output=output, channels=CHANNELS)
    start = adapted(payne_model.emulator, target_of(payne_model, data, recipe))
    found = start.predict(data.labels[:3]).continuum
    assert found is not None
    mean = np.mean(data.targets[:, 1], axis=0, dtype=float)
    np.testing.assert_allclose(np.log10(found), np.tile(mean, (3, 1)), rtol=1e-6)


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spoiled", [16, 20], ids=["in a fold", "in the last run on all spectra"])
def test_a_loss_that_is_not_finite_stops_with_what_to_do(
    spoiled: int, payne_model: Model, deeper_grid: Grid, monkeypatch
) -> None:
    advance = Run.advance

    def poisoned(run: Run, state, start: int, stop: int):
        state, loss = advance(run, state, start, stop)
        return state, float("nan") if len(run.data.labels) == spoiled else loss

    monkeypatch.setattr(Run, "advance", poisoned)
    with pytest.raises(
        TrainingError, match=r"^the loss is not finite by step \d+; lower the learning rate \(now 0\.005\)$"
    ):
        finetune(payne_model, few_spectra(payne_model, deeper_grid, 20), toy.fine_tuning())


def test_a_model_without_a_recipe_is_refused(payne_model: Model, deeper_grid: Grid) -> None:
    bare = Model(payne_model.emulator)
    with pytest.raises(RecipeError, match=r"^the model does not say by what recipe it was trained, which fine-tuning"):
        finetune(bare, few_spectra(bare, deeper_grid, 20), toy.fine_tuning())


def test_a_closed_form_is_refused(gaussian_process_model: Model, deeper_grid: Grid) -> None:
    with pytest.raises(RecipeError, match=r"^a gaussian_process is solved in closed form and cannot be fine-tuned"):
        finetune(gaussian_process_model, few_spectra(gaussian_process_model, deeper_grid, 20), toy.fine_tuning())


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"rank": 0}, r"rank = 0"),
        ({"steps": 0}, r"steps = 0"),
        ({"learning_rate": -1.0}, r"learning_rate = -1"),
        ({"ema": 1.0}, r"ema = 1"),
    ],
)
def test_impossible_settings_are_refused(settings, text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        FineTuning(**settings)


def test_what_may_move_is_said() -> None:
    # In a process of its own, because here the tests' type checker would refuse it first.
    said = toy.python("""
        from starpayne.errors import RecipeError
        from starpayne.training import FineTuning

        try:
            FineTuning(moves="body")
        except RecipeError as error:
            print(error)
    """)
    assert said.strip() == "moves = 'body' is not known; choose one of auto, correction, all, head, labels, lora"


def test_settings_left_open_follow_the_number_of_spectra(payne_model: Model) -> None:
    few, more, many = (FineTuning().filled(payne_model, n, far=False).to_dict() for n in (20, 50, 500))
    assert few["steps"] < more["steps"] < many["steps"]
    assert few["learning_rate"] < more["learning_rate"] == many["learning_rate"]
    low_rank = FineTuning(moves="lora").filled(payne_model, 20, far=False).to_dict()
    assert low_rank["learning_rate"] > few["learning_rate"]
    assert low_rank["steps"] > few["steps"]
    assert FineTuning().filled(payne_model, 50, far=True).to_dict()["steps"] > more["steps"]
    given = FineTuning(learning_rate=0.0, steps=7)
    for far in (False, True):
        assert given.filled(payne_model, 20, far) == given


@pytest.mark.parametrize("moves", ["all", "lora"])
def test_a_model_that_knows_nothing_of_the_grid_goes_on_as_it_was_trained(
    moves: str, payne_model: Model, deeper_grid: Grid
) -> None:
    trained = toy.recipe("payne", optimizer="muon", weight_decay=0.01, reference_width=8)
    training = {**payne_model.training, "identity": {"recipe": trained.to_dict()}}
    near = dataclasses.replace(payne_model, training=training)
    far = dataclasses.replace(near, validation={"mae": 1e-5})  # its error on the grid is a thousand times that
    data = few_spectra(near, deeper_grid, 10)
    settings = toy.fine_tuning(moves=moves, steps=5, learning_rate=None)
    used = [finetune(m, data, settings).model.training["identity"]["recipe"] for m in (near, far)]
    kept = ("optimizer", "learning_rate", "weight_decay", "reference_width")
    assert [used[1][key] for key in kept] == [trained.to_dict()[key] for key in kept] == ["muon", 5e-3, 0.01, 8]
    assert [used[0][key] for key in kept if key != "learning_rate"] == ["adamw", 0.0, 0]
    assert used[0]["learning_rate"] < used[1]["learning_rate"]


def test_a_place_that_holds_something_else_is_refused(payne_model: Model, tmp_path: Path) -> None:
    base = bundle.save(payne_model, tmp_path / "base.model")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("my only copy")
    with pytest.raises(OutputExistsError, match=r"base\.model exists; give another path, or --overwrite"):
        refuse_place(base, base, False, False)
    with pytest.raises(OutputExistsError, match=r"home holds neither emulator\.json nor adapter\.json .* no earlier"):
        refuse_place(tmp_path / "home", base, False, True)
    with pytest.raises(OutputExistsError, match=r"base\.model is the base model, which a low-rank update of it needs"):
        refuse_place(tmp_path / "home" / ".." / "base.model", base, True, True)
    refuse_place(base, base, False, True)
    refuse_place(tmp_path / "new", base, True, False)


def test_an_update_of_an_update_is_refused_naming_merge(tmp_path: Path) -> None:
    (tmp_path / "one.lora").mkdir()
    (tmp_path / "one.lora" / bundle.ADAPTER).write_text("{}")
    with pytest.raises(BundleError, match=r"one\.lora is a low-rank update itself; .*: starpayne merge .*one\.lora$"):
        refuse_place(tmp_path / "two.lora", tmp_path / "one.lora", True, False)
    refuse_place(tmp_path / "two.model", tmp_path / "one.lora", False, False)
