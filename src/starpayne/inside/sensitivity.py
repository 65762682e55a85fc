"""What a spectrum tells of each label: derivative spectra, the Fisher matrix, expected errors, and where they come
from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from starpayne.bundle import Model
from starpayne.errors import LabelError, SpectrumError
from starpayne.fitting import FitOptions
from starpayne.fitting.forecast import expected_spectrum, forecast
from starpayne.fitting.forward import refuse_intensities
from starpayne.fitting.setup import Setup
from starpayne.inside.windows import BestWindows, Linear, best_windows, edges, per_window, places
from starpayne.wavelengths import convert_medium, log_grid

PIXELS_PER_FWHM = 3.0
MOST_PIXELS = 1_000_000
MOST_WINDOWS = 2_000

ERRORS = {
    "fit": "as a fit states it: photon noise and the emulator's error, the continuum free",
    "photons": "photon noise alone, the continuum free",
    "known_continuum": "photon noise and the emulator's error, the continuum known",
    "photons_known_continuum": "photon noise alone, the continuum known",
    "alone": "as fit, all other parameters known",
}
"""The errors of a forecast, by what is taken to be known."""


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """What the spectrum of one star tells.

    Args:
        names: of the p parameters that a fit would fit: labels, then those of rv, vsini, broadening that are free.
        star: every label of the star, and its rv and vsini, physical units.
        wavelength, flux: (n,) pixels in Å of ``medium``, and the normalised flux on them.
        used: (n,) bool: the pixels that a fit would use.
        derivatives: (p, n) ∂flux/∂parameter on the pixels, physical units.
        unique: (p, n) each derivative less its best imitation by all other parameters, continuum and emulator's error.
        emulator_error: (n,) 1 σ of the emulator on the pixels; 0 where it is unknown or left out.
        fisher: (p, p) information of the pixels, physical units, the emulator's error in and the continuum free.
        covariance: (p, p) of the errors of the ``fit``: the same, and what is known beforehand (priors, ranges).
        errors: kind (see ERRORS) → (p,) 1 σ errors, physical units.
        windows: (w + 1,) edges in Å.
        share: (p, w) fraction of what the pixels tell of a parameter, the others free, that comes from each window:
            also where the parameter itself does nothing but what could imitate it elsewhere would show.
        share_alone: (p, w) the same with the others known: where its derivative is large.
        best: parameter → its best windows.
        snr, resolution, medium: of the spectrograph.
        flags: what a fit of this star would say.
    """

    names: tuple[str, ...]
    star: Mapping[str, float]
    wavelength: np.ndarray
    flux: np.ndarray
    used: np.ndarray
    derivatives: np.ndarray
    unique: np.ndarray
    emulator_error: np.ndarray
    fisher: np.ndarray
    covariance: np.ndarray
    errors: Mapping[str, np.ndarray]
    windows: np.ndarray
    share: np.ndarray
    share_alone: np.ndarray
    best: Mapping[str, BestWindows]
    snr: float
    resolution: float
    medium: str
    flags: tuple[str, ...] = field(default=())

    @property
    def correlation(self) -> np.ndarray:
        """(p, p) correlation of the errors of the fit."""
        sigma = np.sqrt(np.diag(self.covariance))
        return self.covariance / np.outer(sigma, sigma)

    def windows_for(self, name: str, fraction: float) -> int:
        """Return how many windows, the most telling first, hold a fraction of what the pixels tell of a parameter."""
        share = np.sort(self.share[self.names.index(name)])[::-1]
        return int(np.searchsorted(np.cumsum(share), fraction * (1 - 1e-9)) + 1)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data; spectra are left out (see :mod:`starpayne.inside.sensitivity_files`)."""
        edge = [round(float(x), 4) for x in self.windows]
        return {
            "star": {k: float(v) for k, v in self.star.items()},
            "snr": self.snr, "resolution": self.resolution, "medium": self.medium,
            "low": float(self.wavelength[self.used][0]), "high": float(self.wavelength[self.used][-1]),
            "n_pixels": int(self.used.sum()), "flags": list(self.flags), "parameters": list(self.names),
            "errors": {k: dict(zip(self.names, map(float, v), strict=True)) for k, v in self.errors.items()},
            "meaning_of_errors": dict(ERRORS),
            "fisher": self.fisher.tolist(), "covariance": self.covariance.tolist(),
            "correlation": self.correlation.tolist(), "window_edges": edge,
            "share": dict(zip(self.names, self.share.tolist(), strict=True)),
            "share_alone": dict(zip(self.names, self.share_alone.tolist(), strict=True)),
            "best_windows": {
                name: [
                    {"low": edge[w], "high": edge[w + 1], "error_so_far": error}
                    for w, error in zip(best.order, best.errors, strict=True)
                ]
                for name, best in self.best.items()
            },
        }  # fmt: skip


