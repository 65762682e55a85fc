"""The compiled steps of a training: many updates in one call, a batch in pieces that stay in the caches."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from starpayne.emulators import BoundEmulator, Emulator
from starpayne.training.devices import in_parts
from starpayne.training.optimizer import loss_of
from starpayne.training.recipe import Recipe


class State(NamedTuple):
    """Everything that changes during a training; arrays only, so that a checkpoint is its leaves."""

    weights: Any
    average: Any
    optimizer: Any
    best: Any
    best_mae: Float[Array, ""]


class Assembly(eqx.Module):
    """How the weights that a training changes become an emulator: by default, they fill the places left free."""

    fixed: Any

    def __call__(self, weights: Any) -> Emulator:
        return eqx.combine(weights, self.fixed)


@eqx.filter_jit
def take_steps(
    state: State,
    assembly: Assembly,
    bound: BoundEmulator,
    optimizer: optax.GradientTransformation,
    recipe: Recipe,
    scale: Float[Array, "channels 1"],
    labels: Float[Array, "n labels"],
    targets: Float[Array, "n channels wavelengths"],
    rows: Int[Array, "steps batch"],
    columns: Int[Array, "steps subset"] | None,
    numbers: Int[Array, " steps"],
    mesh: Mesh | None = None,
) -> tuple[State, Float[Array, " steps"]]:
    def loss(weights: Any, x: Array, y: Array, column: Array | None) -> Array:
        predict = bound.at(assembly(weights).with_products(recipe.precision), column)
        return loss_of(recipe.loss, (predict.batch(x) - y) * scale)

    def value_and_gradient(weights: Any, x: Array, y: Array, column: Array | None) -> tuple[Array, Any]:
        # A batch in pieces whose activations stay in the caches: the mean loss is the mean over equal pieces. On two
        # cores a step of 64×4 (4,096 rows) takes 4 % less processor time, of 128×8 14 %, with the wide gradients.
        x, y = in_parts(x, mesh), in_parts(y, mesh)
        on_each = len(x) // (1 if mesh is None else mesh.size)
        pieces = pieces_of(on_each, bound.at(assembly(weights), column).spectra_at_once)
        if pieces == 1:
            return jax.value_and_grad(loss)(weights, x, y, column)

        def add(total: Any, piece: tuple[Array, Array]) -> tuple[Any, None]:
            part = jax.value_and_grad(loss)(weights, *piece, column)
            return jax.tree_util.tree_map(lambda a, b: a + b / pieces, total, part), None

        zero = (jnp.zeros(()), jax.tree_util.tree_map(jnp.zeros_like, weights))
        split = (_cut(x, pieces, mesh), _cut(y, pieces, mesh))
        return jax.lax.scan(add, zero, split)[0]

    def step(carry: State, index: tuple[Array, Array | None, Array]) -> tuple[State, Array]:
        row, column, number = index
        y = targets[row]
        y = y if column is None else y[:, :, column]
        value, gradient = value_and_gradient(carry.weights, labels[row], y, column)
        updates, optimizer_state = optimizer.update(gradient, carry.optimizer, carry.weights)
        weights = optax.apply_updates(carry.weights, updates)
        # At first over a tenth of the steps so far: an average of fixed length would remember the first weights.
        keep = jnp.minimum(recipe.ema, (1 + number) / (10 + number))
        average = optax.incremental_update(weights, carry.average, 1 - keep)
        return carry._replace(weights=weights, average=average, optimizer=optimizer_state), value

    return jax.lax.scan(step, state, (rows, columns, numbers))


def _cut(x: Array, pieces: int, mesh: Mesh | None) -> Array:
    """Return (batch, …) as (pieces, batch / pieces, …), every piece with an equal part of each device's spectra."""
    if mesh is None:
        return x.reshape(pieces, -1, *x.shape[1:])
    return jnp.swapaxes(x.reshape(-1, pieces, *x.shape[1:]), 0, 1)


def pieces_of(batch: int, most: int | None) -> int:
    """Return into how many equal pieces to cut a batch so that none has more than ``most`` spectra.

    A batch that only pieces of less than half that size divide, such as a prime number, is left whole.
    """
    if most is None:
        return 1
    pieces = next(k for k in range(-(-batch // most), batch + 1) if batch % k == 0)
    return pieces if pieces * most <= 2 * batch else 1
