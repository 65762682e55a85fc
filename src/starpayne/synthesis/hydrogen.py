"""Balmer and Paschen lines in the form SMElib needs: it computes the profiles itself from the quantum numbers."""

from __future__ import annotations

import numpy as np

from starpayne.wavelengths import vacuum_to_air

RYDBERG_H = 109677.5834
"""Rydberg constant of hydrogen, cm⁻¹."""

FINE_STRUCTURE = 5.8437
"""R α² in cm⁻¹, the scale of the fine structure of hydrogen."""

CM_PER_EV = 8065.544

REACH = 100.0
"""A window that comes this close (Å) to a hydrogen line includes it."""

SERIES = {"balmer": 2, "paschen": 3}
LAST_LEVEL = 30
"""Lines to higher levels have dissolved in stellar atmospheres."""


def oscillator_strength(lower: int, upper: int) -> float:
    """Return the absorption oscillator strength of hydrogen, averaged over the sublevels.

    Source:
        Menzel & Pekeris 1935, MNRAS 96, 77: Kramers' value times the exact Gaunt factor.
    """
    ratio = -4.0 * lower * upper / (upper - lower) ** 2
    delta = _terminating_2f1(lower - 1, upper, ratio) ** 2 - _terminating_2f1(upper - 1, lower, ratio) ** 2
    power = ((upper - lower) / (upper + lower)) ** (2 * lower + 2 * upper)
    gaunt = np.pi * np.sqrt(3.0) * lower * upper / (upper - lower) * power * abs(delta)
    kramers = 32.0 / (3.0 * np.pi * np.sqrt(3.0)) * (lower**-2 - upper**-2) ** -3 / (lower**5 * upper**3)
    return float(kramers * gaunt)


def _terminating_2f1(m: int, b: int, x: float) -> float:
    """Return the hypergeometric polynomial 2F1(−m, −b; 1; x), exactly in integers as far as possible."""
    total, term = 1.0, 1.0
    for k in range(m):
        term *= (k - m) * (k - b) / (k + 1) ** 2 * x
        total += term
    return total


def line_centre(lower: int, upper: int) -> float:
    """Return the gf-weighted centre of a hydrogen line in Å (air above 2000 Å), to about 0.01 Å.

    The Bohr energies are shifted by the mean fine structure of the sublevels that the strong transitions join: the s
    and p sublevels lie deepest, so that Hα is at 6562.79 Å and not at 6562.88.
    """
    wavenumber = RYDBERG_H * (lower**-2 - upper**-2) + _shift(lower) - _shift(upper)
    return float(vacuum_to_air(np.array([1e8 / wavenumber]))[0])


def _shift(level: int) -> float:
    """Return how far (cm⁻¹) the level's sublevels lie below the Bohr energy, in the mean of its absorption lines.

    0.348 R α² / n³ is the mean of 2s and 2p weighted by their gf; higher levels are joined by d and f sublevels, which
    lie 0.15 R α² / n³ below.
    """
    return (0.348 if level == 2 else 0.15) * FINE_STRUCTURE / level**3


def hydrogen_lines(low: float, high: float) -> np.ndarray:
    """Return the Balmer and Paschen lines within 100 Å of the window low to high (Å, air).

    Returns:
        (n, 5): wavelength (Å, air), excitation (eV), log gf, n_lower, n_upper, in order of wavelength.
    """
    rows = []
    for lower in SERIES.values():
        for upper in range(lower + 1, LAST_LEVEL + 1):
            centre = line_centre(lower, upper)
            if low - REACH <= centre <= high + REACH:
                excitation = RYDBERG_H * (1.0 - lower**-2) / CM_PER_EV
                log_gf = np.log10(2.0 * lower**2 * oscillator_strength(lower, upper))
                rows.append((centre, excitation, log_gf, lower, upper))
    return np.array(sorted(rows), dtype=np.float64).reshape(len(rows), 5)
