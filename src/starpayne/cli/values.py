"""Options that are written as NAME=VALUE, LOW:HIGH and the like."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from starpayne.errors import SpectrumError

if TYPE_CHECKING:
    from starpayne.fitting.resolution import Resolution
    from starpayne.labels import LabelSpace


SOLAR_SCALED = "solar-scaled"
"""Stands among NAME=VALUE for the abundances that are not named: [α/Fe] = 0, and the others with it."""


def pairs_or_solar(option: str, words: Sequence[str], space: LabelSpace) -> dict[str, float]:
    """Return what :func:`pairs` does; with ``solar-scaled`` among the words, also all abundances that are not named."""
    from starpayne.labels import solar_abundances

    parts = [part.strip() for text in words for part in text.split(",")]
    found = pairs(option, [part for part in parts if part != SOLAR_SCALED])
    return found | solar_abundances(space, found) if SOLAR_SCALED in parts else found


def pairs(option: str, words: Sequence[str]) -> dict[str, float]:
    """Return name → value of words NAME=VALUE; several may stand in one word, with commas between them."""
    found = {}
    for word in (part for text in words for part in text.split(",")):
        name, _, value = word.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError as error:
            raise SpectrumError(f"{option} {word!r} is not NAME=VALUE, such as alpha_fe=0") from error
    return found


def named_pairs(option: str, words: Sequence[str], example: str) -> dict[str, tuple[float, float]]:
    """Return name → two values of words NAME=A:B."""
    found = {}
    for word in words:
        name, _, values = word.partition("=")
        try:
            first, second = (float(value) for value in values.split(":"))
        except ValueError as error:
            raise SpectrumError(f"{option} {word!r} is not {example}") from error
        found[name.strip()] = (first, second)
    return found


def window(text: str) -> tuple[float, float]:
    """Return the ends of LOW:HIGH in Å."""
    low, _, high = text.partition(":")
    try:
        return float(low), float(high)
    except ValueError as error:
        raise SpectrumError(f"{text!r} is not LOW:HIGH in Å, such as 5163.5:5166.5") from error


def one_window(words: Sequence[str]) -> tuple[float, float] | None:
    """Return the ends of LOW:HIGH; a second one would have to be another, so it is refused."""
    if len(words) > 1:
        raise SpectrumError(
            f"--window is given {len(words)} times: give the whole range, and --mask LOW:HIGH for what lies between"
        )
    return window(words[0]) if words else None


def read_resolution(text: str) -> Resolution:
    """Return the resolution that a number, or a table in a text file, names.

    A table's first line says what its two columns are: ``wavelength resolution`` (Å and λ/FWHM), or ``velocity
    response`` (km/s and any unit: the line-spread function itself).
    """
    import numpy as np

    from starpayne.fitting.resolution import ResolutionCurve, TabulatedProfile

    try:
        return float(text)
    except ValueError:
        pass
    path = Path(text)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [line.lstrip("# ").replace(",", " ").split()[:2] for line in lines if line.strip("# ")]
        values = np.array([[float(x) for x in row] for row in rows[1:]])
    except OSError as error:
        raise SpectrumError(f"--resolution {text!r} is neither a number (λ/FWHM) nor a file to read") from error
    except (UnicodeDecodeError, ValueError) as error:
        raise SpectrumError(f"--resolution {path}: every line but the first needs two numbers ({error})") from error
    head = " ".join(rows[0]).lower() if rows else ""
    kind = {"wavelength resolution": ResolutionCurve, "velocity response": TabulatedProfile}.get(head)
    if kind is None or values.ndim != 2 or values.shape[1] != 2:
        raise SpectrumError(
            f"--resolution {path}: its first line must say 'wavelength resolution' (Å, λ/FWHM) or 'velocity response' "
            "(km/s), and two columns of numbers follow"
        )
    return kind(values[:, 0], values[:, 1])
