"""Other people's grids, written as they write them: small, in their true layout, by black bodies with a few lines."""

from __future__ import annotations

import bz2
import gzip
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from starpayne.importers.surface import planck_flux
from starpayne.wavelengths import log_grid

POINTS = tuple(itertools.product((5000.0, 5500.0, 6000.0, 6500.0), (3.5, 4.5), (-0.5, 0.0, 0.5)))
"""Teff, log g and [Fe/H] of 24 stars."""

WINDOW = log_grid(5000.0, 5060.0, 40_000)
WHOLE = np.concatenate([np.geomspace(500.0, 4999.9, 400), WINDOW, np.geomspace(5061.0, 320_000.0, 800)])
"""Wavelengths of a whole library, which carry all of a star's light; fine in one window only."""


def normalised(wavelength: np.ndarray, point: Sequence[float]) -> np.ndarray:
    """Three lines whose depths follow the labels, one of them strong."""
    teff, logg, feh = point[:3]
    depths = (0.3 + 0.2 * feh, 0.6 * (5000 / teff) ** 2, 0.1 + 0.04 * logg)
    lines = zip((5010.0, 5030.0, 5050.0), depths, (0.3, 1.2, 0.2), strict=True)
    return 1 - sum(d * np.exp(-0.5 * ((wavelength - at) / width) ** 2) for at, d, width in lines)


