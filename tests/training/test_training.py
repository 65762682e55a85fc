"""Training: what is interrupted ends as if it never was, what fails says so, and what is learned is real."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np
import pytest
import toy

from starpayne import bundle
from starpayne.emulators.base import predict_in_chunks
from starpayne.errors import BundleError, OutputExistsError, TrainingError
from starpayne.grid import Grid
from starpayne.training import PayneArchitecture, Recipe, TrainingData, loop, train
from starpayne.training.checkpoint import STATE, read_arrays, write_checkpoint

BOTH = pytest.mark.parametrize("emulator", ["payne", "transformer"])
Report = Mapping[str, float]


def interrupt_at(*steps: int) -> Callable[[int, int, Report], None]:
    """A progress callback that presses Ctrl-C once at each of these steps."""
    left = set(steps)

    def progress(step: int, _: int, __: Report) -> None:
        if step in left:
            left.remove(step)
            raise KeyboardInterrupt

    return progress


def train_with_interruptions(data: TrainingData, recipe: Recipe, path: Path, *steps: int) -> bundle.Model:
    progress = interrupt_at(*steps)
    for _ in steps:
        with pytest.raises(KeyboardInterrupt):
            train(data, recipe, path, progress=progress)
        assert (path / loop.CHECKPOINT / STATE).exists()
    return train(data, recipe, path, progress=progress)


def assert_same_training(one: bundle.Model, other: bundle.Model) -> None:
    assert toy.same_weights(one, other)
    assert one.training["history"] == other.training["history"]
    assert one.validation == other.validation
    assert one.residuals is not None
    assert other.residuals is not None
    np.testing.assert_array_equal(one.residuals.modes, other.residuals.modes)


# -- interrupted and resumed ------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("steps", [(60,), (30, 90, 180)])
def test_resumed_training_equals_uninterrupted(
    emulator: str, steps: tuple[int, ...], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    # The model fixtures' recipe: calls of 30 steps, a validation after every second, an average of the weights (EMA),
    # and for the transformer a random subset of the wavelengths.
    whole = request.getfixturevalue(f"{emulator}_model")
    resumed = train_with_interruptions(toy.data(), toy.recipe(emulator), tmp_path / "m", *steps)
    assert_same_training(resumed, whole)
    assert [entry["step"] for entry in whole.training["history"]] == [60, 120, 180]


@BOTH
def test_resumed_training_with_muon_equals_uninterrupted(emulator: str, tmp_path: Path) -> None:
    recipe = toy.recipe(emulator, optimizer="muon", ema=0.0, schedule="linear", weight_decay=0.01, loss="huber")
    whole = train(toy.data(), recipe, tmp_path / "whole")
    resumed = train_with_interruptions(toy.data(), recipe, tmp_path / "resumed", 30, 120)
    assert_same_training(resumed, whole)


@pytest.mark.parametrize("call", [1, 3, 4])
def test_ctrl_c_during_a_validation_loses_no_validation(
    call: int, payne_model: bundle.Model, monkeypatch, tmp_path: Path
) -> None:
    # Calls 1 to 3 are the validations, call 4 is the last look at all validation spectra.
    calls = 0

    def interrupted(*arguments):
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        return predict_in_chunks(*arguments)

    monkeypatch.setattr(loop, "predict_in_chunks", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(toy.data(), toy.recipe("payne"), tmp_path / "m")
    assert_same_training(train(toy.data(), toy.recipe("payne"), tmp_path / "m"), payne_model)


@BOTH
def test_training_that_was_killed_equals_uninterrupted(
    emulator: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    toy.python(
        """
        import os, signal, sys
        import toy
        from starpayne.training import loop

        loop.SECONDS_BETWEEN_CHECKPOINTS = 0  # after every call

        def progress(step, steps, report):
            if step == 120:
                os.kill(os.getpid(), signal.SIGKILL)

        loop.train(toy.data(), toy.recipe(sys.argv[1]), sys.argv[2], progress=progress)
        """,
        emulator, tmp_path / "m", killed=True,
    )  # fmt: skip
    assert json.loads((tmp_path / "m" / loop.CHECKPOINT / STATE).read_text())["step"] == 90
    resumed = train(toy.data(), toy.recipe(emulator), tmp_path / "m")
    assert_same_training(resumed, request.getfixturevalue(f"{emulator}_model"))


def test_training_killed_in_its_first_checkpoint_starts_again(payne_model: bundle.Model, tmp_path: Path) -> None:
    folder = tmp_path / "m" / loop.CHECKPOINT
    folder.mkdir(parents=True)
    (folder / "arrays-0123456789ab.safetensors.partial").write_bytes(b"half")
    assert_same_training(train(toy.data(), toy.recipe("payne"), tmp_path / "m"), payne_model)


def test_a_finished_model_holds_no_checkpoint(payne_model: bundle.Model, tmp_path: Path) -> None:
    train_with_interruptions(toy.data(), toy.recipe("payne"), tmp_path / "m", 60)
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == sorted([bundle.MANIFEST, bundle.WEIGHTS])
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_the_steps_are_compiled_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recipe = toy.recipe("payne", steps=4, validate_every=2, learning_rate=1.23e-3)
    with jax.log_compiles():
        train(toy.data(), recipe, tmp_path / "m")
    assert sum("Compiling jit(take_steps)" in message for message in caplog.messages) == 1


def test_progress_is_told_every_call_and_knows_the_end(tmp_path: Path) -> None:
    seen: list[tuple[int, int, Report]] = []
    train(toy.data(), toy.recipe("payne"), tmp_path / "m", progress=lambda *a: seen.append(a))
    assert [(step, steps) for step, steps, _ in seen] == [(s, 180) for s in range(30, 181, 30)]
    assert [step for step, _, report in seen if "validation_mae" in report] == [60, 120, 180]
    assert all(np.isfinite(report["loss"]) for _, _, report in seen)


# -- a damaged checkpoint ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (
            lambda arrays: arrays.unlink(),
            r"the checkpoint .* is missing; delete .*checkpoint to start this training afr",
        ),
        (
            lambda arrays: arrays.write_bytes(arrays.read_bytes()[:-4]),
            r"the checkpoint .* is damaged; delete .*checkpoi",
        ),
        (lambda arrays: (arrays.parent / STATE).write_text("{"), r"state\.json cannot be read as JSON"),
    ],
)
def test_a_damaged_checkpoint_is_refused_with_what_to_do(damage, text: str, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(toy.data(), toy.recipe("payne"), tmp_path / "m", progress=interrupt_at(30))
    (arrays,) = (tmp_path / "m" / loop.CHECKPOINT).glob("arrays-*")
    damage(arrays)
    with pytest.raises(TrainingError, match=text):
        train(toy.data(), toy.recipe("payne"), tmp_path / "m")


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, [np.zeros((2, 3), np.float32)], {})
    np.testing.assert_array_equal(read_arrays(tmp_path, [np.ones((2, 3), np.float32)])[0], np.zeros((2, 3)))
    with pytest.raises(TrainingError, match=r"belongs to another network; delete"):
        read_arrays(tmp_path, [np.ones((3, 2), np.float32)])
    with pytest.raises(TrainingError, match=r"belongs to another network; delete"):
        read_arrays(tmp_path, [np.ones((2, 3), np.float32)] * 2)


def test_only_the_newest_checkpoint_is_kept(tmp_path: Path) -> None:
    for value in (1.0, 2.0, 3.0):
        write_checkpoint(tmp_path, [np.full(3, value, np.float32)], {"step": int(value)})
    assert len(list(tmp_path.iterdir())) == 2
    np.testing.assert_array_equal(read_arrays(tmp_path, [np.zeros(3, np.float32)])[0], np.full(3, 3.0))


# -- what stands at the path ------------------------------------------------------------------------------------------


def test_a_finished_training_is_returned_at_once(payne_model: bundle.Model, tmp_path: Path, monkeypatch) -> None:
    bundle.save(payne_model, tmp_path / "m")
    monkeypatch.setattr(loop, "build", lambda *_: pytest.fail("it trained again"))
    again = train(toy.data(), toy.recipe("payne"), tmp_path / "m")
    assert toy.same_weights(again, payne_model)


@pytest.mark.parametrize("emulator", ["polynomial", "gaussian_process"])
def test_a_closed_form_is_solved_once_and_then_returned(
    emulator: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch
) -> None:
    model = request.getfixturevalue(f"{emulator}_model")
    seen: list[tuple[int, int, Report]] = []
    solved = train(toy.data(), toy.recipe(emulator), tmp_path / "m", progress=lambda *a: seen.append(a))
    assert toy.same_weights(solved, model)
    assert seen[-1] == (1, 1, {"validation_mae": model.validation["mae"]})
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == sorted([bundle.MANIFEST, bundle.WEIGHTS])
    monkeypatch.setattr(loop, "solve_and_save", lambda *_: pytest.fail("it was solved again"))
    assert toy.same_weights(train(toy.data(), toy.recipe(emulator), tmp_path / "m"), model)
    assert model.training["parameters"] > 0
    assert model.training["seconds"] > 0
    with pytest.raises(OutputExistsError, match=r"is not this training \(seed was 0\)"):
        train(toy.data(), toy.recipe(emulator, seed=1), tmp_path / "m")


def unfinished(path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(toy.data(), toy.recipe("payne"), path, progress=interrupt_at(30))


@pytest.mark.parametrize("there", ["finished", "unfinished", "other things", "a file"])
def test_another_training_at_the_path_is_refused_naming_overwrite(
    there: str, payne_model: bundle.Model, tmp_path: Path
) -> None:
    path = tmp_path / "m"
    if there == "finished":
        bundle.save(payne_model, path)
    elif there == "unfinished":
        unfinished(path)
    elif there == "other things":
        path.mkdir()
        (path / "thesis.tex").write_text("my only copy")
    else:
        path.write_text("my only copy")
    other = toy.recipe("payne", seed=1)
    difference = "seed was 0" if there in ("finished", "unfinished") else "it holds something else"
    text = rf"exists and is not this training \({difference}\); give another path, or --overwrite"
    with pytest.raises(OutputExistsError, match=text):
        train(toy.data(), other, path)
    if there == "unfinished":
        replaced = train(toy.data(), other, path, overwrite=True)
        assert replaced.training["identity"]["recipe"]["seed"] == 1
    elif there in ("other things", "a file"):
        assert "my only copy" in (path / "thesis.tex" if path.is_dir() else path).read_text()


def test_other_data_at_the_path_are_refused(payne_model: bundle.Model, tmp_path: Path) -> None:
    bundle.save(payne_model, tmp_path / "m")
    other = toy.data(source={"grid": "toy", "fingerprint": "another", "provenance": {}})
    with pytest.raises(OutputExistsError, match=r"\(another grid, split or --n-train\)"):
        train(other, toy.recipe("payne"), tmp_path / "m")


def test_a_damaged_model_at_the_path_is_said_to_be_damaged(payne_model: bundle.Model, tmp_path: Path) -> None:
    path = bundle.save(payne_model, tmp_path / "m")
    (path / bundle.WEIGHTS).write_bytes(b"")
    with pytest.raises(BundleError, match=r"has 0 bytes"):
        train(toy.data(), toy.recipe("payne"), path)


def test_an_empty_folder_is_trained_into(payne_model: bundle.Model, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    assert_same_training(train(toy.data(), toy.recipe("payne"), tmp_path / "m"), payne_model)


# -- failures ---------------------------------------------------------------------------------------------------------


def poisoned(monkeypatch, after: int) -> None:
    """Let the loss become NaN from this step on."""
    advance = loop.Run.advance

    def poison(run, state, start: int, stop: int):
        state, loss = advance(run, state, start, stop)
        return (state, loss) if start < after else (state._replace(weights=state.average), float("nan"))

    monkeypatch.setattr(loop.Run, "advance", poison)


def test_a_nan_loss_stops_with_the_best_weights_kept(monkeypatch, payne_model, tmp_path: Path) -> None:
    poisoned(monkeypatch, after=90)
    with pytest.raises(
        TrainingError,
        match=r"^the loss is not finite \(NaN or infinite\) by step 120; the best weights so far "
        r"\(validation MAE 0\.\d+\) are kept in .*m\. "
        r"Lower learning_rate \(now 0\.005\) or clip \(now 1\), or check the grid$",
    ):
        train(toy.data(), toy.recipe("payne"), tmp_path / "m")
    kept = bundle.load(tmp_path / "m")
    assert kept.training["stopped"] == "the loss was not finite by step 120"
    assert kept.training["history"] == payne_model.training["history"][:1]  # what was validated before
    assert kept.validation["mae"] == pytest.approx(kept.training["history"][0]["validation_mae"], rel=1e-4)
    with pytest.raises(
        OutputExistsError, match=r"holds the best weights of this very training, which stopped: the loss"
    ):
        train(toy.data(), toy.recipe("payne"), tmp_path / "m")


@BOTH
def test_nan_in_the_spectra_is_met_by_the_real_loop(emulator: str, tmp_path: Path) -> None:
    data = toy.data()
    data.targets[:, :, 3] = np.nan
    with pytest.raises(
        TrainingError, match=r"by step 30; no validated weights were there to keep\. Lower learning_rate"
    ):
        train(data, toy.recipe(emulator, output="raw", batch_wavelengths=0), tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_learning_rate_that_explodes_keeps_what_was_learned(tmp_path: Path) -> None:
    recipe = toy.recipe("payne", optimizer="adamw", learning_rate=10.0, clip=0.0, ema=0.0, loss="l2", validate_every=30)
    data = toy.data()
    data.targets[5] = 3e38  # one wild spectrum: its squared residual overflows
    with pytest.raises(TrainingError, match=r"the loss is not finite"):
        train(data, recipe.replace(output="raw"), tmp_path / "m")


def test_channels_that_the_data_have_not_are_refused(tmp_path: Path) -> None:
    recipe = toy.recipe("payne", channels=("flux", "log10_continuum"))
    with pytest.raises(TrainingError, match=r"the recipe's channels \('flux', 'log10_cont.* are not those of the data"):
        train(toy.data(), recipe, tmp_path / "m")


# -- what a training leaves -------------------------------------------------------------------------------------------


def test_the_best_validated_weights_are_kept(payne_model: bundle.Model) -> None:
    best = min(entry["validation_mae"] for entry in payne_model.training["history"])
    data = toy.data()
    predicted = payne_model.emulator.predict(data.validation_labels).flux
    mae = float(np.mean(np.abs(predicted - data.validation_targets[:, 0])))
    assert mae == pytest.approx(best, rel=1e-4)
    assert payne_model.validation["mae"] == pytest.approx(mae, rel=1e-4)
    assert payne_model.validation["n_spectra"] == 10
    assert payne_model.validation["rmse"] >= payne_model.validation["mae"]


def test_the_best_weights_are_kept_not_the_last(monkeypatch, tmp_path: Path) -> None:
    averages, validate = [], loop.Run.validate

    def worse_each_time(*arguments):
        return predict_in_chunks(*arguments) + 0.5 * len(averages)

    def recorded(run, state):
        averages.append(state.average)
        return validate(run, state)

    monkeypatch.setattr(loop, "predict_in_chunks", worse_each_time)
    monkeypatch.setattr(loop.Run, "validate", recorded)
    model = train(toy.data(), toy.recipe("payne"), tmp_path / "m")
    assert len(averages) == 3
    np.testing.assert_array_equal(model.emulator.weights[0], averages[0].weights[0])
    assert not np.array_equal(averages[2].weights[0], averages[0].weights[0])


@BOTH
def test_the_split_is_stored_and_repeatable(emulator: str, finished_grid: Grid, tmp_path: Path) -> None:
    recipe = toy.recipe(emulator, steps=30)
    data = TrainingData.from_grid(finished_grid, 20, name="toy.zarr")
    model = train(data, recipe, tmp_path / "m")
    stored = bundle.load(tmp_path / "m").training
    assert stored["split"] == {
        "train": list(range(20)), "validation": list(range(40, 50)), "test": list(range(50, 60)),
    }  # fmt: skip
    assert stored["source"]["grid"] == "toy.zarr"
    assert stored["source"]["fingerprint"] == finished_grid.fingerprint
    assert Recipe.from_dict(stored["identity"]["recipe"]) == recipe
    again = train(TrainingData.from_grid(finished_grid, 20), recipe, tmp_path / "again")
    assert again.training["split"] == stored["split"]
    assert toy.same_weights(again, model)


def test_another_seed_trains_another_network(payne_model: bundle.Model, tmp_path: Path) -> None:
    other = train(toy.data(), toy.recipe("payne", seed=1), tmp_path / "m")
    assert not toy.same_weights(other, payne_model)


@BOTH
def test_flux_and_continuum_are_trained_together(emulator: str, tmp_path: Path) -> None:
    channels = ("flux", "log10_continuum")
    data = toy.data(channels)
    model = train(data, toy.recipe(emulator, channels=channels), tmp_path / "m")
    model = bundle.load(tmp_path / "m")
    assert model.emulator.channels == channels
    prediction = model.emulator.predict(data.validation_labels)
    assert prediction.continuum is not None
    assert prediction.continuum.shape == prediction.flux.shape == (10, 40)
    assert np.all(prediction.continuum > 0)
    truth = 10.0 ** data.validation_targets[:, 1].astype(float)
    mean = 10.0 ** data.targets[:, 1].astype(float).mean(axis=0)
    # It follows Teff⁴ rather than giving one continuum for all.
    assert np.mean(np.abs(np.log(prediction.continuum / truth))) < 0.5 * np.mean(np.abs(np.log(mean / truth)))
    one = model.emulator.predict(data.validation_labels[0])
    assert one.continuum is not None
    np.testing.assert_allclose(one.continuum, prediction.continuum[0], rtol=1e-4)


@BOTH
@pytest.mark.parametrize(
    "settings",
    [
        {"output": "raw", "optimizer": "radam", "schedule": "constant", "warmup": 0.0, "clip": 0.0, "loss": "l2"},
        {"batch_spectra": 512, "steps": 35, "validate_every": 7, "batch_wavelengths": 512},
    ],
    ids=["as published", "batches larger than the data"],
)
def test_every_setting_trains(emulator: str, settings, tmp_path: Path) -> None:
    model = train(toy.data(), toy.recipe(emulator, **({"steps": 60, "ema": 0.0} | settings)), tmp_path / "m")
    assert np.isfinite(model.validation["mae"])
    losses = [entry["loss"] for entry in model.training["history"]]
    assert losses[-1] < losses[0] or len(losses) == 1
    assert model.training["history"][-1]["step"] == settings.get("steps", 60)


def test_a_payne_learns_real_spectra_in_seconds(korg_grid: Grid, tmp_path: Path) -> None:
    data = TrainingData.from_grid(korg_grid, 200)
    recipe = Recipe(PayneArchitecture((64, 64)), steps=1500, batch_spectra=32, learning_rate=3e-3)
    clock = time.process_time()
    model = train(data, recipe, tmp_path / "m")
    assert time.process_time() - clock < 40  # processor seconds: two cores, twenty of the clock
    test = list(korg_grid.split.test)
    truth = korg_grid.flux(test)
    error = np.mean(np.abs(model.emulator.predict(korg_grid.labels[test]).flux - truth))
    mean_spectrum = np.mean(np.abs(korg_grid.flux(data.split["train"]).mean(axis=0) - truth))
    assert error < mean_spectrum / 5
