"""What an importer is: how a format is recognised, what the user may say, and what every reader of spectra returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float, Float64

from starpayne.errors import GridError, WavelengthError
from starpayne.grid import Split
from starpayne.labels import LabelSpace
from starpayne.wavelengths import check_medium

if TYPE_CHECKING:
    from starpayne.bundle import Model

MAX_PIXELS = 20_000_000
"""Wavelengths of one spectrum: far more than any library has, and what one row of memory may cost."""


@dataclass(frozen=True)
class ImportOptions:
    """What a file does not say and its user may.

    Args:
        labels: a CSV or ECSV table: a column ``file`` (or one row per spectrum, in their order), and one per label.
        medium: "air" or "vacuum".
        low, high: window in Å of the medium; spectra are cut to it.
        sampling: λ/Δλ of a log-λ grid to resample onto; by default the files' own wavelengths.
        resolution: λ/FWHM of the broadening in the spectra.
        wavelength: of a network: a ``.npy`` or ``.npz`` file of its pixels, Å.
        names: of a network: its labels, in the order of its inputs.
        space: of a network: its labels with the bounds that it takes as 0 and 1.
        wavelength_scale: what a TransformerPayne of others was given as wavelength: "linear" (Å) or "log10" (of Å).

    Raises:
        GridError, WavelengthError: for what no spectrum can have.
    """

    labels: Path | None = None
    medium: str | None = None
    low: float | None = None
    high: float | None = None
    sampling: float | None = None
    resolution: float | None = None
    wavelength: Path | None = None
    names: tuple[str, ...] | None = None
    space: LabelSpace | None = None
    wavelength_scale: str | None = None

    def __post_init__(self) -> None:
        if self.medium is not None:
            check_medium(self.medium)
        low, high = self.low or 0.0, np.inf if self.high is None else self.high
        if not 0 <= low < high:
            raise WavelengthError(f"--low {self.low} and --high {self.high} leave no wavelengths between them")
        for name in ("sampling", "resolution"):
            value = getattr(self, name)
            if value is not None and not 1 < value < np.inf:
                raise WavelengthError(f"--{name} {value:g} must be larger than 1: it is λ/Δλ, such as 20000")


@dataclass(frozen=True)
class ForeignSpectrum:
    """One spectrum as its file has it.

    Args:
        wavelength: (m,) Å, increasing, in the grid's medium.
        flux: (m,) normalised or absolute, as the grid says.
        continuum: (m,) absolute; None where the file has none.
    """

    wavelength: Float64[np.ndarray, " m"]
    flux: Float[np.ndarray, " m"]
    continuum: Float[np.ndarray, " m"] | None = None


@dataclass(frozen=True)
class ForeignGrid:
    """What every reader of spectra returns: labels of all spectra now, and each spectrum when its row is asked for.

    Args:
        names: what the labels are called, by the canonical names of ``labels/`` where they are known.
        labels: (n, n_labels) float64.
        files: (n,) what each spectrum is called.
        medium: "air" or "vacuum".
        row: reads one spectrum; raises StarpayneError with the reason where it cannot be used.
        absolute: whether ``flux`` is absolute rather than divided by its continuum; None to tell it from its numbers.
        scale: what makes erg s⁻¹ cm⁻² Å⁻¹ at the stellar surface of absolute numbers; None to tell it from Teff.
        resolution: λ/FWHM of the broadening in the spectra.
        physics: flags of what they leave out.
        provenance: code, licence, citation; plain JSON data.
        left_out: file and reason of what could not become a row, as its labels are not known.
        space, split: where the source has its own; the labels' ranges and a shuffled split otherwise.
    """

    names: tuple[str, ...]
    labels: Float64[np.ndarray, "n labels"]
    files: tuple[str, ...]
    medium: str
    row: Callable[[int], ForeignSpectrum]
    absolute: bool | None
    scale: float | None = None
    resolution: float | None = None
    physics: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    left_out: tuple[tuple[str, str], ...] = ()
    space: LabelSpace | None = None
    split: Split | None = None


@dataclass(frozen=True)
class Format:
    """One kind of file that can be imported.

    Args:
        name: as ``--format`` takes it.
        kind: whether spectra ("grid") or a trained network ("model") come out.
        description: a line of help.
        recognises: looks at names and first bytes only.
        read: the spectra, or the model.
    """

    name: str
    kind: Literal["grid", "model"]
    description: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path, ImportOptions], ForeignGrid | Model]


def stated_medium(options: ImportOptions, stated: str | None, source: str) -> str:
    """Return the medium that a file states, or that the user does.

    Raises:
        GridError: if nobody says it, or both say different things.
    """
    if stated is None and options.medium is None:
        raise GridError(f"{source} does not say whether its wavelengths are in air or vacuum; give --medium")
    if stated and options.medium and stated != options.medium:
        raise GridError(f"{source} has wavelengths in {stated}; --medium {options.medium} contradicts it")
    return stated or options.medium or ""
