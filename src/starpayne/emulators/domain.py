"""What an emulator was trained for: its wavelengths, what its spectra leave out, and what quantity they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from starpayne.errors import WavelengthError
from starpayne.wavelengths import MEDIA, check_coverage, check_medium, check_wavelength, convert_medium, covers

QUANTITIES = {"flux": "normalised flux", "intensity": "normalised intensity"}
"""What the first channel of an emulator may be, in words. The normalised intensity is i(μ, λ) = π I(μ, λ) / F_c(λ), of
the specific intensity I and the continuum surface flux F_c, so that the normalised flux is 2 ∫ i μ dμ."""


@dataclass(frozen=True)
class SpectralDomain:
    """The wavelengths an emulator was trained for, and what its spectra are.

    Args:
        low, high: range in Å.
        medium: "air" or "vacuum".
        sampling: λ/Δλ of the training grid (the coarsest step).
        resolution: λ/FWHM of broadening already in the training spectra; None for none beyond the star's own.
        physics: flags of what the training spectra leave out, such as ``no_molecules``, ``lte``, ``plane_parallel``.
        quantity: of the first channel, "flux" or "intensity"; an intensity has ``mu`` as its last label.
        mu: cosines of the viewing angles of the training grid, increasing, where the quantity is an intensity.
    """

    low: float
    high: float
    medium: str
    sampling: float
    resolution: float | None = None
    physics: tuple[str, ...] = ()
    quantity: str = "flux"
    mu: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_medium(self.medium)
        if not (0 < self.low < self.high < np.inf and 1 < self.sampling < np.inf):
            raise WavelengthError(
                f"a spectral domain needs 0 < low < high and sampling > 1, got {self.low}, {self.high}, {self.sampling}"
            )
        if self.quantity not in QUANTITIES:
            raise WavelengthError(f"quantity = {self.quantity!r} is not known; choose one of {', '.join(QUANTITIES)}")
        if (self.quantity == "intensity") != bool(self.mu):
            raise WavelengthError(f"quantity = {self.quantity!r} with mu = {self.mu}: intensities alone have angles")

    @classmethod
    def from_dict(cls, stated: Mapping[str, Any]) -> SpectralDomain:
        """Return the domain of plain JSON data, as ``dataclasses.asdict`` gives it."""
        numbers = {name: float(stated[name]) for name in ("low", "high", "sampling")}
        tuples = {name: tuple(stated.get(name, ())) for name in ("physics", "mu")}
        return cls(**{**stated, **numbers, **tuples})

    def prepare(self, wavelength: ArrayLike, medium: str | None) -> np.ndarray:
        """Return wavelengths (n,) float64 in this medium, after checking that they lie in the range.

        Raises:
            WavelengthError: traced, unsorted, not finite, or outside; the text names both ranges, and says so when
                the wavelengths would fit if they were given in the other medium.
        """
        given = check_wavelength(wavelength)
        stated = check_medium(medium) if medium else self.medium
        converted = convert_medium(given, stated, self.medium)
        try:
            check_coverage(converted, self.low, self.high, self.medium)
        except WavelengthError as error:
            other = MEDIA[1 - MEDIA.index(stated)]
            as_other = convert_medium(given, other, self.medium)
            if covers(self.low, self.high, as_other):
                raise WavelengthError(
                    f"{error}; they were taken to be {stated} wavelengths and would fit as {other} ones: "
                    f"say medium={other!r} if that is what they are"
                ) from error
            raise
        return converted
