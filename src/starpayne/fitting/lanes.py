"""The lanes of compiled calls: descents of many stars, or of starts of one, whose arrays are stacked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from starpayne.emulators import BoundEmulator
from starpayne.emulators.base import room
from starpayne.fitting.solver import Problem, Solution

CPU_SIZES, GPU_SIZES = (1, 16), (1, 16, 128)
"""Lanes of a compiled call. Few sizes, because each is compiled; none larger on a CPU, where 32 lanes cost twice what
16 do, and the last stars of a run do not fill them."""

ALIGNED = 64
"""Bytes: what begins at a multiple of these is taken by XLA on a CPU as it lies, and not copied."""


@dataclass(eq=False)
class Lane:
    """One descent under way.

    Args:
        problem: its leaves are NumPy arrays, without a star axis.
        theta: (p,) where it is, in the unit cube.
        tolerance: as of :func:`starpayne.fitting.steps.advance`.
        max_iterations: it is given up after.
        model, derivative: (n,), (p, n) there; None until computed.
        chi2, iterations: so far; ``renewed`` counts the exact derivatives.
        arrived: whether there is no further to go.
        stale: whether the next step needs an exact derivative; ``since`` counts the steps since there was one.
    """

    problem: Problem
    theta: np.ndarray
    tolerance: float
    max_iterations: int
    model: np.ndarray | None = None
    derivative: np.ndarray | None = None
    damping: float = 1e-3
    growth: float = 4.0
    chi2: float = np.inf
    iterations: int = 0
    renewed: int = 0
    arrived: bool = False
    stale: bool = True
    since: int = 0

    def __post_init__(self) -> None:
        self.theta = np.asarray(self.theta, np.float32)
        self.stale = self.model is None

    @property
    def done(self) -> bool:
        return self.arrived or self.iterations >= self.max_iterations

    @property
    def solution(self) -> Solution:
        """Where it is now; the derivative is exact or one short step away from it."""
        assert self.model is not None
        assert self.derivative is not None
        return Solution(self.theta, self.chi2, self.iterations, self.model, self.derivative)


def sizes() -> tuple[int, ...]:
    """Return how many lanes a compiled call may have on this machine."""
    return CPU_SIZES if jax.default_backend() == "cpu" else GPU_SIZES


def lanes(bound: BoundEmulator, n_parameters: int, n_stars: int) -> int:
    """Return how many lanes a compiled call should have for so many descents that are waiting.

    On a GPU it may be more than there are: a call that is not full takes hardly less time.
    """
    # As many tangents as parameters pass through the network beside its value, in about two copies.
    floats = 2 * bound.floats_per_spectrum * (n_parameters + 1)
    most = max(1, room() // (4 * floats))
    allowed = [size for size in sizes() if size <= most]
    if jax.default_backend() != "cpu":
        return min((size for size in allowed if size >= n_stars), default=max(allowed))
    return max(size for size in allowed if size <= max(n_stars, 1))


def in_batches(size: int, rows: np.ndarray, compute: Callable[[np.ndarray], None]) -> None:
    """Call ``compute`` with ``size`` of the rows at a time; the last batch repeats its last row to be as long."""
    for first in range(0, len(rows), size):
        batch = rows[first : first + size]
        compute(np.concatenate([batch, np.repeat(batch[-1:], size - len(batch))]))


def shapes(problem: Problem) -> tuple[object, ...]:
    """Return what problems must have in common to be stacked."""
    leaves, structure = jax.tree.flatten(problem)
    return structure, *map(np.shape, leaves)


def stacked(problems: Sequence[Problem], own: frozenset[str]) -> Problem:
    """Return one problem whose fields named in ``own`` have a star axis in front; the others are those of the first.

    It is meant for one compiled call, that ends before this is called again in the same thread: it lies in the same
    memory each time. New memory for each of thousands of calls cost more than to fill it.
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(problems[0])
    leaves = zip(*(jax.tree.leaves(problem) for problem in problems), strict=True)
    together = [
        together_at(f"problem{jax.tree_util.keystr(path)}", parts) if path[0].name in own else parts[0]
        for (path, _), parts in zip(paths, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, together)


def together_at(name: str, parts: Sequence[np.ndarray]) -> np.ndarray:
    """Stack arrays in the memory that this thread keeps under a name; the result is good until the next call."""
    return np.stack(parts, out=memory_at(name, (len(parts), *np.shape(parts[0])), np.result_type(parts[0])))


def memory_at(name: str, shape: tuple[int, ...], kind: np.dtype) -> np.ndarray:
    """Return what this thread keeps under a name, with whatever is in it; or new memory, for an array unlike before."""
    kept = _MEMORY.__dict__.get(name)
    if kept is None or kept.shape != shape or kept.dtype != kind:
        size = int(np.prod(shape)) * kind.itemsize
        raw = np.zeros(size + ALIGNED, np.uint8)
        begin = -raw.ctypes.data % ALIGNED
        kept = _MEMORY.__dict__[name] = raw[begin : begin + size].view(kind).reshape(shape)
    return kept


_MEMORY = threading.local()


def star_axes(problem: Problem, own: frozenset[str]) -> Problem:
    """Return, in the place of each array, 0 where it has a star axis in front and None where all stars share it."""

    def axis(path: Any, _: Any) -> int | None:
        return 0 if path[0].name in own else None

    return jax.tree_util.tree_map_with_path(axis, problem)


EACH = frozenset(Problem._fields) - {"broadening"}
"""Fields of a problem that stars of a survey have each for themselves."""