def surface_flux(wavelength: np.ndarray, point: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Flux and continuum at the surface in erg s⁻¹ cm⁻² Å⁻¹."""
    continuum = planck_flux(wavelength, point[0])
    return continuum * normalised(wavelength, point), continuum


def signed(value: float) -> str:
    return f"{value:+.1f}" if value else "-0.0"


def write_phoenix(folder: Path, points: Sequence[Sequence[float]] = POINTS, alpha: float = 0.0) -> list[Path]:
    """The Göttingen layout: wavelengths above subfolders of metallicity; flux per cm, big-endian float32."""
    from astropy.io import fits

    folder.mkdir(parents=True, exist_ok=True)
    fits.PrimaryHDU(WHOLE).writeto(folder / "WAVE_PHOENIX-ACES-AGSS-COND-2011.fits", overwrite=True)
    paths = []
    for teff, logg, feh in points:
        part = f".Alpha={alpha:+.2f}" if alpha else ""
        inner = folder / f"Z{signed(feh)}{part}"
        inner.mkdir(exist_ok=True)
        flux, _ = surface_flux(WHOLE, (teff, logg, feh))
        hdu = fits.PrimaryHDU((flux * 1e8).astype(">f4"))
        hdu.header.update(
            {"PHXTEFF": teff, "PHXLOGG": logg, "PHXM_H": feh, "PHXALPHA": alpha, "PHXXI_L": 1 + teff / 1e4}
        )
        path = inner / f"lte{teff:05.0f}-{logg:.2f}{signed(feh)}{part}.PHOENIX-ACES-AGSS-COND-2011-HiRes.fits"
        hdu.writeto(path)
        paths.append(path)
    return paths


def write_bosz_2024(folder: Path, wavelengths: Path, resolution: str = "10000") -> list[Path]:
    """Two columns of Eddington flux H = F / 4π and its continuum; the wavelengths in a file of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    wavelengths.mkdir(parents=True, exist_ok=True)
    resampled = resolution != "orig"
    if resampled:
        np.savetxt(wavelengths / f"bosz2024_wave_r{resolution}.txt", WHOLE, fmt="%.6f")
    paths = []
    for teff, logg, feh in POINTS:
        columns = np.stack(surface_flux(WHOLE, (teff, logg, feh)), axis=1) / (4 * np.pi)
        name = f"bosz2024_mp_t{teff:.0f}_g{logg:+.1f}_m{feh:+.2f}_a+0.00_c+0.25_v2_r{resolution}"
        path = folder / (name + ("_resam.txt.gz" if resampled else "_noresam.txt.gz"))
        with gzip.open(path, "wt", compresslevel=1) as file:
            np.savetxt(file, columns if resampled else np.column_stack([WHOLE, columns]), fmt="%.6e")
        paths.append(path)
    return paths


def write_bosz_2017(folder: Path, ascii: bool = False) -> list[Path]:
    """A binary table of wavelength, surface brightness H = F / π and continuum; or the same as packed text."""
    from astropy.table import Table

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for teff, logg, feh in POINTS:
        flux, continuum = (x / np.pi for x in surface_flux(WHOLE, (teff, logg, feh)))
        sign = "m" if feh < 0 else "p"
        name = f"am{sign}{abs(feh) * 10:02.0f}cp00op03t{teff:.0f}g{logg * 10:.0f}v20modrt0b5000rs"
        if ascii:
            path = folder / f"{name}.asc.bz2"
            with bz2.open(path, "wt", compresslevel=1) as file:
                np.savetxt(file, np.column_stack([WHOLE, flux, continuum]), fmt="%.8e")
        else:
            path = folder / f"{name}.fits"
            Table({"Wavelength": WHOLE, "SpecificIntensity": flux, "Continuum": continuum}).write(path)
        paths.append(path)
    return paths


def write_turbospectrum(folder: Path, comments: bool = False, table: bool = False) -> list[Path]:
    """Result files with five digits; TSFitPy's comments above them, or its table beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    paths, rows = [], ["specname,rv,teff,logg,feh,vmic,Mg_Fe"]
    wavelength = np.round(np.arange(5000.0, 5060.0, 0.05), 3)
    for i, (teff, logg, feh) in enumerate(POINTS):
        flux, continuum = surface_flux(wavelength, (teff, logg, feh))
        lines = [f"{w:10.3f}  {n:8.5f}  {f:.5e}" for w, n, f in zip(wavelength, flux / continuum, flux, strict=True)]
        head = [
            "#Generated using TurboSpectrum and TSFitPy wrapper", "#date: 2025-03-03 10:04:18.787979",
            f"#spectrum_name: {i}.spec", f"#teff: {teff}", f"#logg: {logg}", f"#[Fe/H]: {feh}", "#vmic: 1.0",
            "#vmac: 0.0", "#resolution: 0.0", "#rotation: 0.0", "#nlte_flag: False", f"#[Mg/Fe]={feh / 2:.4f} LTE",
            "#[Fe/Fe]=0.0 (solar scaled) LTE", "#", "#Wavelength Normalised_flux Unnormalised_flux",
        ]  # fmt: skip
        path = folder / f"{i}.spec"
        path.write_text("\n".join([*(head if comments else []), *lines, ""]))
        paths.append(path)
        rows.append(f"{i}.spec,0.0,{teff},{logg},{feh},1.0,{feh / 2}")
    if table:
        (folder / "spectra_parameters.csv").write_text("\n".join(rows) + "\n")
    return paths


def write_starfish(path: Path, norm: bool, old: bool = False, **changes: Any) -> Path:
    """What ``HDF5Creator`` writes: ``wl``, ``grid_points`` and a group of arrays that ``key_name`` names."""
    import h5py

    solar = 3.839e33 / (4 * np.pi * 6.955e10**2)
    key = changes.get("key_name", "T{0:.0f}_g{1:.2f}_Z{2:.2f}")
    with h5py.File(path, "w") as file:
        file.attrs["grid_name"] = "PHOENIX"
        wl = file.create_dataset("wl", data=WINDOW, compression=9)
        wl.attrs.update({"air": True, "dv": 7.5, "units": "AA"})
        group = file.create_group("flux")
        group.attrs["units"] = "erg/s/cm^2/cm"
        if not old:
            group.attrs["key_name"] = key
        for point in POINTS:
            flux, _ = surface_flux(WINDOW, point)
            stored = flux * solar / (5.670374419e-5 * point[0] ** 4) if norm else flux * 1e8
            name = f"T{point[0]:.0f}_g{point[1]:.2f}_Z{point[2]:.2f}"
            array = group.create_dataset(name, data=stored, compression=9)
            array.attrs["norm"] = norm
        points = file.create_dataset("pars" if old else "grid_points", data=np.array(POINTS), compression=9)
        if not old:
            points.attrs["names"] = ["T", "logg", "Z"]
    return path


def write_korg_hdf5(path: Path, julia: bool = False, rectified: bool = True) -> Path:
    """Arrays of all spectra, as h5py has them or transposed, as HDF5.jl writes a Julia matrix; continuum per cm."""
    import h5py

    flux, continuum = (np.array(x) for x in zip(*(surface_flux(WINDOW, p) for p in POINTS), strict=True))
    arrays = {
        "flux": flux / continuum if rectified else flux * 1e8,
        "cntm": continuum * 1e8,
        "labels": np.array(POINTS),
    }
    with h5py.File(path, "w") as file:
        file["wavelengths"] = WINDOW
        for name, array in arrays.items():
            file[name] = array.T if julia else array
        file["label_names"] = ["Teff", "logg", "m_H"]
    return path


def write_texts(folder: Path, columns: int = 2, header: str = "", ending: str = "txt") -> list[Path]:
    """Text files of wavelength, normalised flux and perhaps continuum (per cm, as Korg has it), and no table."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i, point in enumerate(POINTS):
        flux, continuum = surface_flux(WINDOW, point)
        table = np.column_stack([WINDOW, flux / continuum, continuum * 1e8])[:, :columns]
        path = folder / f"{i}.{ending}"
        np.savetxt(path, table, header=header, comments="", delimiter="," if ending == "csv" else "\t", fmt="%.9e")
        paths.append(path)
    return paths


def write_payne(path: Path, **arrays: Any) -> Path:
    """The Payne's training set: 25 labels (25, n) with Teff in 1000 K, [X/H], and wavelengths in a file beside it."""
    values = np.zeros((25, len(POINTS)))
    points = np.array(POINTS)
    values[0], values[1], values[2] = points[:, 0] / 1000, points[:, 1], 1.5
    values[3:23] = points[:, 2]
    values[7] += np.linspace(-0.3, 0.3, len(POINTS))  # magnesium on its own
    values[23] = 30.0
    spectra = np.array([normalised(WINDOW, p) for p in POINTS], dtype=np.float32)
    np.savez(path, **{"labels": values, "spectra": spectra, **arrays})
    np.savez(path.with_name("apogee_wavelength.npz"), wavelength=WINDOW)
    return path


def write_table(path: Path, files: Sequence[Path] | None, **columns: Any) -> Path:
    """A table of labels, with a column of files or without."""
    values: Mapping[str, Any] = columns or dict(zip(("Teff", "logg", "[Fe/H]"), np.array(POINTS).T, strict=True))
    head = [*(["file"] if files else []), *values]
    rows = [[*([files[i].name] if files else []), *(v[i] for v in values.values())] for i in range(len(POINTS))]
    path.write_text("\n".join(",".join(map(str, row)) for row in [head, *rows]) + "\n")
    return path
