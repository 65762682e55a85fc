"""Label recovery: what becomes of the labels when true spectra are observed and fitted with an emulator.

As in the TransformerPayne paper (arXiv:2407.05751): held-out spectra at R = 40,000 and S/N = 100 are fitted, and each
label's bias and scatter tell what an emulator is worth. Each spectrum is fitted twice, with and without noise, which
separates the emulator's part from that of the noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from starpayne.bundle import Model
from starpayne.errors import SpectrumError
from starpayne.evaluation.observed import observe_rows
from starpayne.evaluation.refit import Fitter
from starpayne.evaluation.rows import held_out
from starpayne.fitting.forward import refuse_intensities
from starpayne.grid import Grid

CONSTRAINED = 0.25
"""A label counts as constrained by a spectrum whose Cramér–Rao bound is below this fraction of the label's range."""


@dataclass(frozen=True)
class Recovery:
    """Labels of held-out spectra of a grid, recovered with an emulator.

    Args:
        names: of the labels, in the model's order.
        ranges: (n_labels,) width of each label's range, physical units.
        rows: (n,) rows of the grid.
        truth: (n, n_labels) physical units, as are the following three.
        fitted: (n, n_labels) from the noisy spectrum.
        noiseless: (n, n_labels) from the same spectrum without noise, with the same weights: what it deviates from
            the truth is the emulator's part.
        bound: (n, n_labels) Cramér–Rao bound (1 σ) at the truth from the emulator's own derivatives: photon noise
            alone, all labels and the continuum level free, no bounds on any label. It is that of a star on its own.
        chi2: (n,) reduced χ² of the noisy fit.
        converged: (n,) whether both fits have converged.
        at_bound: (n, n_labels) whether a label of the noisy fit lies on its bound, where noise cannot move it.
        snr, resolution, pixels_per_fwhm, seed: of the observations.
        n_outside: spectra left out because they are outside the model's label domain.
        split: what the rows are, in words.
    """

    names: tuple[str, ...]
    ranges: np.ndarray
    rows: np.ndarray
    truth: np.ndarray
    fitted: np.ndarray
    noiseless: np.ndarray
    bound: np.ndarray
    chi2: np.ndarray
    converged: np.ndarray
    at_bound: np.ndarray
    snr: float
    resolution: float
    pixels_per_fwhm: float
    seed: int
    n_outside: int
    split: str

    @property
    def finite(self) -> np.ndarray:
        """(n,) whether both fits ended in numbers.

        Statistics are over these, not over the converged alone: with a poor emulator χ² has many shallow ends, few
        fits count as converged, and to leave the others out would flatter it.
        """
        return np.all(np.isfinite(self.fitted) & np.isfinite(self.noiseless), axis=1)

    def summary(self) -> dict[str, dict[str, float]]:
        """Return for each label, over all spectra whose fits gave numbers, and in its unit:

        ``bias`` (median of fitted − truth), ``scatter`` (1.4826 times the median absolute deviation), ``rms``,
        ``emulator_bias`` and ``emulator_scatter`` (of noiseless − truth), ``noise_scatter`` (of fitted − noiseless),
        ``bound`` (median); ``constrained``, the fraction of them whose bound is below a quarter of the label's
        ``range``, and some of the above over these alone, as ``…_constrained``; ``at_bound``, the fraction of fits
        that put the label on its bound. NaN where there is none.
        """
        return {name: self._summary_of(i) for i, name in enumerate(self.names)}

    def _summary_of(self, i: int) -> dict[str, float]:
        good, width = self.finite, float(self.ranges[i])
        truth, fitted, noiseless = self.truth[good, i], self.fitted[good, i], self.noiseless[good, i]
        bound = self.bound[good, i]
        known = bound < CONSTRAINED * width
        return {
            "bias": _median(fitted - truth),
            "scatter": _scatter(fitted - truth),
            "rms": float(np.sqrt(np.mean((fitted - truth) ** 2))) if len(truth) else np.nan,
            "emulator_bias": _median(noiseless - truth),
            "emulator_scatter": _scatter(noiseless - truth),
            "noise_scatter": _scatter(fitted - noiseless),
            "bound": _median(bound),
            "constrained": float(np.mean(known)) if len(known) else np.nan,
            "bias_constrained": _median((fitted - truth)[known]),
            "scatter_constrained": _scatter((fitted - truth)[known]),
            "emulator_bias_constrained": _median((noiseless - truth)[known]),
            "emulator_scatter_constrained": _scatter((noiseless - truth)[known]),
            "noise_scatter_constrained": _scatter((fitted - noiseless)[known]),
            "bound_constrained": _median(bound[known]),
            "at_bound": float(np.mean(self.at_bound[good, i])) if len(truth) else np.nan,
            "range": width,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data: the observation, the summary, and every spectrum's labels (None for no number)."""
        tables = {name: getattr(self, name) for name in ("truth", "fitted", "noiseless", "bound")}
        return {
            "labels": list(self.names),
            "snr": float(self.snr),
            "resolution": float(self.resolution),
            "pixels_per_fwhm": float(self.pixels_per_fwhm),
            "seed": int(self.seed),
            "split": self.split,
            "n_spectra": len(self.rows),
            "n_converged": int(np.sum(self.converged)),
            "n_outside_domain": self.n_outside,
            "median_chi2": _number(_median(self.chi2[self.finite])),
            "summary": {k: {name: _number(x) for name, x in v.items()} for k, v in self.summary().items()},
            "rows": [int(row) for row in self.rows],
            "chi2": [_number(x) for x in self.chi2],
            "converged": [bool(x) for x in self.converged],
            **{name: [[_number(x) for x in row] for row in table] for name, table in tables.items()},
        }


def recover(
    model: Model,
    grid: Grid,
    rows: Sequence[int] | None = None,
    *,
    n_spectra: int = 100,
    resolution: float = 40_000.0,
    snr: float = 100.0,
    pixels_per_fwhm: float = 3.0,
    seed: int = 0,
    n_search: int = 256,
    n_starts: int = 3,
    progress: Callable[[int, int], None] | None = None,
) -> Recovery:
    """Observe true spectra of a grid, fit them with an emulator, and compare labels.

    A fit starts from the best of ``n_search`` templates of the whole label table, never from the truth, and follows
    up to ``n_starts`` of them where χ² is higher than chance allows. Labels and the continuum level are free; velocity
    and rotation are known to be zero. The χ² is that of the photon noise, as in the paper: no error of the emulator
    enters it.

    Args:
        model: a trained model.
        grid: a grid with the same label names, sampled more finely than twice the resolution.
        rows: rows to take instead of the held-out ones (then all of them).
        n_spectra: how many of the held-out spectra, evenly spaced.
        resolution: λ/FWHM of the Gaussian profile.
        snr: signal-to-noise ratio per pixel at the continuum.
        pixels_per_fwhm: sampling of the detector.
        seed: of the noise (which each row has to itself, the same for every model) and of the templates.
        n_search, n_starts: of the search.
        progress: called with the number of fits finished, and their total.

    Returns:
        the labels recovered; a fit that fails is a flag in them, not an exception.

    Raises:
        SpectrumError: a value out of its range, or a resolution that grid or model do not reach.
        GridError: the grid's labels are not the model's, or no row is left.
        WavelengthError: the grid's wavelengths leave the model's range.

    Example:
        ``recover(load("payne.model"), Grid.open("grid.zarr"), n_spectra=50).summary()["teff"]["scatter"]``
    """
    for name, value in (("n_spectra", n_spectra), ("n_search", n_search), ("n_starts", n_starts)):
        if value < 1:
            raise SpectrumError(f"{name} = {value} must be at least 1")
    refuse_intensities(model.emulator)
    if seed < 0:
        raise SpectrumError(f"seed = {seed} must be 0 or more")
    held = held_out(model, grid, rows, n_spectra if rows is None else None)
    model.emulator.domain.prepare(grid.wavelength, grid.medium)
    stars = observe_rows(
        grid, held.rows, resolution=resolution, snr=snr, pixels_per_fwhm=pixels_per_fwhm, seed=seed
    )  # fmt: skip
    fitter = Fitter.of(model.emulator, stars, resolution, grid.medium)
    n = len(held.rows)

    def report(before: int) -> Callable[[int, int], None]:
        return lambda done, total: progress(before + done, 2 * n) if progress else None

    noisy = fitter.search_and_fit(stars.noisy, n_search, n_starts, seed, report(0))
    # From the noisy fit, whose basin is the emulator's: a search of its own could only find the same place again.
    noiseless = fitter.fit(stars.flux, noisy.cube, noisy, report(n))
    space = model.emulator.space
    return Recovery(
        names=space.names, ranges=np.asarray(space.high - space.low, np.float64), rows=held.rows, truth=held.labels,
        fitted=noisy.labels, noiseless=noiseless.labels, bound=fitter.bounds(held.labels), chi2=noisy.chi2,
        converged=noisy.converged & noiseless.converged, at_bound=noisy.at_bound, snr=snr, resolution=resolution,
        pixels_per_fwhm=pixels_per_fwhm, seed=seed, n_outside=held.n_outside, split=held.split,
    )  # fmt: skip


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else np.nan


def _scatter(values: np.ndarray) -> float:
    """Standard deviation of a Gaussian with this median absolute deviation from the median."""
    return 1.4826 * _median(np.abs(values - np.median(values))) if len(values) else np.nan


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
