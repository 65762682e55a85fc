"""From stellar labels to the abundance of every element: [X/Fe] labels are totals."""

from __future__ import annotations

from collections.abc import Mapping

from starpayne.errors import LabelError, did_you_mean
from starpayne.labels import ALPHA
from starpayne.synthesis.elements import NUMBERS, element_of

PARAMETERS = ("teff", "logg", "feh", "alpha_fe", "vmic")
"""The labels that are not the abundance of one element."""


def abundances(labels: Mapping[str, float], solar: Mapping[str, float]) -> dict[str, float]:
    """Return A(X) = log10 N(X)/N(H) + 12 of every element that has a solar abundance.

    Args:
        labels: ``feh`` and ``alpha_fe`` (0 where missing) and any ``xx_fe``. [X/Fe] is a total: A(X) = A☉(X) + [Fe/H] +
            [X/Fe], whatever ``alpha_fe`` says. The α elements that are not labels follow ``alpha_fe``; every other
            element heavier than helium follows ``feh``.
        solar: solar A(X) by element symbol.

    Raises:
        LabelError: for an abundance label whose element is unknown or has no solar abundance.

    Example:
        >>> abundances({"feh": -2.0, "alpha_fe": 0.4, "mg_fe": 0.1}, {"H": 12.0, "Mg": 7.6, "Ca": 6.34})
        {'H': 12.0, 'Mg': 5.7, 'Ca': 4.74}
    """
    feh, alpha = labels.get("feh", 0.0), labels.get("alpha_fe", 0.0)
    own = {element_of(name): value for name, value in labels.items() if name not in PARAMETERS}
    if not set(own) <= set(solar):
        bad = next(name for name in labels if name not in PARAMETERS and element_of(name) not in solar)
        raise LabelError(unknown_label(bad, solar))
    result = {}
    for symbol, value in solar.items():
        if NUMBERS[symbol] > 2:
            value += feh + own.get(symbol, alpha if symbol in ALPHA else 0.0)
        result[symbol] = round(value, 12)
    return result


def unknown_label(name: str, solar: Mapping[str, float]) -> str:
    """Return the sentence that refuses a label the engine does not know, with the closest one that it does."""
    elements = [f"{symbol.lower()}_fe" for symbol in solar if element_of(f"{symbol.lower()}_fe")]
    known = [*PARAMETERS, *elements]
    hint = did_you_mean(name.lower(), known)
    return f"unknown label {name!r}{hint} (labels: {', '.join(PARAMETERS)}, and xx_fe for any metal but iron)"
