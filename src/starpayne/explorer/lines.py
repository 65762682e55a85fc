"""Where the lines of each element are: the wavelengths at which the flux answers most to its abundance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import find_peaks

MOST = 5
"""Lines marked of one element."""

LEAST = 0.01
"""Change of the flux per dex from which on a line is marked."""

SHARE = 0.15
"""A line weaker than this share of the element's strongest is not marked."""


@dataclass(frozen=True)
class Line:
    """A wavelength (Å) at which an element is strong, and ∂flux/∂[X/Fe] there, per dex."""

    wavelength: float
    slope: float


def strongest(wavelength: np.ndarray, slope: np.ndarray) -> tuple[Line, ...]:
    """Return the wavelengths at which an element matters most, the strongest first.

    Args:
        wavelength: (n,) Å, increasing.
        slope: (n,) derivative of the flux by the abundance; NaN where it is not known.
    """
    size = np.abs(np.nan_to_num(np.asarray(slope, np.float64)))
    floor = max(LEAST, SHARE * float(size.max(initial=0.0)))
    # A shoulder is no line of its own.
    peaks, _ = find_peaks(size, height=floor, prominence=0.5 * floor)
    best = peaks[np.argsort(-size[peaks])][:MOST]
    return tuple(Line(float(wavelength[i]), float(slope[i])) for i in best)
