"""From the labels of one grid to those of another: how a network goes on with other labels than it began with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from starpayne.errors import LabelError
from starpayne.labels.solar import solar_abundances
from starpayne.labels.space import LabelSpace


def mapped_space(base: LabelSpace, grid: LabelSpace, hold: Mapping[str, float]) -> LabelSpace:
    """Return the label table of a network of ``base`` that is to go on with the labels of ``grid``.

    Labels of both keep the order and the scaling that the network knows, and take the bounds and constraints of the
    grid; what the network held and the grid has is a label again. Labels that only the grid has follow. Labels that
    only the network has are held.

    Args:
        hold: value of every label that the grid lacks.

    Raises:
        LabelError: for units that differ, no label in common, a label to hold that the grid has or the network has not,
            or at a value outside the network's range, and labels that the grid lacks without a value to hold them at,
            all of which are listed.
    """
    for name, value in hold.items():
        if name in grid.names:
            raise LabelError(f"{name} is a label of the grid; it cannot be held at {value:g}")
        base.refuse_unknown([name], "a label to hold")
        label = base[name]
        if not label.low <= value <= label.high:
            raise LabelError(f"{name} cannot be held at {value:g}: the model knows {label.low:g} to {label.high:g}")
    network = {label.name: label for label in (*base.labels, *(label for label, _ in base.held))}
    shared = [name for name in base.inputs if name in grid.names]
    if not shared:
        raise LabelError(
            f"the model and the grid have no label in common: {', '.join(base.names)} against {', '.join(grid.names)}"
        )
    for name in shared:
        unit, other = network[name].unit or "no unit", grid[name].unit or "no unit"
        if unit != other:
            raise LabelError(
                f"label {name} is in {unit} in the model and in {other} in the grid; convert the grid's labels"
            )
    missing = [base[name] for name in base.names if name not in grid.names and name not in hold]
    if missing:
        listed = ", ".join(f"{x.name} ({x.low:g} to {x.high:g} {x.unit})".replace(" )", ")") for x in missing)
        first = missing[0]
        value = 0 if first.low <= 0 <= first.high else first.low
        raise LabelError(
            f"the grid lacks labels of the model: {listed}; say where to hold each, as in {first.name}={value:g}"
        )
    known = [replace(network[n], low=grid[n].low, high=grid[n].high, scale=network[n].ends) for n in shared]
    new = [grid[name] for name in grid.names if name not in network]
    held = [(base[name], float(hold[name])) for name in base.names if name not in grid.names]
    still_held = [(label, value) for label, value in base.held if label.name not in grid.names]
    return LabelSpace((*known, *new), grid.constraints, (*held, *still_held))


def solar_scaled(base: LabelSpace, grid: LabelSpace) -> dict[str, float]:
    """Return where to hold the labels that the grid lacks for a solar mixture: [X/Fe] = 0, and vmic = 1 km/s."""
    known = solar_abundances(base, {}) | {"vmic": 1.0}
    return {name: known[name] for name in base.names if name not in grid.names and name in known}
