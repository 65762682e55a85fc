"""Which labels are free: fixed labels taken out of the table, with what they leave of the constraints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from starpayne.errors import LabelError
from starpayne.labels import Constraint, LabelSpace, is_abundance


@dataclass(frozen=True)
class FreeLabels:
    """The free labels as a label space of their own, and how they make a full vector.

    Args:
        space: the model's label table.
        free: the table of the free labels, or None if every label is fixed.
        fixed: (name, value) of the others, physical units.
    """

    space: LabelSpace
    free: LabelSpace | None
    fixed: tuple[tuple[str, float], ...]

    @classmethod
    def of(
        cls, space: LabelSpace, fixed: Mapping[str, float], bounds: Mapping[str, tuple[float, float]] | None = None
    ) -> FreeLabels:
        """Take fixed labels out of a table, and narrow the bounds of others.

        Raises:
            LabelError: unknown names, values out of range, bounds outside those of the table, or fixed values that
                leave a free label no room.
        """
        space.refuse_unknown(fixed, "fixed labels")
        space.refuse_unknown(bounds or {}, "bounds")
        for name, value in fixed.items():
            label = space[name]
            if not label.low <= value <= label.high:
                text = f"{value:g} {label.unit}".strip()
                raise LabelError(f"fixed label {name} = {text} is outside the range {label.low:g} to {label.high:g}")
        labels = {label.name: label for label in space.labels if label.name not in fixed}
        for name, (low, high) in (bounds or {}).items():
            if name in fixed:
                raise LabelError(f"{name} is fixed at {fixed[name]:g}: it has no bounds")
            label = labels[name]
            if not label.low <= low < high <= label.high:
                raise LabelError(
                    f"bounds {low:g} to {high:g} of {name} must lie within those of the model, {label.low:g} to "
                    f"{label.high:g}, the lower first"
                )
            labels[name] = replace(label, low=float(low), high=float(high))
        constraints = []
        for constraint in space.constraints:
            known = sum(c * fixed[n] for n, c in constraint.coefficients.items() if n in fixed)
            rest = {n: c for n, c in constraint.coefficients.items() if n not in fixed}
            low, high = constraint.low - known, constraint.high - known
            if not rest:
                if not low - 1e-9 <= 0 <= high + 1e-9:
                    raise LabelError(f"the fixed labels break {constraint}: the combination is {known:g}")
            elif len(rest) == 1:
                ((name, c),) = rest.items()
                ends = sorted((low / c, high / c))
                label = labels[name]
                left, right = max(label.low, ends[0]), min(label.high, ends[1])
                if not left < right:
                    raise LabelError(f"the fixed labels leave {name} no room: {constraint}")
                labels[name] = replace(label, low=left, high=right)
            else:
                constraints.append(Constraint(rest, low, high))
        free = LabelSpace(tuple(labels.values()), tuple(constraints)) if labels else None
        return cls(space, free, tuple((n, float(v)) for n, v in fixed.items()))

    def __len__(self) -> int:
        return 0 if self.free is None else len(self.free)

    @property
    def names(self) -> tuple[str, ...]:
        return () if self.free is None else self.free.names

    def lift(self, values: Any) -> Any:
        """Return full vectors (..., n_labels) of free values (..., n_free); NumPy in, NumPy out, JAX in, JAX out."""
        xp = np if isinstance(values, np.ndarray) else jnp
        known = dict(self.fixed)
        columns, i = [], 0
        for name in self.space.names:
            if name in known:
                columns.append(xp.full(values.shape[:-1], known[name], values.dtype))
            else:
                columns.append(values[..., i])
                i += 1
        return xp.stack(columns, axis=-1)

    def from_cube(self, cube: Any) -> Any:
        """Return full vectors (..., n_labels) of points (..., n_free) of the unit cube."""
        return self.lift(cube if self.free is None else self.free.from_cube(cube))

    def design(self, n: int, seed: int) -> np.ndarray:
        """Return up to n points (·, n_free) of the unit cube to start searches from.

        Abundances [X/Fe] stay in the middle of their interval: a search over seventeen labels at once would leave
        Teff, log g and [Fe/H] too thinly covered to find the velocity and the basin.
        """
        if self.free is None:
            return np.zeros((1, 0))
        cube = np.asarray(self.free.to_cube(self.free.sobol(n, seed)), np.float64)
        for i, name in enumerate(self.free.names):
            if is_abundance(name):
                cube[:, i] = 0.5
        cube = np.clip(cube, 0.02, 0.98)
        inside = self.space.inside(self.from_cube(cube))
        return cube[inside] if inside.any() else np.full((1, len(self)), 0.5)
