"""Absolute fluxes in other people's units: what makes surface fluxes of them, held against a black body."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64

from starpayne.errors import GridError

STEFAN_BOLTZMANN = 5.670374419e-5
"""erg s⁻¹ cm⁻² K⁻⁴."""

PER_CM = 1e-8
"""Makes a flux per Å of one per cm."""

UNITS = {1.0: "erg s-1 cm-2 Angstrom-1", PER_CM: "erg s-1 cm-2 cm-1"}
"""Units of surface flux that codes write, by what turns them into the first."""

WHOLE = 0.9
"""Fraction of a black body's flux that a spectrum must cover to be held against σ Teff⁴."""

NORMALISED = (0.1, 1.5)
"""Highest fluxes of normalised spectra."""


def planck_flux(wavelength: Float64[np.ndarray, " m"], teff: float) -> Float64[np.ndarray, " m"]:
    """Return π B_λ (m,) in erg s⁻¹ cm⁻² Å⁻¹ at wavelengths in Å: the surface flux of a black body."""
    cm = wavelength * 1e-8
    return np.pi * 1.1910429724e-5 / cm**5 / np.expm1(np.minimum(1.438776877 / (cm * teff), 700.0)) * PER_CM


def scale_of(wavelength: Float64[np.ndarray, " m"], flux: Float[np.ndarray, " m"], teff: float) -> float | None:
    """Return what makes erg s⁻¹ cm⁻² Å⁻¹ of a flux, by its brightness beside a black body of this Teff (K).

    None where neither unit of ``UNITS`` brings it within a factor 10: the numbers are no surface flux.
    """
    ratio = flux / planck_flux(wavelength, teff)
    ratio = float(np.median(ratio[np.isfinite(ratio)])) if np.any(np.isfinite(ratio)) else np.nan
    return next((scale for scale in UNITS if 0.1 < ratio * scale < 10), None)


def is_normalised(flux: Float[np.ndarray, " m"]) -> bool:
    """Return whether fluxes (m,) look divided by their continuum."""
    finite = flux[np.isfinite(flux)]
    return bool(len(finite)) and NORMALISED[0] < float(np.max(finite)) < NORMALISED[1]


def check_energy(wavelength: Float64[np.ndarray, " m"], flux: Float[np.ndarray, " m"], teff: float, name: str) -> None:
    """Refuse a surface flux (m,) that does not carry σ Teff⁴, where the spectrum covers nearly all of a star's light.

    A library read with H for F is wrong by π or 4π, and nothing in its normalised spectra would show it.

    Raises:
        GridError: if the integral is off by a third.
    """
    whole = STEFAN_BOLTZMANN * teff**4
    if _integral(wavelength, planck_flux(wavelength, teff)) < WHOLE * whole:
        return
    ratio = _integral(wavelength, flux) / whole
    if not 0.67 < ratio < 1.5:
        raise GridError(
            f"{name}: the surface flux adds up to {ratio:.3g} σTeff⁴ of its Teff = {teff:g} K, so its unit is not the "
            "one that this library is known for"
        )


def _integral(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.sum(0.5 * (y[1:] + y[:-1]) * np.diff(x), dtype=np.float64))
