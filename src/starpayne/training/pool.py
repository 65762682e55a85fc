"""Spectra of a teacher, in memory, more of them as the training goes on; each block is known by its number alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from starpayne.emulators import Emulator
from starpayne.emulators.base import predict_in_chunks
from starpayne.errors import TrainingError
from starpayne.training.batches import Batches, Epochs
from starpayne.training.data import TrainingData
from starpayne.training.recipe import Recipe

BLOCK = 1024
"""Teacher spectra that are made at once."""

MEMORY = 2**30
"""Bytes of teacher spectra at most; where more are wanted, the newest replace the oldest."""

GROWN = 0.5
"""All teacher spectra have come after this fraction of the steps: a network learns little from what it meets last."""


class TeacherSpectra:
    """Batches of which one part are spectra of a grid, in epochs, and the rest are drawn from spectra of a teacher.

    A spectrum of a large teacher costs more than the step that learns from it, so that each is used many times. Block k
    is a Sobol sequence over the label space, scrambled by seed and k; which blocks are there depends on the step alone.

    Args:
        teacher: its channels include those of the data.
        data: spectra of the grid, in the teacher's label space.
        recipe: batch size, steps and seed.
        fraction: of the spectra of a step come from the grid.
        first, total: teacher spectra at the first step, and in all.
        made: called with the number of a step and of the teacher spectra made, when there are more.
    """

    def __init__(
        self,
        teacher: Emulator,
        data: TrainingData,
        recipe: Recipe,
        fraction: float,
        first: int,
        total: int,
        made: Callable[[int, int], None] = lambda step, n: None,
    ) -> None:
        self.teacher, self.data, self.recipe, self._tell = teacher, data, recipe, made
        self.wavelength = teacher.domain.prepare(data.wavelength, data.domain.medium)
        room = max(1, MEMORY // (4 * len(data.channels) * len(data.wavelength)))
        self.block = min(BLOCK, first, room)
        self.first, self.total = (-(-n // self.block) for n in (first, total))
        self.slots = min(self.total, room // self.block)
        n = len(data.labels)
        n_true = min(n, round(fraction * recipe.batch_spectra))
        self.epochs = Epochs(n, n_true, recipe.seed) if n_true else None
        self.n_taught = max(1, recipe.batch_spectra - n_true)
        self.labels = jnp.zeros((n + self.slots * self.block, data.labels.shape[1]), jnp.float32)
        self.targets = jnp.zeros((len(self.labels), *data.targets.shape[1:]), jnp.float32)
        self._store(0, data.labels, data.targets)
        self.made = 0

    def blocks(self, step: int) -> int:
        """Return how many blocks have been made when a step is taken."""
        grown = step / max(1.0, GROWN * self.recipe.steps)
        return min(self.total, self.first + int(grown * (self.total - self.first)))

    def take(self, start: int, stop: int) -> Batches:
        wanted = self.blocks(start)
        # A resumed training needs only those that have not been replaced.
        self.made = max(self.made, wanted - self.slots)
        while self.made < wanted:
            labels, targets = self.spectra(self.made)
            self._store(len(self.data.labels) + (self.made % self.slots) * self.block, labels, targets)
            self.made += 1
            self._tell(start, self.made * self.block)
        there = min(wanted, self.slots) * self.block
        return Batches(self.labels, self.targets, np.stack([self._rows(step, there) for step in range(start, stop)]))

    def spectra(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Return labels (block, n_labels) and the teacher's (block, channels, n_wavelength) of one block."""
        seed = int(np.random.SeedSequence([self.recipe.seed, 2, block]).generate_state(1)[0])
        labels = self.data.space.sobol(self.block, seed)
        outputs = predict_in_chunks(self.teacher.with_products(self.recipe.precision), labels, self.wavelength)
        outputs = outputs[:, [self.teacher.channels.index(channel) for channel in self.data.channels]]
        if not np.all(np.isfinite(outputs)):
            raise TrainingError("the teacher gives fluxes that are not finite inside its own label ranges: verify it")
        return labels, outputs

    def _rows(self, step: int, there: int) -> np.ndarray:
        drawn = np.random.default_rng([self.recipe.seed, 3, step]).integers(there, size=self.n_taught)
        taught = len(self.data.labels) + drawn
        return taught if self.epochs is None else np.concatenate([self.epochs.rows(step), taught])

    def _store(self, place: int, labels: np.ndarray, targets: np.ndarray) -> None:
        at = jnp.asarray(place)
        self.labels = _placed(self.labels, jnp.asarray(labels, jnp.float32), at)
        self.targets = _placed(self.targets, jnp.asarray(targets), at)


@partial(jax.jit, donate_argnums=0)
def _placed(into: jax.Array, rows: jax.Array, place: jax.Array) -> jax.Array:
    """Return the array with rows from ``place`` on replaced; in the memory of the old one, which is gone."""
    return jax.lax.dynamic_update_slice_in_dim(into, rows, place, 0)
