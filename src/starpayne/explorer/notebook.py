"""The page as an object: for a notebook, or for a server of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from starpayne.bundle import Model, load
from starpayne.explorer.extra import panel as library
from starpayne.explorer.fits import FitQueue
from starpayne.explorer.observed import Observed
from starpayne.explorer.page import Page
from starpayne.explorer.predictor import Predictor
from starpayne.spectra import ObservedSpectrum


def explore(
    model: Model | None = None, spectrum: ObservedSpectrum | str | Path | None = None, resolution: float | None = None
) -> Any:
    """Return an interactive page of a model, to be shown in a notebook or served by Panel.

    Args:
        model: the model; by default the one that comes with starpayne.
        spectrum: an observed spectrum to compare and to fit, or the file of one.
        resolution: λ/FWHM to begin with: the spectrograph's.

    Returns:
        a ``panel`` object; each call returns one that has its own state.

    Raises:
        MissingExtraError: without the ``explorer`` extra.
        SpectrumError: for a spectrum or resolution that does not suit the model, or a model of intensities.

    Example:
        ``starpayne.explore(model, starpayne.ObservedSpectrum.read("star.fits"), resolution=47000)``
    """
    library()
    predictor = Predictor.of(load() if model is None else model, resolution)
    if spectrum is not None and not isinstance(spectrum, ObservedSpectrum):
        spectrum = ObservedSpectrum.read(spectrum)
    observed = None if spectrum is None else Observed.of(spectrum, predictor)
    return Page(predictor, FitQueue(predictor.model), observed).view