def sensitivity(
    model: Model,
    at: Mapping[str, float],
    *,
    snr: float = 100.0,
    resolution: float = 40_000.0,
    low: float | None = None,
    high: float | None = None,
    sampling: float | None = None,
    medium: str | None = None,
    rv: float = 0.0,
    vsini: float = 2.0,
    options: FitOptions | None = None,
    labels: Sequence[str] | None = None,
    window_width: float | None = None,
    n_best: int = 10,
) -> Sensitivity:
    """Say what the spectrum of a star of these labels would tell, seen with this spectrograph and fitted so.

    Instrument, continuum, emulator's error and errors are those of :func:`starpayne.fitting.fit`. That the noise is
    Gaussian, the model right but for the emulator's error, and linear over the errors, is taken for granted: a fit of a
    real star does no better than this.

    Args:
        model: an emulator with its validation residuals.
        at: every label of the star, physical units.
        snr: signal-to-noise ratio per pixel at the continuum.
        resolution: λ/FWHM.
        low, high: first and last pixel, Å; by default all that the model covers.
        sampling: λ/Δλ of the pixels; by default three per FWHM.
        medium: of the wavelengths; by default the model's.
        rv, vsini: of the star, km/s.
        options: of the fit: what it holds (at the star's own values), its priors and continuum.
        labels: whose best windows to look for; by default all labels that are free.
        window_width: Å; by default a fiftieth of the range.
        n_best: how many windows to choose at most for each label.

    Raises:
        LabelError: a label is unknown, missing or out of range; SpectrumError: values that cannot be.

    Example:
        ``sensitivity(load(), fill_solar_scaled(space, sun) | sun, snr=200).errors["fit"]``
    """
    options, emulator = options or FitOptions(), model.emulator
    refuse_intensities(emulator)
    for name, value in (("snr", snr), ("resolution", resolution), ("sampling", sampling or 1.0)):
        if not (np.isfinite(value) and value > 0):
            raise SpectrumError(f"{name} = {value:g} must be a positive number")
    for name, value in (("window_width", window_width or 1.0), ("n_best", n_best)):
        if not value > 0:
            raise SpectrumError(f"{name} = {value:g} must be positive")
    emulator.space.check(emulator.space.vector(at))
    wavelength, medium = _pixels(model, resolution, low, high, sampling, medium)
    setup = Setup(model, options)
    wanted = _wanted(labels, setup)
    spectrum = expected_spectrum(model, wavelength, resolution, at, snr, medium=medium, rv=rv, vsini=vsini)
    seen = forecast(spectrum, setup, resolution, at, rv=rv, vsini=vsini)
    linear, names = Linear.of(seen), seen.names
    scene, sight = seen.descent.scene, seen.descent.sight
    n = len(scene.star.wavelength)
    weight = linear.weight
    to_cube = np.linalg.inv(seen.by_cube())
    jacobian = seen.jacobian() @ to_cube
    information = jacobian.T @ jacobian
    unique = linear.unique()
    own = scene.star.own_wavelength
    used = weight > 0
    first, last = own[used][0], own[used][-1]
    bounds = edges(float(first), float(last), window_width or float(last - first) / 50)
    if len(bounds) > MOST_WINDOWS + 1:
        raise SpectrumError(
            f"window_width = {window_width:g} Å makes {len(bounds) - 1} windows; at most {MOST_WINDOWS}"
        )
    place = places(own, bounds)
    normal = per_window(linear, place, len(bounds) - 1)
    errors = {
        "fit": seen.covariance(), "photons": seen.covariance(emulator_error=False),
        "known_continuum": seen.covariance(known_continuum=True),
        "photons_known_continuum": seen.covariance(emulator_error=False, known_continuum=True),
    }  # fmt: skip
    sigma = {kind: np.sqrt(np.diag(covariance)) for kind, covariance in errors.items()}
    sigma["alone"] = 1 / np.sqrt(np.diag(information + to_cube.T @ seen.prior() @ to_cube))
    error = np.sqrt(np.sum(sight.modes**2, axis=0) + sight.left**2)[:n] * scene.star.scale
    flux = np.where(spectrum.used, spectrum.flux, np.nan)[np.isin(spectrum.wavelength, own)]
    return Sensitivity(
        names=names, star={**{k: float(at[k]) for k in emulator.space.names}, "rv": rv, "vsini": vsini},
        wavelength=own, flux=flux, used=used,
        derivatives=np.asarray(seen.descent.solution.jacobian, np.float64)[:, :n].T.dot(to_cube).T,
        unique=np.divide(unique, weight, out=np.zeros_like(unique), where=used) * scene.star.scale,
        emulator_error=error, fisher=information, covariance=errors["fit"], errors=sigma, windows=bounds,
        share=_shares(unique, place, len(bounds) - 1),
        share_alone=_shares(linear.design[:, : linear.p].T, place, len(bounds) - 1),
        best={name: best_windows(linear, normal, names.index(name), n_best) for name in wanted},
        snr=float(snr), resolution=float(resolution), medium=medium, flags=seen.flags,
    )  # fmt: skip


