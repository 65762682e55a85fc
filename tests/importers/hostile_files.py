"""Damage files of other codes in every way: ``python hostile_files.py SCRATCH TRIES``.

Run in a process of its own, without the run-time type checks of the tests, which users do not have. Each change must
end in a grid, a model, or an error of starpayne's own; and take no memory.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import foreign_grids
import foreign_networks
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from starpayne.errors import StarpayneError
from starpayne.importers import ImportOptions, import_any

SCRATCH, TRIES = Path(sys.argv[1]), int(sys.argv[2])
MEMORY = 2**30


def peak() -> int:
    """Most bytes that this process has held. Not ru_maxrss: a child begins with its parent's."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def payne_network(folder: Path) -> Path:
    arrays = foreign_networks.payne_arrays()
    np.savez(folder / "network.npz", **arrays)
    np.save(folder / "wavelength.npy", np.linspace(5000, 5010, len(arrays["b_array_2"])))
    return folder / "network.npz"


def inside(write: Callable[[Path], object], name: str = "") -> Callable[[Path], Path]:
    def made(folder: Path) -> Path:
        write(folder / name if name else folder)
        return folder / name if name else folder

    return made


def plain_fits(folder: Path) -> Path:
    from astropy.io import fits
    from astropy.table import Table

    files = []
    for i, point in enumerate(foreign_grids.POINTS):
        flux = foreign_grids.normalised(foreign_grids.WINDOW, point)
        files.append(folder / f"{i}.fits")
        if i % 2:
            Table({"wavelength": foreign_grids.WINDOW, "flux": flux}).write(files[-1])
        else:
            step = np.diff(foreign_grids.WINDOW)[0]
            header = fits.Header({"CRVAL1": foreign_grids.WINDOW[0], "CDELT1": step, "CRPIX1": 1.0})
            fits.PrimaryHDU(flux.astype(">f4"), header).writeto(files[-1])
    foreign_grids.write_table(folder / "labels.csv", files)
    return folder


SOURCES: dict[str, Callable[[Path], Path]] = {
    "phoenix": inside(foreign_grids.write_phoenix),
    "bosz": inside(lambda p: foreign_grids.write_bosz_2024(p, p)),
    "turbospectrum": inside(lambda p: foreign_grids.write_turbospectrum(p, comments=True)),
    "starfish": inside(lambda p: foreign_grids.write_starfish(p, norm=True), "grid.hdf5"),
    "korg": inside(foreign_grids.write_korg_hdf5, "korg.h5"),
    "payne-training": inside(foreign_grids.write_payne, "training.npz"),
    "payne-network": payne_network,
    "spectra": plain_fits,
}
OPTIONS = {
    "payne-network": ImportOptions(medium="vacuum", names=foreign_networks.NAMES),
    "spectra": ImportOptions(medium="air", sampling=20_000),
}


@settings(max_examples=TRIES, deadline=None, database=None, derandomize=TRIES < 1000)
@given(
    name=st.sampled_from(sorted(SOURCES)), which=st.integers(0, 10**6), position=st.integers(0, 10**9),
    new=st.binary(max_size=16), length=st.integers(0, 64), cut=st.booleans(),
)  # fmt: skip
def any_bytes_of_any_file_may_be_others(
    name: str, which: int, position: int, new: bytes, length: int, cut: bool
) -> None:
    work = SCRATCH / "work"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(SCRATCH / name, work)
    files = sorted(path for path in work.rglob("*") if path.is_file())
    file = files[which % len(files)]
    whole = bytearray(file.read_bytes())
    # Headers decide more than numbers do: half of the changes are in the first kilobyte.
    position %= min(len(whole), 1024) if which % 2 else len(whole)
    whole[position : position + length] = new
    file.write_bytes(bytes(whole[:position] if cut else whole))
    before = peak()
    try:
        import_any(
            work / STARTS[name],
            SCRATCH / f"out-{name}",
            options=OPTIONS.get(name, ImportOptions()),
            overwrite=True,
            format=name,
        )
    except StarpayneError as error:
        if len(str(error)) > 3000:
            raise AssertionError(f"not one sentence: {error}") from error
    taken = peak() - before
    if taken > MEMORY:
        raise AssertionError(f"{taken / 2**20:.0f} MB were taken")


STARTS: dict[str, Path] = {}


if __name__ == "__main__":
    for key, write in SOURCES.items():
        folder = SCRATCH / key
        folder.mkdir(parents=True)
        STARTS[key] = write(folder).relative_to(folder)
        import_any(
            folder / STARTS[key],
            SCRATCH / f"out-{key}",
            options=OPTIONS.get(key, ImportOptions()),
            overwrite=True,
            format=key,
        )
    any_bytes_of_any_file_may_be_others()
    print("refused or imported")
