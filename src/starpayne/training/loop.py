"""The training loop: many steps per compiled call, validated, checkpointed, and resumable to the last bit.

What a step sees depends on the recipe's seed and the number of the step alone, and calls begin and end at the same
steps however often a training is interrupted; a resumed training therefore repeats the uninterrupted one exactly.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from starpayne import bundle
from starpayne.emulators import Emulator
from starpayne.emulators.base import predict_in_chunks
from starpayne.emulators.fixed_grid import FixedGridEmulator
from starpayne.errors import TrainingError
from starpayne.training.batches import Batches, GridSource, Source
from starpayne.training.build import build, channel_scale
from starpayne.training.checkpoint import STATE, read_arrays, read_facts, write_checkpoint
from starpayne.training.closed_form import solve_and_save
from starpayne.training.data import TrainingData
from starpayne.training.devices import on_all, shared_by
from starpayne.training.optimizer import make_optimizer, trainable
from starpayne.training.place import CHECKPOINT, finished_before
from starpayne.training.recipe import Recipe
from starpayne.training.result import validated_model
from starpayne.training.step import Assembly, State, take_steps

SECONDS_BETWEEN_CHECKPOINTS = 30.0
SELECTION_SPECTRA, SELECTION_WAVELENGTHS = 200, 1000
"""The best weights are chosen on at most so many validation spectra and wavelengths, evenly spaced."""

Progress = Callable[[int, int, Mapping[str, float]], None]


class Position(NamedTuple):
    """How far a training is; replaced as a whole, so that Ctrl-C finds the one before a call or the one after it."""

    step: int
    state: State
    history: list[dict[str, float]]


def train(
    data: TrainingData,
    recipe: Recipe,
    path: str | Path,
    *,
    progress: Progress | None = None,
    overwrite: bool = False,
    devices: int | None = None,
) -> bundle.Model:
    """Train an emulator and write its model folder; run again after an interruption, it goes on where it stopped.

    Args:
        data: from :meth:`TrainingData.from_grid`.
        recipe: the settings; its channels must be those of the data. A polynomial or a Gaussian process is solved in
            closed form (and starts afresh after an interruption).
        path: model folder to make. While training goes on it holds ``checkpoint/``. If the same training is already
            finished there, its model is returned.
        progress: called as ``progress(step, steps, {"loss": …, "validation_mae": …})``.
        overwrite: replace what another training left at the path.
        devices: at most so many of the machine's devices share every batch; by default as many as divide it.

    Raises:
        OutputExistsError: the path holds something else.
        TrainingError: the loss became NaN (the best weights so far are kept as a model), or a damaged checkpoint.
    """
    path = Path(path)
    identity = {"recipe": recipe.to_dict(), "data": data.fingerprint}
    finished = finished_before(path, identity, overwrite)
    if finished is not None:
        if progress is not None:
            total = 1 if recipe.closed_form else recipe.steps
            progress(total, total, {"validation_mae": finished.validation["mae"]})
        return finished
    if recipe.channels != data.channels:
        raise TrainingError(f"the recipe's channels {recipe.channels} are not those of the data, {data.channels}")
    if recipe.quantity != data.domain.quantity:
        raise TrainingError(
            f"the recipe's quantity {recipe.quantity!r} is not that of the data, {data.domain.quantity!r}; "
            "give TrainingData.from_grid the recipe's"
        )
    if recipe.closed_form:
        return solve_and_save(data, recipe, path, identity, progress)
    return _iterate(data, recipe, path, identity, progress, devices)


def _iterate(
    data: TrainingData, recipe: Recipe, path: Path, identity: Mapping[str, Any], progress: Progress | None,
    devices: int | None,
) -> bundle.Model:  # fmt: skip
    """Train by gradients, from the checkpoint if there is one."""
    run = Run.whole(data, recipe, build(data, recipe), devices=devices)
    model = iterate(run, path, identity, progress)
    bundle.save(model, path, overwrite=True)
    return model


def iterate(
    run: Run, path: Path, identity: Mapping[str, Any], progress: Progress | None = None, goal: float = 0.0
) -> bundle.Model:
    """Take the steps of a training, from the checkpoint in ``path`` if there is one, and return the best model.

    It ends before its last step if a validation finds an error less than the goal. After Ctrl-C a checkpoint is there;
    the caller saves the model, which ends the training.
    """
    recipe = run.recipe
    position, seconds = Position(0, run.initial, []), 0.0
    folder = path / CHECKPOINT
    if (folder / STATE).exists():
        facts = read_facts(folder)
        position = Position(int(facts["step"]), read_arrays(folder, run.initial), list(facts["history"]))
        seconds = float(facts["seconds"])
    clock = time.monotonic() - seconds
    saved = time.monotonic()

    def checkpoint() -> None:
        elapsed = time.monotonic() - clock
        facts = {"identity": identity, "step": position.step, "history": position.history, "seconds": elapsed}
        write_checkpoint(folder, position.state, facts)

    try:
        while position.step < recipe.steps and not float(position.state.best_mae) < goal:
            stop = min(position.step + run.steps_per_call, recipe.steps)
            state, loss = run.advance(position.state, position.step, stop)
            if not np.isfinite(loss):
                _keep_best(run, position, path, identity, stop)
            history, report = position.history, {"loss": loss}
            if run.validates_at(stop):
                state, mae = run.validate(state)
                history = [*history, {"step": stop, "loss": loss, "validation_mae": mae}]
                report["validation_mae"] = mae
            position = Position(stop, state, history)
            if progress is not None:
                progress(stop, recipe.steps, report)
            if time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS:
                checkpoint()
                saved = time.monotonic()
        return run.finish(position, identity, time.monotonic() - clock)
    except KeyboardInterrupt:
        checkpoint()
        raise


class Run:
    """The compiled functions and constant arrays of one training.

    Runs that share an optimizer, of the same recipe, share its compiled steps where their arrays have the same shapes.
    The spectra of the steps are those of the data, or what another source gives.
    """

    def __init__(
        self,
        data: TrainingData,
        recipe: Recipe,
        weights: Any,
        assembly: Assembly,
        optimizer: optax.GradientTransformation | None = None,
        source: Source | None = None,
        devices: int | None = None,
    ) -> None:
        self.data, self.recipe, self.assembly = data, recipe, assembly
        self.source = source or GridSource(data, recipe.batch_spectra, recipe.seed)
        emulator = assembly(weights)
        self.optimizer = optimizer or make_optimizer(recipe, emulator)
        # A source of spectra other than the grid's has as many as it is asked for.
        batch = min(recipe.batch_spectra, len(data.labels)) if source is None else recipe.batch_spectra
        self.mesh = shared_by(batch, devices)
        initial = State(weights, weights, self.optimizer.init(weights), weights, jnp.asarray(jnp.inf, jnp.float32))
        self.initial = on_all(initial, self.mesh)
        n_wavelength = len(data.wavelength)
        any_wavelength = not isinstance(emulator, FixedGridEmulator)
        self.subset = recipe.batch_wavelengths if any_wavelength and recipe.batch_wavelengths < n_wavelength else 0
        self.bound = on_all(emulator.bind(data.wavelength), self.mesh)
        # A call ends at every validation, and at least every 50 steps for progress, checkpoints and Ctrl-C.
        self.steps_per_call = max(k for k in range(1, 51) if recipe.validate_every % k == 0)
        self.scale = jnp.asarray(channel_scale(data))
        self._placed: tuple[Batches, Any] | None = None
        self.selected_rows = _evenly(len(data.validation_labels), SELECTION_SPECTRA)
        self.selected_columns = _evenly(n_wavelength, SELECTION_WAVELENGTHS)

    def validates_at(self, step: int) -> bool:
        return step % self.recipe.validate_every == 0 or step == self.recipe.steps

    @classmethod
    def whole(
        cls, data: TrainingData, recipe: Recipe, emulator: Emulator, source: Source | None = None,
        devices: int | None = None,
    ) -> Run:  # fmt: skip
        """A training of all weights of an emulator."""
        weights, fixed = eqx.partition(emulator, trainable(emulator))
        return cls(data, recipe, weights, Assembly(fixed), source=source, devices=devices)

    # -- what a step sees -----------------------------------------------------------------------------------

    def columns(self, start: int, stop: int) -> np.ndarray | None:
        """Return wavelength indices (steps, subset), functions of the step number alone; None for all wavelengths."""
        if not self.subset:
            return None
        draws = [
            np.random.default_rng([self.recipe.seed, 1, step]).choice(
                len(self.data.wavelength), self.subset, replace=False, shuffle=False
            )
            for step in range(start, stop)
        ]
        return np.sort(np.stack(draws), axis=1)

    # -- steps ----------------------------------------------------------------------------------------------

    def advance(self, state: State, start: int, stop: int) -> tuple[State, float]:
        """Take the steps start … stop − 1 and return the mean loss over them."""
        seen, columns = self.source.take(start, stop), self.columns(start, stop)
        state, losses = take_steps(
            state, self.assembly, self.bound, self.optimizer, self.recipe, self.scale, *self._on_devices(seen),
            jnp.asarray(seen.rows), None if columns is None else jnp.asarray(columns), jnp.arange(start, stop),
            self.mesh,
        )  # fmt: skip
        return state, float(jnp.mean(losses))

    def _on_devices(self, seen: Batches) -> tuple[Array, Array]:
        """Return the spectra that the steps see, on all devices; moved there when they are others than before."""
        if self.mesh is None:
            return seen.labels, seen.targets
        if self._placed is None or self._placed[0].targets is not seen.targets:
            self._placed = seen, on_all((seen.labels, seen.targets), self.mesh)
        return self._placed[1]

    def validate(self, state: State) -> tuple[State, float]:
        """Return the state with the best weights updated, and the mean absolute error of the averaged weights."""
        emulator = self.assembly(state.average)
        rows, columns = self.selected_rows, self.selected_columns
        wavelength = self.data.wavelength[columns]
        predicted = predict_in_chunks(emulator, self.data.validation_labels[rows], wavelength)[:, 0]
        mae = float(np.mean(np.abs(predicted - self.data.validation_targets[rows, 0][:, columns])))
        if mae < float(state.best_mae):
            state = state._replace(best=state.average, best_mae=jnp.asarray(mae, jnp.float32))
        return state, mae

    def finish(self, position: Position, identity: Mapping[str, Any], seconds: float) -> bundle.Model:
        """Return the model of the best weights, validated in full."""
        emulator = self.assembly(position.state.best)
        predicted = predict_in_chunks(emulator, self.data.validation_labels, self.data.wavelength)[:, 0]
        facts = {"history": position.history, "seconds": seconds}
        return validated_model(emulator, self.data, predicted, {"identity": dict(identity), **facts})


def _evenly(n: int, most: int) -> np.ndarray:
    """Return at most ``most`` of the indices 0 … n − 1, evenly spaced."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(int))


def _keep_best(run: Run, position: Position, path: Path, identity: Mapping[str, Any], step: int) -> None:
    """Save the best weights, if any were validated, and raise."""
    kept = "no validated weights were there to keep"
    best_mae = float(position.state.best_mae)
    if np.isfinite(best_mae):
        model = run.finish(position, identity, 0.0)
        stopped = f"the loss was not finite by step {step}"
        bundle.save(replace(model, training={**model.training, "stopped": stopped}), path, overwrite=True)
        kept = f"the best weights so far (validation MAE {best_mae:.5f}) are kept in {path}"
    raise TrainingError(
        f"the loss is not finite (NaN or infinite) by step {step}; {kept}. "
        f"Lower learning_rate (now {run.recipe.learning_rate:g}) or clip (now {run.recipe.clip:g}), or check the grid"
    )
