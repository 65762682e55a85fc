"""What the page says: flags of a fit in words, and lines of text that are never HTML."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

FLAGS = {
    "poor_fit": "model and star differ by more than the errors: they are widened by a jitter",
    "not_converged": "the fit has not converged: do not use it",
    "failed": "the fit has failed: do not use it",
    "no_errors": "the file has no errors: noise is taken from the residuals",
    "medium_assumed": "the file does not say whether it is in air or vacuum: the model's medium was taken",
    "emulator_error_unknown": "the errors leave out how wrong the model is, which is not known",
    "low_coverage": "much of the spectrum could not be used",
    "masked_nan": "some pixels were not finite and are masked",
    "undersampled": "the model's wavelengths are too coarse for its narrowest lines: labels are biased",
    "extrapolated": "outside what the model was trained on",
    "no_molecules_below_5000_K": "the model has no molecules, which matter below 5000 K",
    "plane_parallel_below_logg_1.5": "the model is plane-parallel, which matters below log g = 1.5",
}


def flag_in_words(flag: str) -> str:
    """Return what a flag means.

    Example:
        >>> flag_in_words("low_coverage")
        'much of the spectrum could not be used'
    """
    if flag.startswith("unit_assumed:"):
        return f"the file does not say its unit: {flag.partition(':')[2]} was taken"
    return FLAGS.get(flag, flag)


def notes_by_dial(flags: Iterable[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the flags that concern one dial each, by its name, and the others."""
    words = {"at_bound": "at its bound", "unconstrained": "not constrained"}
    notes: dict[str, str] = {}
    rest: list[str] = []
    for flag in flags:
        kind, _, name = flag.partition(":")
        if kind in words:
            # What is not constrained may well be at its bound too; the first is what counts.
            if kind == "unconstrained" or name not in notes:
                notes[name] = words[kind]
        else:
            rest.append(flag)
    return notes, tuple(rest)


def as_html(lines: Iterable[str]) -> str:
    """Return lines of plain text as HTML that shows them and does nothing else."""
    return '<div role="status" aria-live="polite">' + " · ".join(escape(line) for line in lines) + "</div>"
