"""Learn a line mask from a star whose labels are known.

Missing molecules and wrong oscillator strengths bias every fit of real stars in the same places. A star whose labels
are known from elsewhere (the Sun) shows where: its spectrum is compared with the model at those labels. Lines that are
too strong or too weak are corrected by a factor of their optical depth; pixels that this does not mend are masked; what
both leave shifts the labels still, and the shift of the known star, its zero points, is taken off those of others. The
star that taught a mask is no test of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from starpayne import bundle
from starpayne.bundle import Model
from starpayne.errors import SpectrumError
from starpayne.fitting.fit import fit
from starpayne.fitting.linedepths import LineDepths
from starpayne.fitting.linemask import LineMask
from starpayne.fitting.options import FitOptions
from starpayne.fitting.resolution import Resolution, typical_fwhm
from starpayne.fitting.result import FitResult
from starpayne.spectra import ObservedSpectrum
from starpayne.wavelengths import SPEED_OF_LIGHT, doppler_factor

THRESHOLD = 0.05
"""Misfit, as a fraction of the continuum, above which a pixel is masked."""

MOST = 0.6
"""A mask that hides more than this fraction of the pixels says that the labels, not the lines, are wrong."""


ROUNDS = 4
"""How often the factors of line depths are made anew, as long as each round leaves less than WORTH of the misfit."""

WORTH = 0.9


def learn_mask(
    spectrum: ObservedSpectrum,
    model: Model,
    resolution: Resolution,
    labels: Mapping[str, float],
    options: FitOptions | None = None,
    threshold: float = THRESHOLD,
    depths: bool = True,
) -> LineMask:
    """Learn where a model fails from a star whose labels are known.

    Velocity, rotation, continuum and the labels that are not given are fitted with the others held; what the lines then
    lack or have too much of makes the factors of their depths. With these the star is fitted once more; pixels that are
    still off by more than the threshold are masked, half a resolution element to either side with them. A last fit, all
    labels free but those the options fix, gives the zero points.

    Args:
        spectrum, model, resolution: as of :func:`starpayne.fitting.fit`.
        labels: those of the star, physical units.
        options: as later fits will have them.
        threshold: as a fraction of the continuum.
        depths: whether to learn factors of line depths. They hold for stars like this one, and are as sharp as its
            spectrum: resolution and S/N should be no worse than those of the stars to come.

    Raises:
        SpectrumError: if the fit fails, or the mask hides most pixels; LabelError for an unknown label.
    """
    options = options or FitOptions()
    if not 0 < threshold < 1:
        raise SpectrumError(f"threshold = {threshold:g} is outside the range 0 to 1 (a fraction of the continuum)")
    model.emulator.space.refuse_unknown(labels, "labels of the reference star")
    options = replace(options, line_mask=None)
    held = _unmasked(options, {**options.fix, **labels})
    known = fit(spectrum, model, resolution, held)
    if "failed" in known.flags:
        raise SpectrumError(
            f"{spectrum.name}: the fit at the labels of the reference star failed, so it teaches no mask"
        )
    mask, left = LineMask((), known.medium, model=bundle.digest(model.emulator)), known
    for _ in range(ROUNDS if depths else 0):
        sharper = replace(mask, depths=LineDepths.of(left, mask.depths))
        now = fit(spectrum, model, resolution, replace(held, line_mask=sharper))
        if not _misfit(now) < WORTH * _misfit(left):
            break
        mask, left = sharper, now
    windows, fraction = _windows(left, typical_fwhm(resolution), threshold)
    if fraction > MOST:
        raise SpectrumError(
            f"{spectrum.name}: {100 * fraction:.0f} % of the pixels are off by more than {threshold:g}; check the "
            "labels and the resolution, or raise the threshold"
        )
    mask = replace(mask, windows=windows)
    result = fit(spectrum, model, resolution, replace(options, line_mask=mask))
    free = tuple(name for name in result.labels if name not in result.fixed)
    return replace(
        mask,
        zero_points={name: result.labels[name] - value for name, value in labels.items() if name in free},
        free=free,
        source={
            "reference": {name: float(value) for name, value in labels.items()}, "spectrum": spectrum.name,
            "resolution": known.resolution, "threshold": threshold, "fraction_masked": round(fraction, 4),
            "errors": {name: result.errors[name] for name in labels if name in free},
            "reduced_chi2_before": known.reduced_chi2, "reduced_chi2_after": result.reduced_chi2,
            "misfit_before": _misfit(known), "misfit_after": _misfit(left), "rv": left.rv, "vsini": left.vsini,
            "fitted": {name: value for name, value in left.labels.items() if name not in left.fixed},
            "flags": list(left.flags),
        },
    )  # fmt: skip


def _unmasked(options: FitOptions, fix: Mapping[str, float]) -> FitOptions:
    """Return options of a fit that holds these labels, without what concerns them otherwise."""
    return replace(
        options, fix=fix, bounds={k: v for k, v in options.bounds.items() if k not in fix},
        prior={k: v for k, v in options.prior.items() if k not in fix},
    )  # fmt: skip


def _misfit(result: FitResult) -> float:
    """Return the root mean square of observed minus model, as a fraction of the continuum."""
    return float(np.sqrt(np.mean((result.residual / result.continuum)[result.used] ** 2)))


def _windows(result: FitResult, fwhm: float, threshold: float) -> tuple[tuple[tuple[float, float], ...], float]:
    """Return the windows at rest, and the fraction of the used pixels that they hide."""
    rest = result.wavelength / doppler_factor(result.rv)
    with np.errstate(invalid="ignore"):
        wrong = (np.abs(result.residual / result.continuum) > threshold) & result.used
    half = 0.5 * fwhm / SPEED_OF_LIGHT
    merged: list[list[float]] = []
    for centre in rest[wrong]:
        low, high = float(centre * (1 - half)), float(centre * (1 + half))
        if merged and low <= merged[-1][1]:
            merged[-1][1] = high
        else:
            merged.append([low, high])
    windows = tuple((round(low, 4), round(high, 4)) for low, high in merged)
    hidden = ~LineMask(windows, result.medium).keeps(rest, result.medium)
    return windows, float(hidden[result.used].mean()) if result.used.any() else 1.0
