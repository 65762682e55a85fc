"""The label table: one place for the names, units, bounds, transforms and constraints of stellar labels.

Scaling, domain checks, error texts, sampling designs, solver bounds, plots and file metadata all read it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from starpayne.errors import LabelError, did_you_mean
from starpayne.labels.table import Constraint, Label

MOST_LABELS = 1000
"""A model file must not make its reader work without bound."""


@dataclass(frozen=True)
class LabelSpace:
    """The labels of a grid or model in their order, with the constraints between them.

    Args:
        labels: the labels, in the order of every label array.
        constraints: linear constraints; the allowed region is the box of bounds cut by them.
        held: labels that a network takes as inputs but that are frozen at a value, and so are no labels any more.

    Example:
        >>> space = LabelSpace((Label("teff", 4000, 7000), Label("logg", 1, 5)))
        >>> space.vector({"logg": 4.44, "teff": 5772}).tolist()
        [5772.0, 4.44]
        >>> space.check([5772, 5.5])
        Traceback (most recent call last):
        ...
        starpayne.errors.LabelError: logg = 5.5 dex(cm/s2) is outside the range 1 to 5
    """

    labels: tuple[Label, ...]
    constraints: tuple[Constraint, ...] = field(default=())
    held: tuple[tuple[Label, float], ...] = field(default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        object.__setattr__(self, "constraints", tuple(self.constraints))
        object.__setattr__(self, "held", tuple((label, float(value)) for label, value in self.held))
        if not self.labels:
            raise LabelError("a label space needs at least one label")
        _refuse_many(len(self.inputs), len(self.constraints))
        for label, value in self.held:
            if not np.isfinite(value) or (label.transform != "linear" and value <= 0):
                raise LabelError(f"label {label.name} cannot be held at {value}")
        repeated = sorted({n for n in self.inputs if self.inputs.count(n) > 1})
        if repeated:
            raise LabelError(f"labels given twice: {', '.join(repeated)}")
        for constraint in self.constraints:
            self.refuse_unknown(constraint.coefficients, f"constraint {constraint}")

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        # A constraint holds a dict, so the generated hash would fail. Made once: the space is static data of jitted
        # modules, which look it up at every call.
        return hash((self.labels, tuple(map(str, self.constraints)), self.held))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, name: str) -> Label:
        self.refuse_unknown([name])
        return self.labels[self.names.index(name)]

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names of what :meth:`scale` returns: the labels, then the held ones."""
        return (*self.names, *(label.name for label, _ in self.held))

    @cached_property
    def low(self) -> np.ndarray:
        """(n_labels,) float64 lower bounds in physical units."""
        return np.array([label.low for label in self.labels])

    @cached_property
    def high(self) -> np.ndarray:
        """(n_labels,) float64 upper bounds in physical units."""
        return np.array([label.high for label in self.labels])

    # -- from names to vectors ------------------------------------------------------------------------------

    def refuse_unknown(self, names: Iterable[str], where: str = "") -> None:
        """Raise LabelError, with the closest known name, for any name that is not a label here."""
        for name in names:
            if name not in self.names:
                hint = did_you_mean(name.lower(), self.names)
                raise LabelError(
                    f"{where + ': ' if where else ''}unknown label {name!r}{hint} (labels: {', '.join(self.names)})"
                )

    def vector(self, values: Mapping[str, float]) -> np.ndarray:
        """Return the (n_labels,) float64 vector of a mapping name → value in physical units.

        Raises:
            LabelError: for unknown names, and for missing ones, which are all listed with their ranges.
        """
        self.refuse_unknown(values)
        missing = [label for label in self.labels if label.name not in values]
        if missing:
            listed = ", ".join(f"{m.name} ({m.low:g} to {m.high:g} {m.unit})".replace(" )", ")") for m in missing)
            raise LabelError(f"missing labels: {listed}")
        vector = np.empty(len(self))
        for i, name in enumerate(self.names):
            try:
                vector[i] = float(values[name])
            except (TypeError, ValueError) as error:
                raise LabelError(f"{name} = {values[name]!r} is not a number") from error
        return vector

    # -- the domain -----------------------------------------------------------------------------------------

    def inside(self, values: ArrayLike) -> np.ndarray:
        """Return (...,) bool: which of the (..., n_labels) vectors lie in the allowed region (NaN never does)."""
        values = self._as_vectors(values)
        slack = self._slack
        good = np.all((values >= self.low - slack) & (values <= self.high + slack), axis=-1)
        for constraint, weights in zip(self.constraints, self._weights, strict=True):
            with np.errstate(invalid="ignore"):  # infinity times zero
                total, slack = values @ weights, self._slack @ np.abs(weights)
            good &= (total >= constraint.low - slack) & (total <= constraint.high + slack)
        return np.asarray(good)

    def check(self, values: ArrayLike, extrapolate: bool = False) -> None:
        """Raise LabelError for the first label or constraint that any of the (..., n_labels) vectors breaks.

        With ``extrapolate``, only what has no place on a label's scale is refused: NaN, infinity, or a value that is
        not positive where the transform needs one.
        """
        values = self._as_vectors(values)
        rows = values.reshape(-1, len(self))
        if extrapolate:
            linear = np.array([label.transform == "linear" for label in self.labels])
            good = np.all(np.isfinite(rows) & (linear | (rows > 0)), axis=-1)
        else:
            good = self.inside(rows)
        if np.all(good):
            return
        row = int(np.flatnonzero(~good)[0])
        where = f"row {row}: " if values.ndim > 1 else ""
        for label, value in zip(self.labels, rows[row], strict=True):
            if not np.isfinite(value):
                raise LabelError(f"{where}{label.name} = {value} is not a finite number")
            if extrapolate and label.transform != "linear" and value <= 0:
                raise LabelError(f"{where}{label.name} = {value:g} has no place on its {label.transform} scale")
        for label, value, slack in zip(self.labels, rows[row], self._slack, strict=True):
            if not label.low - slack <= value <= label.high + slack:
                value_and_unit = f"{value:g} {label.unit}".strip()
                raise LabelError(
                    f"{where}{label.name} = {value_and_unit} is outside the range {label.low:g} to {label.high:g}"
                )
        for constraint, weights in zip(self.constraints, self._weights, strict=True):
            total, slack = float(rows[row] @ weights), self._slack @ np.abs(weights)
            if not constraint.low - slack <= total <= constraint.high + slack:
                raise LabelError(f"{where}the labels break {constraint}: the combination is {total:g}")

    def _as_vectors(self, values: ArrayLike) -> np.ndarray:
        array = np.asarray(values, dtype=np.float64)
        if array.ndim == 0 or array.shape[-1] != len(self):
            raise LabelError(
                f"labels must have {len(self)} values in the last dimension ({', '.join(self.names)}), "
                f"got an array of shape {array.shape}"
            )
        return array

    @cached_property
    def _slack(self) -> np.ndarray:
        # A float32 round trip of a bound must stay inside.
        return 1e-6 * np.maximum(np.abs(self.low), np.abs(self.high))

    @cached_property
    def _weights(self) -> list[np.ndarray]:
        return [np.array([c.coefficients.get(n, 0.0) for n in self.names]) for c in self.constraints]

    # -- scaling --------------------------------------------------------------------------------------------

    def scale(self, values: Any) -> Any:
        """Transform and min–max scale (..., n_labels) labels to (..., n_inputs); NumPy or JAX in, the same out.

        The bounds (or ``Label.scale``) go to 0 and 1. Held labels follow the others, as constants.
        """
        columns = [_forward(label.transform, values[..., i]) for i, label in enumerate(self.labels)]
        xp = _namespace(columns[0])
        columns += [xp.full_like(columns[0], _forward(x.transform, np.float64(value))) for x, value in self.held]
        return _stack(columns, self._scale_low, self._scale_width)

    def unscale(self, unit: Any) -> Any:
        """Invert :meth:`scale`; held labels are left out."""
        low, width = self._scale_low, self._scale_width
        columns = [_backward(label.transform, low[i] + width[i] * unit[..., i]) for i, label in enumerate(self.labels)]
        return _stack(columns)

    @property
    def scaling(self) -> tuple[np.ndarray, np.ndarray]:
        """Offset and width, (n_inputs,) float64 each, by which :meth:`scale` scales transformed labels."""
        return self._scale_low, self._scale_width

    @cached_property
    def _all_labels(self) -> tuple[Label, ...]:
        return (*self.labels, *(label for label, _ in self.held))

    @cached_property
    def _scale_low(self) -> np.ndarray:
        return np.array([_forward(label.transform, np.float64(label.ends[0])) for label in self._all_labels])

    @cached_property
    def _scale_width(self) -> np.ndarray:
        high = np.array([_forward(label.transform, np.float64(label.ends[1])) for label in self._all_labels])
        return high - self._scale_low

    # -- the unit cube --------------------------------------------------------------------------------------

    def from_cube(self, cube: Any, fixed: Mapping[str, float] | None = None) -> Any:
        """Map (..., n_labels) points of the unit cube onto the allowed region, bounds and constraints together.

        Label i runs over the interval that its bounds and the constraints leave it, given the labels that its
        constraints name before it in the table. With an offset constraint (|[Mg/Fe] − [α/Fe]| ≤ 0.4) the cube
        coordinate is the offset, which is the natural coordinate to sample and to interpolate in. Labels in ``fixed``
        have that value whatever their coordinate.
        """
        columns: list[Any] = []
        for i, name in enumerate(self.names):
            low, high = self._interval(i, columns)
            columns.append(low + (high - low) * cube[..., i])
            if fixed and name in fixed:
                columns[-1] = 0 * columns[-1] + fixed[name]
        return _stack(columns)

    def to_cube(self, values: Any) -> Any:
        """Invert :meth:`from_cube` (labels outside the region land outside [0, 1])."""
        columns = [values[..., i] for i in range(len(self))]
        cube = []
        for i in range(len(self)):
            low, high = self._interval(i, columns[:i])
            cube.append((columns[i] - low) / (high - low))
        return _stack(cube)

    def _interval(self, i: int, before: Sequence[Any]) -> tuple[Any, Any]:
        """Return the bounds of label i given the labels before it, from every constraint in which it comes last."""
        low: Any = self.labels[i].low
        high: Any = self.labels[i].high
        for constraint, own, others in self._closing[i]:
            rest = sum((weight * before[j] for j, weight in others), start=0.0)
            ends = (constraint.low - rest) / own, (constraint.high - rest) / own
            lower, upper = ends if own > 0 else ends[::-1]
            xp = _namespace(lower)
            low, high = xp.maximum(low, lower), xp.minimum(high, upper)
        return low, high

    @cached_property
    def _closing(self) -> list[list[tuple[Constraint, float, list[tuple[int, float]]]]]:
        """For each label the constraints in which it comes last: its own weight, and places and weights of the
        others."""
        found: list[list[tuple[Constraint, float, list[tuple[int, float]]]]] = [[] for _ in self.labels]
        for constraint, weights in zip(self.constraints, self._weights, strict=True):
            *others, last = np.flatnonzero(weights).tolist()
            found[last].append((constraint, float(weights[last]), [(j, float(weights[j])) for j in others]))
        return found

    # -- designs --------------------------------------------------------------------------------------------

    def sobol(self, n: int, seed: int, fixed: Mapping[str, float] | None = None) -> np.ndarray:
        """Return an (n, n_labels) float64 scrambled Sobol design filling the allowed region.

        A prefix of a longer design with the same seed is the shorter design. Points whose constraints leave an
        empty interval are passed over and the sequence goes on.

        Args:
            n: number of label vectors.
            seed: of the scrambling.
            fixed: labels that have one value in all of them, such as Teff and log g of a grid to pre-train on
                (arXiv:2306.15703). They stay labels.

        Raises:
            LabelError: if n < 1, the constraints leave (almost) nothing of the box, or a fixed label is unknown or
                outside its bounds.
        """
        from scipy.stats import qmc

        if n < 1:
            raise LabelError(f"a design needs at least one spectrum, got n = {n}")
        fixed = dict(fixed or {})
        self.refuse_unknown(fixed, "a fixed label")
        for name, value in fixed.items():
            label = self[name]
            if not label.low <= value <= label.high:
                raise LabelError(f"{name} is fixed at {value:g}, outside the range {label.low:g} to {label.high:g}")
        # SciPy 1.15 renamed seed to rng, and takes either.
        sampler = qmc.Sobol(len(self), scramble=True, seed=seed)  # pyright: ignore[reportCallIssue]
        kept = np.empty((0, len(self)))
        drawn = 0
        while len(kept) < n:
            # Powers of two keep the balance of the sequence, and the same draws whatever n is.
            size = max(64, 1 << int(np.ceil(np.log2(n)))) if drawn == 0 else drawn
            points = self.from_cube(sampler.random(size), fixed)
            drawn += size
            kept = np.concatenate([kept, points[self.inside(points)]])
            if drawn >= 64 * n + 65536 and len(kept) < n:
                raise LabelError(
                    f"the constraints leave too little of the label box: {len(kept)} of {drawn} points are allowed"
                )
        return kept[:n]

    # -- files ----------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data: ``{"labels": [...], "constraints": ["low <= a - b <= high", ...]}``."""
        data: dict[str, Any] = {
            "labels": [label.to_dict() for label in self.labels],
            "constraints": [str(c) for c in self.constraints],
        }
        if self.held:
            data["held"] = [{**label.to_dict(), "value": value} for label, value in self.held]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LabelSpace:
        """Read what :meth:`to_dict` writes (``unit``, ``transform`` and ``held`` may be left out)."""
        try:
            _refuse_many(len(data["labels"]), len(data.get("constraints", [])))
            labels = tuple(Label.from_dict(d) for d in data["labels"])
            held = tuple((Label.from_dict(d), float(d["value"])) for d in data.get("held", []))
            return cls(labels, tuple(Constraint.parse(c) for c in data.get("constraints", [])), held)
        except LabelError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise LabelError(f"label table cannot be read: {error!r}; each label needs name, low, high") from error