def held_at(at: Mapping[str, float], options: FitOptions, names: Sequence[str], rv: float, vsini: float) -> FitOptions:
    """Return options of a fit that holds these parameters (labels, rv, vsini) at the values of the star."""
    motions: dict[str, Any] = {name: {"rv": rv, "vsini": vsini}[name] for name in names if name in ("rv", "vsini")}
    unknown = [name for name in names if name not in at and name not in motions]
    if unknown:
        raise LabelError(
            f"{unknown[0]!r} cannot be held: the star has no such label; it has {', '.join(at)}, rv, vsini"
        )
    return replace(options, fix={name: at[name] for name in names if name in at}, **motions)


def _shares(rows: np.ndarray, place: np.ndarray, n_windows: int) -> np.ndarray:
    """Return (p, n_windows) the fraction of the squares of each row (p, n) that lies in each window."""
    sums = np.zeros((len(rows), n_windows))
    for i, row in enumerate(rows):
        sums[i] = np.bincount(place, row**2, n_windows)
    return sums / np.maximum(sums.sum(axis=1, keepdims=True), 1e-300)


def _pixels(
    model: Model, resolution: float, low: float | None, high: float | None, sampling: float | None, medium: str | None
) -> tuple[np.ndarray, str]:
    """Return wavelengths of the pixels, and their medium."""
    domain = model.emulator.domain
    medium = medium or domain.medium
    ends = convert_medium(np.array([domain.low, domain.high]), domain.medium, medium)
    first, last = ends[0] if low is None else low, ends[1] if high is None else high
    if not 0 < first < last:
        raise SpectrumError(f"the range {first:g} to {last:g} Å must have its lower end first")
    first, last = max(float(first), float(ends[0])), min(float(last), float(ends[1]))
    if not first < last:
        raise SpectrumError(
            f"the range asked for does not overlap the model, {ends[0]:.2f} to {ends[1]:.2f} Å in {medium}"
        )
    step = sampling or PIXELS_PER_FWHM * resolution
    count = np.log(last / first) * step
    if not 2 <= count <= MOST_PIXELS:
        raise SpectrumError(
            f"{first:g} to {last:g} Å at λ/Δλ = {step:g} is {count:.0f} pixels; they must be 2 to {MOST_PIXELS}"
        )
    return log_grid(first, last, step), medium


def _wanted(labels: Sequence[str] | None, setup: Setup) -> tuple[str, ...]:
    free = setup.parameters.labels.names
    if labels is None:
        return free
    setup.model.emulator.space.refuse_unknown(labels, "labels")
    for name in labels:
        if name not in free:
            raise LabelError(f"{name} is held, so no window tells it: leave it out of the labels, or free it")
    return tuple(labels)
