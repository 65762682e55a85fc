"""Where an engine's spectral lines come from: the Gaia-ESO list, or a VALD extract; refused where they do not cover."""

from __future__ import annotations

from starpayne.errors import SynthesisError
from starpayne.synthesis.linelists import GAIA_ESO_RANGE, LineList, gaia_eso
from starpayne.synthesis.vald import read_vald

GAIA_ESO = "gaia-eso"

EDGE = 10.0
"""Å by which a window may reach beyond the first and last line of a list of unknown range."""


def load_lines(name: str, low: float, high: float, margin: float = 0.0) -> LineList:
    """Return the lines of low − margin to high + margin Å (air) of a list.

    Args:
        name: ``"gaia-eso"``, or the path of a VALD extract.
        low, high: the window, which the list must cover: a spectrum without its lines looks fine and is wrong.

    Raises:
        SynthesisError: if the list cannot be read or does not cover the window.
    """
    if name == GAIA_ESO:
        lines, (first, last) = gaia_eso(low - margin, high + margin), GAIA_ESO_RANGE
    else:
        every = read_vald(name)
        lines = every.select(low - margin, high + margin)
        first, last = every.wavelength[0] - EDGE, every.wavelength[-1] + EDGE
    check_covers(name, low, high, first, last, len(lines))
    return lines


def check_covers(name: str, low: float, high: float, first: float, last: float, n_lines: int) -> None:
    """Raise SynthesisError if a list from first to last (Å, air) does not cover the window, or has no line there."""
    if low < first or high > last or not n_lines:
        raise SynthesisError(
            f"the line list {name} covers {first:.0f} to {last:.0f} Å (air), not all of {low:.1f} to {high:.1f} Å; "
            "narrow the window, or give a VALD extract (long format) that covers it as line_list"
        )