def _refuse_many(labels: int, constraints: int) -> None:
    if max(labels, constraints) > MOST_LABELS:
        raise LabelError(f"{labels:,} labels with {constraints:,} constraints; at most {MOST_LABELS:,} each")


def _namespace(array: Any) -> Any:
    """Return numpy for host data and jax.numpy for JAX arrays and tracers, without importing JAX needlessly."""
    if isinstance(array, (np.ndarray, float, int, np.generic)):
        return np
    import jax.numpy as jnp

    return jnp


def _forward(transform: str, x: Any) -> Any:
    if transform == "log10":
        return _namespace(x).log10(x)
    return 1.0 / x if transform == "inverse" else x


def _backward(transform: str, y: Any) -> Any:
    if transform == "log10":
        return 10.0**y
    return 1.0 / y if transform == "inverse" else y


def _stack(columns: Sequence[Any], offset: np.ndarray | float = 0.0, width: np.ndarray | float = 1.0) -> Any:
    xp = _namespace(columns[0])
    stacked = xp.stack([xp.asarray(c) for c in columns], axis=-1)
    if xp is np:
        return (stacked - offset) / width
    # float32 on the device: subtract the bound before dividing, so that Teff keeps its digits.
    return (stacked - xp.asarray(offset, stacked.dtype)) / xp.asarray(width, stacked.dtype)
