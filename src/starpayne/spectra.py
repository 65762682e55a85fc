"""Observed spectra: wavelengths, flux, errors and mask of one star, checked once when they are made."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from starpayne.errors import SpectrumError, WavelengthError
from starpayne.wavelengths import check_medium, check_wavelength

UNITS = {"angstrom": 1.0, "nm": 10.0, "micron": 1e4, "m": 1e10}
"""Factors to Å of the units that can be asked for by name."""


@dataclass(frozen=True, eq=False)
class ObservedSpectrum:
    """One observed spectrum.

    Args:
        wavelength: (n,) Å, float64, strictly increasing.
        flux: (n,) any linear unit. Pixels that are NaN or infinite in flux or error are masked and counted.
        error: (n,) 1 σ in the unit of flux, positive where used; None if not known.
        mask: (n,) bool, True = used; by default every pixel.
        medium: "air", "vacuum", or None where it is not stated.
        name: of the star or file, for tables and messages.
        notes: what was assumed when it was read, such as ``unit_assumed:nm``; they become flags of the fit.

    Raises:
        SpectrumError: lengths differ, an error is zero or negative, or no pixel is left.
        WavelengthError: wavelengths do not increase, are not finite, or not in Å.

    Example:
        >>> spectrum = ObservedSpectrum([5000.0, 5000.1, 5000.2], [1.0, 0.9, np.nan], [0.01, 0.01, 0.01])
        >>> spectrum.n_nan, int(spectrum.mask.sum())
        (1, 2)
    """

    wavelength: np.ndarray
    flux: np.ndarray
    error: np.ndarray | None = None
    mask: np.ndarray | None = None
    medium: str | None = None
    name: str = ""
    notes: tuple[str, ...] = ()
    n_nan: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        wavelength = check_wavelength(self.wavelength)
        flux = np.array(self.flux, dtype=np.float64)
        error = None if self.error is None else np.array(self.error, dtype=np.float64)
        mask = np.ones(len(wavelength), bool) if self.mask is None else np.array(self.mask, dtype=bool)
        for what, array in (("flux", flux), ("error", error), ("mask", mask)):
            if array is not None and array.shape != wavelength.shape:
                raise SpectrumError(
                    f"{what} has shape {array.shape}, wavelength has {wavelength.shape}: every pixel needs all of them"
                )
        if self.medium is not None:
            check_medium(self.medium)
        finite = np.isfinite(flux) if error is None else np.isfinite(flux) & np.isfinite(error)
        n_nan = int(np.sum(mask & ~finite))
        mask &= finite
        if error is not None and np.any(error[mask] <= 0):
            bad = int(np.flatnonzero(mask & (error <= 0))[0])
            raise SpectrumError(
                f"error[{bad}] = {error[bad]:g} at {wavelength[bad]:.3f} Å: errors must be positive; "
                "mask the pixels whose error is not known"
            )
        if not mask.any():
            raise SpectrumError(f"all {len(mask)} pixels are masked ({n_nan} because they are NaN): nothing to fit")
        values = {"wavelength": wavelength, "flux": flux, "error": error, "mask": mask, "n_nan": n_nan}
        for what, value in values.items():
            object.__setattr__(self, what, value)

    def __len__(self) -> int:
        return len(self.wavelength)

    @property
    def used(self) -> np.ndarray:
        """(n,) bool: the mask, never None."""
        assert self.mask is not None
        return self.mask

    @property
    def snr(self) -> float | None:
        """Median flux over error of the pixels used; None without errors."""
        if self.error is None:
            return None
        return float(np.median(self.flux[self.used] / self.error[self.used]))

    def select(self, pixels: np.ndarray | slice) -> ObservedSpectrum:
        """Return the spectrum of some of its pixels."""
        return replace(
            self, wavelength=self.wavelength[pixels], flux=self.flux[pixels], mask=self.used[pixels],
            error=None if self.error is None else self.error[pixels],
        )  # fmt: skip

    def between(self, low: float, high: float) -> ObservedSpectrum:
        """Return the part from low to high Å.

        Raises:
            SpectrumError: if no pixel lies there; the text prints both ranges.
        """
        inside = (self.wavelength >= low) & (self.wavelength <= high)
        if not inside.any():
            raise SpectrumError(
                f"no pixel between {low:g} and {high:g} Å: the spectrum runs from {self.wavelength[0]:.2f} to "
                f"{self.wavelength[-1]:.2f} Å"
            )
        return self.select(inside)

    @classmethod
    def read(cls, path: str | Path, unit: str | None = None, medium: str | None = None) -> ObservedSpectrum:
        """Read a spectrum from a text table (also .gz) or a FITS file.

        Text: columns by name (``wave…``/``lambda``, ``flux``, ``err…``/``sigma``/``ivar``) or, without names, by
            order.
        FITS: a 1-D image with CRVAL1/CDELT1 (linear or log-linear), a binary table with such columns, and whatever
        else specutils reads, where that is installed.

        Args:
            path: the file.
            unit: of the wavelengths, "angstrom", "nm", "micron" or "m". By default what the file says; where it says
                nothing, what the numbers allow, recorded in ``notes``.
            medium: "air" or "vacuum"; by default what the file says. It is believed where the file says otherwise,
                which is recorded in ``notes`` (``medium_overridden``).

        Raises:
            SpectrumError: not a spectrum, or its unit cannot be told.
        """
        from starpayne.spectrum_files import read_columns

        if unit is not None and unit not in UNITS:
            raise SpectrumError(f"unit {unit!r} is not known; choose one of {', '.join(UNITS)}")
        path = Path(path)
        columns = read_columns(path)
        return cls.from_columns(
            columns.wavelength, columns.flux, columns.error, unit or columns.unit, path.name, columns.medium, medium
        )

    @classmethod
    def from_specutils(cls, spectrum: Any, medium: str | None = None, name: str = "") -> ObservedSpectrum:
        """Convert a ``specutils.Spectrum`` (or ``Spectrum1D``) of one star.

        Args:
            spectrum: with ``spectral_axis``, ``flux`` and, where known, ``uncertainty`` and ``mask`` (True = bad).
            medium, name: as for the class; specutils does not record the medium.

        Raises:
            SpectrumError: for something else, several spectra in one object, or a spectral axis without wavelengths.
        """
        from starpayne.spectrum_files import specutils_columns

        columns = specutils_columns(spectrum)
        return cls(columns.wavelength, columns.flux, columns.error, columns.mask, medium, name)

    @classmethod
    def from_columns(
        cls, wavelength: np.ndarray, flux: np.ndarray, error: np.ndarray | None, unit: str | None, name: str,
        stated: str | None = None, medium: str | None = None,
    ) -> ObservedSpectrum:  # fmt: skip
        """Make a spectrum of the columns of a file, which may run backwards, and mark bad pixels by their errors.

        Args:
            wavelength, flux, error: (n,).
            unit: of the wavelengths; None takes the only one that the numbers allow, recorded in ``notes``.
            name: of the star or file.
            stated: the medium that the file states.
            medium: the one to believe, where the file says otherwise recorded in ``notes``; by default what it states.

        Raises:
            SpectrumError: not a spectrum, or its unit cannot be told.
        """
        if len(wavelength) > 1 and np.all(np.diff(wavelength) < 0):
            wavelength, flux, error = wavelength[::-1], flux[::-1], None if error is None else error[::-1]
        notes: tuple[str, ...] = ()
        if unit is None:
            unit = guess_unit(wavelength, name)
            notes = (f"unit_assumed:{unit}",)
        mask = None
        if error is not None:
            # In files a zero or negative error is how a bad pixel is marked; but if no pixel is good, they are no
            # errors.
            mask = error > 0
            if not mask.any():
                raise SpectrumError(f"{name}: no error is positive; errors must be 1 σ in the unit of flux")
        try:
            if medium is not None and stated not in (None, medium):
                notes = (*notes, "medium_overridden")
            return cls(wavelength * UNITS[unit], flux, error, mask, medium or stated, name, notes)
        except (SpectrumError, WavelengthError) as problem:
            raise type(problem)(f"{name}: {problem}") from problem


def guess_unit(wavelength: np.ndarray, name: str = "") -> str:
    """Return the unit that wavelengths of a star must have, from their numbers alone.

    From 2000 up they are Å; wholly below 2000 an Å range would lie in the far ultraviolet, so they are nm; below 30
    they are µm.

    Raises:
        SpectrumError: for a range across 2000, which could be either.
    """
    low, high = float(np.nanmin(wavelength)), float(np.nanmax(wavelength))
    if low >= 2000:
        return "angstrom"
    if low > 100 and high <= 2000:
        return "nm"
    if low > 0.1 and high < 30:
        return "micron"
    if low > 1e-8 and high < 1e-4:
        return "m"
    raise SpectrumError(
        f"{name + ': ' if name else ''}wavelengths run from {low:g} to {high:g} and their unit is not stated: "
        "give --unit nm or --unit angstrom"
    )
