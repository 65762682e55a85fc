"""Starfish: the HDF5 grid that its HDF5Creator makes of a raw library (Czekala et al. 2015, ApJ 812, 128)."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from starpayne.errors import GridError
from starpayne.importers.formats import MAX_PIXELS, ForeignGrid, ForeignSpectrum, Format, ImportOptions, stated_medium
from starpayne.importers.hdf5files import dataset, has, is_hdf5, member, numbers, opened, texts
from starpayne.importers.names import canonical_labels
from starpayne.importers.surface import PER_CM, STEFAN_BOLTZMANN

POINTS = ("grid_points", "pars")
"""Labels of all spectra: in version 0.3, and before."""

ORDER = ("T", "logg", "Z", "alpha")
"""Parameters of the files that do not name them."""

MEANS = {"T": "teff", "temp": "teff", "Z": "feh", "alpha": "alpha_fe"}
"""Names that would not be clear anywhere else: Z is no mass fraction here."""

SOLAR_FLUX = 3.839e33 / (4 * np.pi * 6.955e10**2)
"""erg s⁻¹ cm⁻²: the bolometric flux that Starfish gives to every spectrum unless told otherwise."""

FIELD = re.compile(r"\{(?P<index>\d?):?(?P<fill>0?[><]?)(?P<width>\d?)\.(?P<digits>\d)f\}")
"""``{0:.0f}``, ``{1:0>5.0f}``, ``{:.2f}``: what ``key_name`` is made of."""


def recognises(source: Path) -> bool:
    if not is_hdf5(source):
        return False
    with opened(source) as file:
        return has(file, "wl", "flux") and any(has(file, name) for name in POINTS)


def read(source: Path, options: ImportOptions) -> ForeignGrid:
    """Read ``wl``, ``grid_points`` (``pars`` in old files) and the group ``flux``, whose ``key_name`` names its arrays.

    Where Starfish gave every spectrum the bolometric flux of the Sun (``norm``), Teff gives the surface flux back.

    Raises:
        GridError: for other shapes, units or names, or links that lead out of the file.
        MissingExtraError: if h5py is not installed.
    """
    with opened(source) as file:
        wavelength = numbers(file, "wl", 1)
        if len(wavelength) > MAX_PIXELS:
            raise GridError(
                f"{source.name} has {len(wavelength):,} wavelengths; no library has more than {MAX_PIXELS:,}"
            )
        axis = member(file, "wl").attrs
        unit = texts(axis["units"])[0] if "units" in axis else "AA"
        if unit.lower() not in ("aa", "angstrom", "a", ""):
            raise GridError(f"{source.name}: wavelengths in {unit!r}; only Å can be imported")
        points = next((name for name in POINTS if has(file, name)), POINTS[0])
        values = numbers(file, points, 2)
        stated = member(file, points).attrs
        names = texts(stated["names"]) if "names" in stated else list(ORDER[: values.shape[1]])
        if len(names) != values.shape[1]:
            raise GridError(f"{source.name}: {len(names)} parameters are named, and {points} has shape {values.shape}")
        group = member(file, "flux")
        if not hasattr(group, "keys"):
            raise GridError(f"{source.name}: 'flux' is an array, and Starfish has a group of arrays there")
        pattern = texts(group.attrs["key_name"])[0] if "key_name" in group.attrs else ""
        keys = [key_of(pattern, point) for point in values] if pattern else _keys_by_order(group, values, source)
        said = texts(group.attrs["units"])[0] if "units" in group.attrs else ""
        norm = _solar(group, keys)
        library = texts(file.attrs["grid_name"])[0] if "grid_name" in file.attrs else "not said"
        air = axis.get("air")
    medium = stated_medium(options, None if air is None else ("air" if bool(air) else "vacuum"), source.name)
    known, labels = canonical_labels([MEANS.get(name, name) for name in names], values, source.name)
    if norm and "teff" not in known:
        raise GridError(f"{source.name}: all spectra have one bolometric flux, and there is no Teff to undo it with")
    factors = labels[:, known.index("teff")] ** 4 * STEFAN_BOLTZMANN / SOLAR_FLUX if norm else np.ones(len(labels))
    scale = 1.0 if norm else PER_CM if said.replace(" ", "").endswith("/cm^2/cm") else None

    def row(i: int) -> ForeignSpectrum:
        with opened(source) as file:
            found = dataset(member(file, "flux"), keys[i])
            if found.shape != wavelength.shape or found.dtype.kind not in "fiu":
                raise GridError(f"shape {found.shape}, and there are {len(wavelength)} wavelengths")
            return ForeignSpectrum(wavelength, np.asarray(found[()], dtype=np.float64) * factors[i])

    return ForeignGrid(
        names=known,
        labels=labels,
        files=tuple(keys),
        medium=medium,
        row=row,
        absolute=True,
        scale=scale,
        physics=("lte",) if library.lower().startswith("phoenix") else (),
        provenance={"engine": "Starfish", "library": library, "cite": "Czekala et al. 2015, ApJ 812, 128"},
    )


def key_of(pattern: str, point: np.ndarray) -> str:
    """Return the name of a spectrum's array; only numbers with fixed digits may stand in the pattern.

    A pattern from a file is never given to ``str.format``, whose fields may reach into objects and ask for any width.

    Raises:
        GridError: for any other pattern.
    """
    pieces, end, count = [], 0, 0
    for field in FIELD.finditer(pattern):
        index = int(field["index"]) if field["index"] else count
        if index >= len(point):
            raise GridError(f"key_name {pattern!r} has a field {index}, and there are {len(point)} parameters")
        number = f"{point[index]:.{field['digits']}f}"
        width = int(field["width"] or 0)
        fill = "0" if field["fill"].startswith("0") else " "
        pieces += [pattern[end : field.start()], number.rjust(width, fill) if width else number]
        end, count = field.end(), count + 1
    key = "".join([*pieces, pattern[end:]])
    if count == 0 or "{" in key or "}" in key:
        raise GridError(f"key_name {pattern!r} is not understood; fields like {{0:.0f}} are")
    return key


def _keys_by_order(group: Any, values: np.ndarray, source: Path) -> list[str]:
    """Return the arrays of an old file, which states no pattern, by the numbers in their names."""
    by_numbers: dict[tuple[float, ...], str] = {}
    for name in group:
        found = tuple(float(x) for x in re.findall(r"-?\d+(?:\.\d+)?", str(name)))
        by_numbers[found] = str(name)
    keys = [by_numbers.get(tuple(float(x) for x in point)) for point in values]
    if None in keys:
        point = values[keys.index(None)].tolist()
        raise GridError(
            f"{source.name}: no array of 'flux' is named by the parameters {point}, and there is no key_name"
        )
    return [key for key in keys if key is not None]


def _solar(group: Any, keys: list[str]) -> bool:
    """Return whether the spectra were given the Sun's bolometric flux: ``norm`` of the first one."""
    for key in keys:
        with suppress(GridError):  # a row that fails when it is read
            return bool(member(group, key).attrs.get("norm", False))
    return False


FORMAT = Format("starfish", "grid", "the HDF5 grid that Starfish's grid tools make", recognises, read)
