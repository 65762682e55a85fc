"""What the optimizer of a recipe promises: schedules, the average of the weights, rates that hold at any width."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

from starpayne.emulators import Emulator
from starpayne.training import ConvolutionalArchitecture, PayneArchitecture, Recipe, TransformerArchitecture, train
from starpayne.training.build import build
from starpayne.training.loop import Run
from starpayne.training.optimizer import learning_rate, make_optimizer, rate_factors, trainable

ARCHITECTURES = {
    "payne": lambda width: PayneArchitecture((width, width, width)),
    "transformer": lambda width: TransformerArchitecture(width, depth=2, tokens=4, head_width=16),
    "convolutional": lambda width: ConvolutionalArchitecture((64, 64), filters=width),
}


def test_stable_decay_holds_the_rate_and_then_falls_to_zero() -> None:
    rate = learning_rate(Recipe(steps=1000, learning_rate=2.0, schedule="stable_decay", warmup=0.1, decay=0.3))
    found = [float(rate(step)) for step in (0, 50, 100, 400, 699, 850, 1000)]
    assert found == pytest.approx([0.02, 1.01, 2.0, 2.0, 2.0, 1.0, 0.0], abs=0.02)


def test_the_average_of_the_weights_forgets_the_first_ones() -> None:
    # With a decay of 0.999 and 90 steps, an average of fixed length would be 91 % first weights.
    recipe = toy.recipe("payne", ema=0.999, steps=90)
    run = Run.whole(toy.data(), recipe, build(toy.data(), recipe))
    state = run.initial
    for start in range(0, 90, 30):
        state, _ = run.advance(state, start, start + 30)
    first, last, average = (np.asarray(s.weights[1]) for s in (run.initial.weights, state.weights, state.average))
    assert np.linalg.norm(average - last) < 0.3 * np.linalg.norm(first - last)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_at_the_reference_width_nothing_is_scaled(name: str, optimizer: str) -> None:
    recipe = Recipe(architecture=ARCHITECTURES[name](32), optimizer=optimizer, reference_width=32)
    emulator, plain = build(toy.data(), recipe), build(toy.data(), recipe.replace(reference_width=0))
    assert set(rate_factors(recipe, emulator).values()) == {1.0}
    assert eqx.tree_equal(emulator.center, plain.center)
    for one, other in zip(jax.tree.leaves(emulator), jax.tree.leaves(plain), strict=True):
        np.testing.assert_array_equal(one, other)


def moved(emulator: Emulator, recipe: Recipe, steps: int = 5) -> float:
    """Return by how much a few steps of the optimizer change the standardised output, rms over spectra and pixels."""
    data = toy.data()
    x, y = jnp.asarray(data.labels, jnp.float32), jnp.asarray(data.targets)
    weights, fixed = eqx.partition(emulator, trainable(emulator))
    bound = emulator.bind(data.wavelength)

    @eqx.filter_jit
    def outputs(weights):
        return bound.at(eqx.combine(weights, fixed)).batch(x)

    optimizer = make_optimizer(recipe, emulator)
    state, before = jax.jit(optimizer.init)(weights), outputs(weights)

    @eqx.filter_jit
    def step(weights, state):
        gradient = eqx.filter_grad(lambda w: jnp.mean((outputs(w) - y) ** 2))(weights)
        updates, state = optimizer.update(gradient, state, weights)
        return optax.apply_updates(weights, updates), state

    for _ in range(steps):
        weights, state = step(weights, state)
    change = (outputs(weights) - before) / emulator.width
    return float(jnp.sqrt(jnp.mean(change**2)))


@pytest.mark.parametrize(("optimizer", "without"), [("adamw", 3.0), ("muon", 1.5)])
def test_a_step_moves_the_output_alike_at_every_width(optimizer: str, without: float) -> None:
    """The coordinate check of μP: ``without`` the scaling, wide networks are moved at least so many times further."""

    def ratio(reference: int) -> float:
        sizes = []
        for width in (64, 512):
            recipe = Recipe(
                architecture=ARCHITECTURES["payne"](width), optimizer=optimizer, learning_rate=1e-3, warmup=0.0,
                schedule="constant", clip=0.0, reference_width=reference,
            )  # fmt: skip
            sizes.append(moved(build(toy.data(), recipe), recipe))
        return sizes[1] / sizes[0]

    # Not exactly 1: the forty pixels agree less on the sign of an update, the more weights share it.
    assert 1 / 3 < ratio(64) < 3
    assert ratio(0) > without * ratio(64)


def test_training_with_the_new_settings_learns(tmp_path) -> None:
    recipe = toy.recipe("payne", schedule="stable_decay", reference_width=8, optimizer="muon")
    model = train(toy.data(), recipe, tmp_path / "m")
    history = model.training["history"]
    assert history[-1]["validation_mae"] < 0.5 * history[0]["validation_mae"]
