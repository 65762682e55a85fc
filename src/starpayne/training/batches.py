"""What the steps of a training see: spectra, and the rows of each batch, functions of seed and step number alone."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from starpayne.training.data import TrainingData


class Batches(NamedTuple):
    """Spectra, and which of them each of the next steps takes."""

    labels: Float[Array, "n labels"]
    targets: Float[Array, "n channels wavelengths"]
    rows: Int[np.ndarray, "steps batch"]


@runtime_checkable
class Source(Protocol):
    """Where the spectra of a training come from.

    A source may hold other spectra at another step, but what it gives for given steps must not depend on what it was
    asked for before: a resumed training begins with a fresh source. The arrays keep their shapes.
    """

    def take(self, start: int, stop: int) -> Batches:
        """Return what the steps start … stop − 1, which one compiled call takes, are to see."""
        ...


class Epochs:
    """Shuffled rows: every epoch passes over all of them once, but for a remainder that fills no batch."""

    def __init__(self, n: int, batch: int, seed: int) -> None:
        self.n, self.batch, self.seed = n, batch, seed
        self._permutation: tuple[int, np.ndarray] | None = None

    def rows(self, step: int) -> np.ndarray:
        """Return the (batch,) rows of a step."""
        epoch, position = divmod(step, max(1, self.n // self.batch))
        if self._permutation is None or self._permutation[0] != epoch:
            self._permutation = epoch, np.random.default_rng([self.seed, 0, epoch]).permutation(self.n)
        return self._permutation[1][position * self.batch : (position + 1) * self.batch]


class GridSource:
    """The training spectra of a grid, which are all in memory."""

    def __init__(self, data: TrainingData, batch: int, seed: int) -> None:
        self.labels = jnp.asarray(data.labels, jnp.float32)
        self.targets = jnp.asarray(data.targets)
        self.epochs = Epochs(len(data.labels), min(batch, len(data.labels)), seed)

    def take(self, start: int, stop: int) -> Batches:
        return Batches(self.labels, self.targets, np.stack([self.epochs.rows(step) for step in range(start, stop)]))
