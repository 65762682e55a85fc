"""PHOENIX: the Göttingen library of high-resolution spectra (Husser et al. 2013, A&A 553, A6)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from starpayne.errors import GridError, StarpayneError
from starpayne.importers.fitsfiles import read_header, read_image
from starpayne.importers.formats import ForeignGrid, ForeignSpectrum, Format, ImportOptions, stated_medium
from starpayne.importers.surface import PER_CM, check_energy
from starpayne.importers.tables import match_files, natural, read_table

WAVELENGTHS = "WAVE_PHOENIX-ACES-AGSS-COND-2011.fits"
SPECTRA = "lte*.PHOENIX-ACES-AGSS-COND-2011-HiRes.fits"
KEYWORDS = {"teff": "PHXTEFF", "logg": "PHXLOGG", "feh": "PHXM_H", "alpha_fe": "PHXALPHA"}
PROVENANCE = {
    "engine": "PHOENIX",
    "library": "PHOENIX-ACES-AGSS-COND-2011, Göttingen Spectral Library",
    "atmosphere": "PHOENIX/1D ACES, spherical",
    "cite": "Husser et al. 2013, A&A 553, A6",
    "unit": "erg s-1 cm-2 cm-1 at the surface",
}


def recognises(source: Path) -> bool:
    return source.is_dir() and next(source.rglob(SPECTRA), None) is not None


def read(source: Path, options: ImportOptions) -> ForeignGrid:
    """Read a folder of spectra, with or without subfolders, and the file of wavelengths in it or above it.

    Teff, log g, [M/H] and [α/M] come from the headers. The microturbulence (PHXXI_L) follows from them in this library,
    so that it is no label; its range is in the provenance.

    Raises:
        GridError: if the wavelengths are missing or contradict the options, or no spectrum is there.
    """
    medium = stated_medium(options, "vacuum", "PHOENIX")
    places = [source, *source.resolve().parents[:2]]
    found = next((place / WAVELENGTHS for place in places if (place / WAVELENGTHS).is_file()), None)
    found = found or next(source.rglob(WAVELENGTHS), None)
    if found is None:
        raise GridError(f"{WAVELENGTHS} is neither in {source} nor above it; the library has it beside the spectra")
    wavelength = read_image(found)
    files = sorted(source.rglob(SPECTRA), key=natural)
    left_out, microturbulence = [], []
    if options.labels is not None:
        table = read_table(options.labels)
        names, (files, labels) = table.names, match_files(table, source, files)
    else:
        names, rows, readable = tuple(KEYWORDS), [], []
        for path in files:
            try:
                header = read_header(path)
                rows.append([_number(header, key, path) for key in KEYWORDS.values()])
                readable.append(path)
                microturbulence.append(header.get("PHXXI_L"))
            except StarpayneError as error:
                left_out.append((path.name, str(error)))
        files, labels = readable, np.array(rows, dtype=np.float64).reshape(-1, len(names))
    teff = labels[:, names.index("teff")] if "teff" in names else None

    def row(i: int) -> ForeignSpectrum:
        flux = read_image(files[i])
        if len(flux) != len(wavelength):
            raise GridError(f"{len(flux)} fluxes and {len(wavelength)} wavelengths of {found.name}")
        if teff is not None and np.all(np.isfinite(flux)):
            check_energy(wavelength, flux * PER_CM, float(teff[i]), files[i].name)
        return ForeignSpectrum(wavelength, flux)

    speeds = [float(x) for x in microturbulence if isinstance(x, (int, float))]
    return ForeignGrid(
        names=names,
        labels=labels,
        files=tuple(path.name for path in files),
        medium=medium,
        row=row,
        absolute=True,
        scale=PER_CM,
        resolution=None,
        physics=("lte",),
        provenance={**PROVENANCE, **({"vmic": [min(speeds), max(speeds)]} if speeds else {})},
        left_out=tuple(left_out),
    )


def _number(header: dict, key: str, path: Path) -> float:
    value = header.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise GridError(f"{path.name} does not say {key}" if value is None else f"{path.name}: {key} = {value!r}")
    return float(value)


FORMAT = Format("phoenix", "grid", "PHOENIX Göttingen HiRes FITS files and their file of wavelengths", recognises, read)
