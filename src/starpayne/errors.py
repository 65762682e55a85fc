"""The errors a user can meet: each message names the value, the allowed range and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'teff'?`` for a name close to a known one, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


LONGEST = 1000
"""Characters of a sentence about a file from elsewhere."""


class StarpayneError(ValueError):
    """Base of every error raised for bad input; the command line prints it as one sentence."""


class LabelError(StarpayneError):
    """A stellar label is unknown, missing, not a number or outside its range."""


class WavelengthError(StarpayneError):
    """A wavelength array is unusable: unsorted, outside the range, traced, or in the wrong medium."""


class GridError(StarpayneError):
    """A grid is missing, empty, damaged, of a newer schema, or does not fit the request."""


class SynthesisError(StarpayneError):
    """A synthesis engine is missing, or cannot do what is asked of it."""


class RecipeError(StarpayneError):
    """A training recipe has an unknown or impossible setting."""


class TrainingError(StarpayneError):
    """Training cannot start, or had to stop."""


class StudyError(StarpayneError):
    """A study file has an unknown or impossible setting, or does not fit its grid."""


def one_line(text: str) -> str:
    """Return what a stranger wrote on one line, not without end, and with nothing that a terminal would obey."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    return plain if len(plain) <= LONGEST else plain[: LONGEST - 1] + "…"


class BundleError(StarpayneError):
    """A model folder is missing, damaged, of a newer schema, or inconsistent."""

    def __init__(self, text: str) -> None:
        super().__init__(one_line(text))


class SharingError(StarpayneError):
    """A model cannot be sent to a hub, or be had from one."""

    def __init__(self, text: str) -> None:
        super().__init__(one_line(text))


class SpectrumError(StarpayneError):
    """An observed spectrum is unusable, or does not overlap the model."""


class OutputExistsError(StarpayneError):
    """The output path holds something else; nothing was overwritten."""


class MissingExtraError(StarpayneError):
    """An optional dependency is not installed; the message names the extra that brings it."""
