"""Fit one observed spectrum: from pixels to labels with errors and flags."""

from __future__ import annotations

from starpayne.bundle import Model
from starpayne.fitting.many import fit_many
from starpayne.fitting.options import FitOptions
from starpayne.fitting.resolution import Resolution
from starpayne.fitting.result import FitResult
from starpayne.spectra import ObservedSpectrum


def fit(
    spectrum: ObservedSpectrum, model: Model, resolution: Resolution, options: FitOptions | None = None
) -> FitResult:
    """Fit labels, radial velocity, broadening and continuum of one star; no guess is needed.

    A coarse search over templates and velocities gives starting values; bounded least squares with exact derivatives
    does the rest. The error budget is the spectrum's errors plus, in quadrature and with its correlations, the
    emulator's validation error.

    Args:
        spectrum: the observation, on any increasing sampling.
        model: an emulator with its validation residuals.
        resolution: λ/FWHM of the spectrograph: a number, one per pixel of the spectrum, or a TabulatedProfile.
        options: see FitOptions.

    Returns:
        the result; a fit that fails is a result with flags, not an exception.

    Raises:
        SpectrumError: the spectrum cannot be fitted with this model (no overlap, resolution too high, too few pixels, a
            model of intensities).
        LabelError: a fixed label is unknown or out of range.

    Example:
        ``fit(ObservedSpectrum.read("sun.fits"), load("model"), 47000, FitOptions(fix={"alpha_fe": 0})).labels``
    """
    (outcome,) = fit_many([spectrum], model, resolution, options)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
