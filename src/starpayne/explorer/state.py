"""What a page shows, as one frozen value; and that value as a link."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qsl, urlencode

import numpy as np

from starpayne.errors import LabelError, did_you_mean, one_line
from starpayne.explorer.dials import Panel

LONGEST_QUERY = 8000
DERIVATIVE = "derivative"


@dataclass(frozen=True)
class State:
    """What one session looks at.

    Args:
        panel: the dials of the model.
        values: (dial name, value) in the order of the dials; physical units.
        derivative: name of the label whose derivative is drawn.
    """

    panel: Panel
    values: tuple[tuple[str, float], ...]
    derivative: str
    _by_name: Mapping[str, float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_name", dict(self.values))

    @classmethod
    def start(cls, panel: Panel) -> State:
        """Return what a page shows when it is opened."""
        names = panel.space.names
        shown = "mg_fe" if "mg_fe" in names else names[-1]
        return cls(panel, tuple(panel.start().items()), shown)

    def __getitem__(self, name: str) -> float:
        return self._by_name[name]

    @property
    def labels(self) -> np.ndarray:
        """(n_labels,) float64, physical units."""
        return np.array([self[name] for name in self.panel.space.names])

    def turned(self, changes: Mapping[str, float]) -> State:
        """Return the state with dials turned, no farther than their ends."""
        values = {**self._by_name, **self.panel.clipped(changes)}
        return replace(self, values=tuple((name, values[name]) for name in self.panel.names))

    def warnings(self) -> tuple[str, ...]:
        """Return what is to be said of these labels: a combination that the model was not trained on."""
        try:
            self.panel.space.check(self.labels)
        except LabelError as error:
            return (f"extrapolated: {error}",)
        return ()

    def to_query(self) -> str:
        """Return the part of a link after the question mark: every dial, and whose derivative is drawn."""
        return urlencode({name: f"{value:.7g}" for name, value in self.values} | {DERIVATIVE: self.derivative})


def from_query(query: str, start: State) -> tuple[State, tuple[str, ...]]:
    """Read a link.

    Args:
        query: what follows the question mark (which may be there); written by anybody.
        start: the state of what the link does not name.

    Returns:
        the state, and a sentence for every value that was not taken as it stands. The sentences quote the link: they
        are plain text, to be escaped where they are shown.
    """
    query = query.removeprefix("?")
    if len(query) > LONGEST_QUERY:
        return start, (f"the link has {len(query):,} characters, more than {LONGEST_QUERY:,}: it was not read",)
    notes: list[str] = []
    changes: dict[str, float] = {}
    panel, derivative = start.panel, start.derivative
    for name, text in parse_qsl(query, keep_blank_values=True):
        shown = _quoted(text)
        if name == DERIVATIVE:
            if text in panel.space.names:
                derivative = text
            else:
                hint = did_you_mean(text, panel.space.names)
                notes.append(f"link: {DERIVATIVE} = {shown} is no label of this model{hint}; left at {derivative}")
        elif name not in panel.names:
            hint = did_you_mean(name, panel.names)
            notes.append(f"link: {_quoted(name)} is not known to this model{hint}; left out")
        else:
            value, dial = _number(text), panel[name]
            if value is None:
                notes.append(f"link: {name} = {shown} is not a number; left at {dial.text(start[name])}")
                continue
            taken = panel.clipped({name: value})[name]
            if taken != value:
                notes.append(
                    f"link: {name} = {value:g} {dial.unit}".rstrip()
                    + f" is outside the range {dial.low:g} to {dial.high:g}; taken as {taken:g}"
                )
            changes[name] = taken
    return replace(start.turned(changes), derivative=derivative), tuple(notes)


def _number(text: str) -> float | None:
    # float() takes any number of digits, underscores and "nan".
    try:
        value = float(text) if len(text) <= 40 else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _quoted(text: str) -> str:
    plain = one_line(text)
    return repr(plain if len(plain) <= 40 else plain[:39] + "…")
