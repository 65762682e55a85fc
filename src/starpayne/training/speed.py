"""How fast a recipe trains here, and the steps that fit into given seconds."""

from __future__ import annotations

import time

from starpayne.training.build import build
from starpayne.training.data import TrainingData
from starpayne.training.loop import Run
from starpayne.training.recipe import Recipe

SECONDS = 4.0
"""How long the speed is measured, after compilation."""

ROUND = 50
"""Steps and validations are multiples of this, so that calls of many steps remain possible."""


def steps_per_second(data: TrainingData, recipe: Recipe) -> float:
    """Return the updates per second of a recipe on this machine, without compilation and validation."""
    run = Run.whole(data, recipe.replace(steps=10**6), build(data, recipe))
    per_call = run.steps_per_call
    state, _ = run.advance(run.initial, 0, per_call)
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        state, _ = run.advance(state, done, done + per_call)
        done += per_call
    return done / (time.perf_counter() - start)


def fitted_to(seconds: float, data: TrainingData, recipe: Recipe) -> Recipe:
    """Return the recipe with as many steps as fit into so many seconds of updates here, validated ten times."""
    steps = max(ROUND, int(seconds * steps_per_second(data, recipe) // ROUND) * ROUND)
    return recipe.replace(steps=steps, validate_every=max(ROUND, steps // 10 // ROUND * ROUND))
