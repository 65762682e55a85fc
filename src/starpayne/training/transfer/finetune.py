"""Fine-tuning: a correction in closed form, or steps whose number is chosen by spectra that were held out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from starpayne import bundle
from starpayne.bundle import Model, Residuals
from starpayne.emulators import Corrected, Emulator, LowRank, Target, adapted, fresh_low_rank, learned_arrays, merged
from starpayne.emulators.base import predict_in_chunks
from starpayne.errors import BundleError, OutputExistsError, TrainingError
from starpayne.files import refuse_foreign
from starpayne.training.data import TrainingData
from starpayne.training.loop import CHECKPOINT, Run
from starpayne.training.optimizer import make_optimizer, name_of, trainable
from starpayne.training.step import Assembly, State
from starpayne.training.transfer.correction import correct, refuse_corrected
from starpayne.training.transfer.data import parted, target_of
from starpayne.training.transfer.settings import FAR, FEW, MANY, FineTuning, Moves
from starpayne.wavelengths import covers

FOLDS, HELD_OUT, MOST_HELD_OUT = 5, 0.2, 200
"""Folds of few spectra; fraction of more of them that is held out, and how many at most."""

Progress = Callable[[int, int, Mapping[str, float]], None]


@dataclass(frozen=True)
class Tuned:
    """A fine-tuned model.

    Args:
        model: the emulator, its validation and its training, where ``training["finetuning"]`` holds: the settings,
            ``base`` (its digest and own validation), ``mae_before`` (of the base on the held-out spectra), ``curve``
            (step and held-out MAE) and ``best_step``, or of a correction ``lengths`` and ``noise``; ``helped``,
            ``folds``, ``weights_stored`` and ``weights_in_all``.
        start: the base adapted to the grid's labels, wavelengths and channels.
        update: the low-rank update, where that is what moved.
        target: what the base was adapted to; None where it was taken as it is.
    """

    model: Model
    start: Emulator
    update: LowRank | None = None
    target: Target | None = None


class LowRankAssembly(Assembly):
    """An emulator of fixed weights and a low-rank update that is trained."""

    def __call__(self, weights: Any) -> Emulator:
        return merged(self.fixed, weights)


def finetune(
    base: Model, data: TrainingData, settings: FineTuning, progress: Progress | None = None, name: str = ""
) -> Tuned:
    """Fine-tune a model on the spectra of another grid.

    A correction is solved for, and each spectrum is held out of one made from the others. Where weights move, the
    number of steps is chosen by five-fold cross-validation under 50 spectra, and from 50 on by a fifth that is held
    out; the steps are then taken on all spectra (from 500 on the weights that were best are kept). If neither helps,
    the adapted base is returned, and ``helped`` is false. The residual covariance is that of the held-out spectra.

    Args:
        base: a model trained by gradients; for a correction any, but for one that is corrected already.
        data: from :func:`few_spectra`.
        settings: what moves, and how.
        progress: called as ``progress(step, steps, {"validation_mae": …})`` over all folds.
        name: of the base model, for the record.

    Raises:
        RecipeError: for a model that cannot be fine-tuned.
        TrainingError: if the loss is not finite.
    """
    clock = monotonic()
    moves, start, target = _begun(base, data, settings)
    if moves == "correction":
        return _corrected(base, data, replace(settings, moves=moves), start, clock, progress, name)
    n = len(data.labels)
    error = float(np.mean(np.abs(_flux(start, data) - data.targets[:, 0])))
    far = error > FAR * float(base.validation.get("mae", np.inf))
    settings = replace(settings, moves=moves)
    recipe = settings.recipe(base, n, far).replace(channels=data.channels)
    settings = settings.filled(base, n, far)
    folds = _folds(n, settings.seed)
    again = n < MANY
    total = recipe.steps * (len(folds) + again)
    traces = []
    state: State | None = None
    assembly, weights = _moving(start, settings)
    optimizer = make_optimizer(recipe, start)
    for k, held in enumerate(folds):
        run = Run(parted(data, held), recipe, weights, assembly, optimizer)
        found, state = _trace(run, recipe.steps, _shifted(progress, k * recipe.steps, total))
        traces.append(found)
    steps = [point.step for point in traces[0]]
    held_out = np.concatenate(folds)
    true = data.targets[held_out, 0]
    curve = [float(np.mean(np.abs(np.concatenate([t[i].predicted for t in traces]) - true))) for i in range(len(steps))]
    best = int(np.argmin(curve))
    if steps[best] and again:
        run = Run(data, recipe, weights, assembly, optimizer)
        weights = _take(run, steps[best], _shifted(progress, len(folds) * recipe.steps, total))
    elif steps[best] and state is not None:
        weights = state.best
    if progress is not None:
        progress(total, total, {"validation_mae": curve[best]})
    facts = {
        "mae_before": curve[0],
        "curve": [{"step": step, "validation_mae": mae} for step, mae in zip(steps, curve, strict=True)],
        "best_step": steps[best],
        "helped": steps[best] > 0,
        "folds": len(folds),
        "weights_stored": _size(eqx.filter(weights, eqx.is_array)),
    }
    residual = np.concatenate([t[best].predicted for t in traces]) - true
    identity = {"recipe": recipe.to_dict()}
    model = _described(base, name, data, settings, assembly(weights), residual, held_out, facts, identity, clock)
    return Tuned(model, start, weights if isinstance(weights, LowRank) else None, target)


def _begun(base: Model, data: TrainingData, settings: FineTuning) -> tuple[Moves, Emulator, Target | None]:
    """Return what moves, and the base as it begins, with what it was adapted to.

    Raises:
        RecipeError: for a model that cannot be fine-tuned so.
    """
    emulator, moves = base.emulator, settings.moves
    refuse_corrected(emulator)
    if moves == "auto":
        # A correction leaves the base as it is, which must know what it corrects.
        known = (
            set(data.space.names) <= set(emulator.space.inputs)
            and set(data.channels) <= set(emulator.channels)
            and covers(emulator.domain.low, emulator.domain.high, data.wavelength)
        )
        moves = "correction" if known else "all"
    if moves == "correction" and (emulator.space.names, emulator.channels) == (data.space.names, data.channels):
        return moves, emulator, None
    target = target_of(base, data, settings.recipe(base, len(data.labels)))
    return moves, adapted(emulator, target), target


def _corrected(
    base: Model, data: TrainingData, settings: FineTuning, start: Emulator, clock: float, progress: Progress | None,
    name: str,
) -> Tuned:  # fmt: skip
    """Return the model with a correction in closed form, or none if it does not help the spectra left out of it."""
    report = None if progress is None else lambda done, most: progress(done, most, {})
    made = correct(start, data, report)
    true = data.targets[:, 0]
    before = _flux(start, data) - true
    residual, emulator = made.left_out - true, made.emulator
    helped = bool(np.mean(np.abs(residual)) < np.mean(np.abs(before)))
    if not helped:
        residual, emulator = before, Corrected.initialise(start, data.space, data.domain, data.wavelength, 1)
    facts = {
        "mae_before": float(np.mean(np.abs(before))),
        "helped": helped,
        "folds": len(data.labels),
        "lengths": dict(zip(data.space.names, made.found.lengths.tolist(), strict=True)),
        "noise": made.found.noise,
        "weights_stored": _size((emulator.points, emulator.lengths, emulator.amplitudes)),
    }
    every = np.arange(len(data.labels))
    return Tuned(_described(base, name, data, settings, emulator, residual, every, facts, {}, clock), start)


def _described(
    base: Model, name: str, data: TrainingData, settings: FineTuning, emulator: Emulator, residual: np.ndarray,
    held_out: np.ndarray, facts: Mapping[str, Any], identity: Mapping[str, Any], clock: float,
) -> Model:  # fmt: skip
    """Return the model of a fine-tuned emulator, with what was done and how well it does on held-out spectra."""
    digest = bundle.digest(base.emulator)
    facts = {
        "settings": settings.to_dict(),
        "base": {
            "name": name,
            "digest": digest,
            "architecture": base.emulator.architecture,
            "validation": dict(base.validation),
            "source": dict(base.training.get("source", {})),
            "base": dict(dict(base.training.get("finetuning", {})).get("base", {})),
        },
        "n_spectra": len(data.labels),
        **facts,
        "weights_in_all": _size(eqx.filter(emulator, trainable(emulator))),
        "held": {label.name: value for label, value in data.space.held},
    }
    return Model(
        emulator,
        Residuals.from_validation(data.wavelength, residual, space=emulator.space, labels=data.labels[held_out]),
        {
            "split": dict(data.split),
            "source": dict(data.source),
            "hardware": jax.devices()[0].device_kind,
            "parameters": facts["weights_in_all"],
            "identity": {**identity, "data": data.fingerprint, "base": digest, "finetuning": settings.to_dict()},
            "finetuning": facts,
            "seconds": monotonic() - clock,
        },
        {
            "mae": float(np.mean(np.abs(residual))),
            "rmse": float(np.sqrt(np.mean(residual**2))),
            "n_spectra": len(held_out),
        },
    )


def _size(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree_util.tree_leaves(tree))


def save_tuned(tuned: Tuned, base: Model, base_path: str | Path, path: str | Path, overwrite: bool = False) -> Path:
    """Write the model, or what its update changes of the base.

    Raises:
        OutputExistsError: as :func:`refuse_place`.
        BundleError: for an update of a model that is an update itself.
    """
    refuse_place(path, base_path, tuned.update is not None, overwrite)
    if tuned.update is None or tuned.target is None:
        return bundle.save(tuned.model, path, overwrite)
    return bundle.save_adapter(tuned.model, tuned.update, tuned.target, base, base_path, path, overwrite)


def refuse_place(path: str | Path, base_path: str | Path, update: bool, overwrite: bool) -> None:
    """Raise, before any work, if a fine-tuned model, or an update of its base, cannot be written there.

    Raises:
        OutputExistsError: if the path exists and ``overwrite`` is not set, or it holds no model; for an update, if it
            is the base model, which the update needs.
        BundleError: for an update of a model that is an update itself.
    """
    path, base_path = Path(path), Path(base_path)
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} exists; give another path, or --overwrite to replace it")
    refuse_foreign(path, bundle.MANIFEST, bundle.ADAPTER, CHECKPOINT)
    if update and path.resolve() == base_path.resolve():
        raise OutputExistsError(f"{path} is the base model, which a low-rank update of it needs; give another path")
    if update and (base_path / bundle.ADAPTER).exists():
        raise BundleError(
            f"{base_path} is a low-rank update itself; merge it into its base first: starpayne merge {base_path}"
        )


@dataclass(frozen=True)
class _Point:
    """The prediction for the held-out spectra after so many steps."""

    step: int
    predicted: np.ndarray


def _folds(n: int, seed: int) -> list[np.ndarray]:
    """Return the places of the spectra that are held out, of each fold."""
    shuffled = np.random.default_rng([seed, 7]).permutation(n)
    if n < FEW:
        return [np.sort(part) for part in np.array_split(shuffled, FOLDS)]
    return [np.sort(shuffled[: min(MOST_HELD_OUT, round(HELD_OUT * n))])]


def _moving(start: Emulator, settings: FineTuning) -> tuple[Assembly, Any]:
    """Return how the emulator is put together, and the weights that move."""
    learned = trainable(start)
    if settings.moves == "lora":
        key = jax.random.key(settings.seed)
        return LowRankAssembly(start), fresh_low_rank(start, learned, settings.rank, key)
    if settings.moves != "all":
        names = learned_arrays(start, settings.moves)
        learned = jax.tree_util.tree_map_with_path(lambda keys, kept: kept and name_of(keys) in names, learned)
    weights, fixed = eqx.partition(start, learned)
    return Assembly(fixed), weights


def _trace(run: Run, steps: int, progress: Progress | None) -> tuple[list[_Point], State]:
    """Take all steps, and keep the predictions for the held-out spectra at every validation, the start included."""
    state = run.initial
    # Against the data that are held out in full; the run's own choice of the best looks at a part.
    points = [_Point(0, _predicted(run, state))]
    lowest = float(np.mean(np.abs(points[0].predicted - run.data.validation_targets[:, 0])))
    state = state._replace(best_mae=jnp.asarray(lowest, jnp.float32))
    step = 0
    while step < steps:
        state, step = _advanced(run, state, step, steps)
        if run.validates_at(step):
            predicted = _predicted(run, state)
            mae = float(np.mean(np.abs(predicted - run.data.validation_targets[:, 0])))
            if mae < lowest:
                lowest = mae
                state = state._replace(best=state.average, best_mae=jnp.asarray(mae, jnp.float32))
            points.append(_Point(step, predicted))
            if progress is not None:
                progress(step, steps, {"validation_mae": mae})
        elif progress is not None:
            progress(step, steps, {})
    return points, state


def _take(run: Run, steps: int, progress: Progress | None) -> Any:
    """Return the averaged weights after so many steps of the run's schedule."""
    state, step = run.initial, 0
    while step < steps:
        state, step = _advanced(run, state, step, steps)
        if progress is not None:
            progress(step, steps, {})
    return state.average


def _advanced(run: Run, state: State, step: int, steps: int) -> tuple[State, int]:
    """Take the steps of one call, and return the state with the number of the step it has reached."""
    stop = min(step + run.steps_per_call, steps)
    state, loss = run.advance(state, step, stop)
    if not np.isfinite(loss):
        raise TrainingError(
            f"the loss is not finite by step {stop}; lower the learning rate (now {run.recipe.learning_rate:g})"
        )
    return state, stop


def _flux(emulator: Emulator, data: TrainingData) -> np.ndarray:
    return predict_in_chunks(emulator, data.labels, data.wavelength)[:, 0]


def _predicted(run: Run, state: State) -> np.ndarray:
    emulator = run.assembly(state.average)
    return predict_in_chunks(emulator, run.data.validation_labels, run.data.wavelength)[:, 0]


def _shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    if progress is None:
        return None
    return lambda step, _, facts: progress(before + step, total, facts)
