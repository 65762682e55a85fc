"""Foreign spectra become a grid: label space, split, normalisation, provenance, and failed rows with their reasons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from starpayne.errors import GridError, OutputExistsError, StarpayneError
from starpayne.files import refuse_foreign, remove, remove_output
from starpayne.grid import MAX_CHUNK, Failure, Grid
from starpayne.importers.continuum import METHOD, pseudo_continuum
from starpayne.importers.formats import MAX_PIXELS, ForeignGrid, ForeignSpectrum, ImportOptions
from starpayne.importers.resampling import Resampler
from starpayne.importers.space import DEFAULT_SPLIT, shuffled_split, space_of, undersampled, with_known_labels
from starpayne.importers.surface import UNITS, is_normalised, scale_of
from starpayne.wavelengths import check_wavelength, log_grid, sampling_of

BLOCK = 32 * 2**20
"""Bytes of flux that are held in memory and written at once; a chunk on disk is no larger either."""


@dataclass(frozen=True)
class Target:
    """The wavelengths (m,) of the grid in Å, and whether spectra are resampled onto them."""

    wavelength: Float64[np.ndarray, " m"]
    resample: bool


class OtherWavelengths(GridError):
    """A spectrum has not the wavelengths of the others."""


def build_grid(
    foreign: ForeignGrid,
    path: Path,
    options: ImportOptions,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Grid:
    """Write foreign spectra as a grid, a block at a time; it appears whole or not at all.

    Absolute fluxes are divided by their continuum, or by a pseudo-continuum where they come without one, and the
    continuum is stored as surface flux. A spectrum that cannot be used is a failed row with its reason.

    Args:
        foreign: what a reader returned.
        path: the grid to make.
        options: window and sampling.
        overwrite: replace a grid that stands at ``path``.
        progress: called with the number of spectra done and of all.

    Raises:
        OutputExistsError, GridError, LabelError, WavelengthError.
    """
    if path.exists():
        if not overwrite:
            raise OutputExistsError(f"{path} exists; give another path, or --overwrite to replace it")
        refuse_foreign(path, "zarr.json")
    foreign = with_known_labels(foreign)
    first = _first(foreign)
    target = _target(first[1].wavelength, options)
    foreign = _scaled(foreign, first)
    draft = path.with_name(path.name + ".importing")
    remove(draft)
    try:
        grid = _laid_out(foreign, first[1], draft, target, options)
        _fill(grid, foreign, target, progress)
        if path.exists():
            remove_output(path, "zarr.json")
        draft.rename(path)
    finally:
        remove(draft)
    return Grid.open(path, writable=True)


def _first(foreign: ForeignGrid) -> tuple[int, ForeignSpectrum]:
    """Return the first row that can be read, and its spectrum."""
    reason = ""
    for row in range(len(foreign.labels)):
        try:
            return row, _read(foreign, row)
        except StarpayneError as error:
            reason = reason or f"{foreign.files[row]}: {error}"
    raise GridError(f"none of the {len(foreign.labels)} spectra can be read; the first one is {reason}")


def _read(foreign: ForeignGrid, row: int) -> ForeignSpectrum:
    spectrum = foreign.row(row)
    for name, values in (("flux", spectrum.flux), ("continuum", spectrum.continuum)):
        if values is not None and values.shape != spectrum.wavelength.shape:
            raise GridError(f"{values.size} values of {name} and {spectrum.wavelength.size} wavelengths")
    if spectrum.wavelength.size > MAX_PIXELS:
        raise GridError(f"{spectrum.wavelength.size:,} wavelengths are more than the {MAX_PIXELS:,} that can be taken")
    if spectrum.wavelength.size < 4:
        raise GridError(f"{spectrum.wavelength.size} wavelengths are no spectrum")
    if not np.all(np.diff(spectrum.wavelength) > 0):
        raise GridError("its wavelengths do not increase")
    return spectrum


def _target(own: Float64[np.ndarray, " m"], options: ImportOptions) -> Target:
    if own[-1] > 3000:  # in Å, then; what lies below 900 Å no emulator takes
        own = own[own >= 900]
    inside = own[(own >= (options.low or 0.0)) & (own <= (options.high or np.inf))]
    if len(inside) < 4:
        raise GridError(
            f"the window holds {len(inside)} wavelengths; the spectra go from {own[0]:.2f} to {own[-1]:.2f} Å"
        )
    check_wavelength(inside)
    if options.sampling is None:
        return Target(inside, resample=False)
    low, high = max(options.low or 0.0, float(own[0])), min(options.high or np.inf, float(own[-1]))
    if (size := np.log(high / low) * options.sampling) > MAX_PIXELS:
        raise GridError(f"--sampling {options.sampling:g} makes {size:,.0f} wavelengths, more than {MAX_PIXELS:,}")
    return Target(log_grid(low, high, options.sampling), resample=True)


def _scaled(foreign: ForeignGrid, first: tuple[int, ForeignSpectrum]) -> ForeignGrid:
    """Tell from their numbers whether fluxes are absolute, and in which unit, where the source does not say it."""
    row, spectrum = first
    if foreign.absolute is None:
        foreign = replace(foreign, absolute=not is_normalised(spectrum.flux))
    absolute = spectrum.continuum if spectrum.continuum is not None else spectrum.flux if foreign.absolute else None
    if foreign.scale is not None or absolute is None:
        return foreign
    teff = dict(zip(foreign.names, foreign.labels[row], strict=True)).get("teff")
    scale = None if teff is None else scale_of(spectrum.wavelength, absolute, float(teff))
    said = f"{UNITS[scale]}, told by its brightness" if scale else "unknown; no continuum is stored"
    return replace(foreign, scale=scale, provenance={**foreign.provenance, "unit": said})


def _laid_out(foreign: ForeignGrid, first: ForeignSpectrum, path: Path, target: Target, options: ImportOptions) -> Grid:
    space, columns, held = space_of(foreign)
    labels, wavelength = foreign.labels[:, columns], target.wavelength
    coarsest = sampling_of(wavelength)
    resolution = foreign.resolution if options.resolution is None else options.resolution
    provenance: dict[str, Any] = dict(foreign.provenance)
    if foreign.space is None:
        physics = [*foreign.physics, *(("undersampled",) if undersampled(foreign, coarsest, resolution) else ())]
        if foreign.absolute and first.continuum is None:
            physics.append("pseudo_continuum")
            provenance["continuum"] = METHOD
        provenance |= {"physics": physics, "fixed": held, "files": len(foreign.files)}
        provenance |= {"resampled": f"onto λ/Δλ = {options.sampling:g}"} if target.resample else {}
        provenance |= {"left_out": [list(x) for x in foreign.left_out[:100]]} if foreign.left_out else {}
        provenance |= {"split": DEFAULT_SPLIT}
    uniform = bool(np.ptp(np.diff(np.log(wavelength))) * coarsest < 1e-3)
    return Grid.create(
        path, space, labels, wavelength,
        medium=foreign.medium,
        split=foreign.split or shuffled_split(len(labels)),
        provenance=provenance,
        sampling=coarsest if uniform or foreign.space is not None else None,
        resolution=resolution,
        continuum=foreign.scale is not None and (foreign.absolute or first.continuum is not None),
        chunk=int(np.clip(BLOCK // (4 * len(wavelength)), 1, MAX_CHUNK)),
    )  # fmt: skip


def _fill(
    grid: Grid,
    foreign: ForeignGrid,
    target: Target,
    progress: Callable[[int, int], None] | None,
) -> None:
    n, failures, others = len(foreign.labels), list[Failure](), 0
    names = grid.space.names
    seen: dict[bytes, str] = {}
    at_once = grid.chunk * max(1, BLOCK // (4 * len(target.wavelength) * grid.chunk))
    for start in range(0, n, at_once):
        rows = range(start, min(start + at_once, n))
        flux = np.full((len(rows), len(target.wavelength)), np.nan, np.float32)
        continuum = np.full_like(flux, np.nan) if grid.has_continuum else None
        for i, row in enumerate(rows):
            try:
                if (twin := seen.get(key := grid.labels[row].tobytes())) is not None and foreign.space is None:
                    raise GridError(f"{twin} has the same labels; a label that tells them apart is missing")
                flux[i], level = _normalised(foreign, _read(foreign, row), target)
                if continuum is not None:
                    continuum[i] = level
                seen[key] = foreign.files[row]
            except StarpayneError as error:
                reason = f"{foreign.files[row]}: {error}"
                others += isinstance(error, OtherWavelengths)
                if others > max(1, n // 10):
                    raise GridError(reason) from error
                flux[i] = np.nan
                failures.append(Failure(row, dict(zip(names, grid.labels[row].tolist(), strict=True)), reason))
            if progress is not None:
                progress(row + 1, n)
        grid.write_block(start, flux, continuum)
    if len(failures) == n:
        raise GridError(f"none of the {n} spectra can be used; the first one is {failures[0].reason}")
    grid.fail(failures)


def _normalised(
    foreign: ForeignGrid, spectrum: ForeignSpectrum, target: Target
) -> tuple[Float32[np.ndarray, " k"], Float32[np.ndarray, " k"]]:
    """Return normalised flux and continuum surface flux (1 where there is none) at the target's wavelengths."""
    own = spectrum.wavelength
    arrays = {"flux": spectrum.flux} | ({} if spectrum.continuum is None else {"continuum": spectrum.continuum})
    kept = (own >= target.wavelength[0] * (1 - 1e-9)) & (own <= target.wavelength[-1] * (1 + 1e-9))
    if target.resample:
        if own[0] > target.wavelength[0] * (1 + 1e-9) or own[-1] < target.wavelength[-1] * (1 - 1e-9):
            raise GridError(f"it goes from {own[0]:.2f} to {own[-1]:.2f} Å and does not cover the window")
        near = _with_margin(kept)
        resample = Resampler(own[near], target.wavelength)
        arrays = {name: resample(_finite(values[near], name)) for name, values in arrays.items()}
    else:
        same = kept.sum() == len(target.wavelength)
        if not same or np.max(np.abs(own[kept] / target.wavelength - 1)) > 1e-8:
            raise OtherWavelengths(
                "its wavelengths are not those of the other spectra; --sampling "
                f"{sampling_of(target.wavelength):.0f} would resample all of them onto one grid"
            )
        arrays = {name: _finite(values[kept], name) for name, values in arrays.items()}
    flux, continuum = arrays["flux"], arrays.get("continuum")
    if np.min(flux) < -1e-3 * np.max(flux) or not np.max(flux) > 0:
        raise GridError(f"its flux goes from {np.min(flux):g} to {np.max(flux):g}: fluxes are positive")
    if continuum is not None and not np.min(continuum) > 0:
        raise GridError("its continuum is not positive everywhere")
    scale = foreign.scale or 1.0
    if not foreign.absolute:
        level = np.ones_like(flux) if continuum is None else scale * continuum
        return flux.astype(np.float32), level.astype(np.float32)
    level = scale * (pseudo_continuum(target.wavelength, flux) if continuum is None else continuum)
    level = level.astype(np.float32)
    if not (np.all(np.isfinite(level)) and np.min(level) > 0):
        raise GridError(f"its absolute flux of {np.max(flux):g} is beyond the numbers that a grid stores")
    # Divided by what is stored, so that the product gives the file's flux back.
    return (scale * flux / level.astype(np.float64)).astype(np.float32), level


def _with_margin(kept: np.ndarray) -> slice:
    """Return the slice of what is kept and two pixels on either side, which interpolation needs."""
    where = np.flatnonzero(kept)
    return slice(max(0, int(where[0]) - 2), int(where[-1]) + 3) if len(where) else slice(0, len(kept))


def _finite(values: np.ndarray, name: str) -> np.ndarray:
    if not np.all(np.isfinite(values)):
        raise GridError(f"its {name} is not finite at {int(np.sum(~np.isfinite(values)))} wavelengths")
    return np.asarray(values, np.float64)
