"""Write a predicted spectrum to a file that other programs read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from starpayne.emulators import Prediction
from starpayne.errors import SpectrumError
from starpayne.files import write_bytes

FORMATS = (".csv", ".txt", ".fits", ".npz")


def write_spectrum(path: Path, prediction: Prediction, labels: Mapping[str, float]) -> None:
    """Write wavelength (Å, float64) and normalised flux of one predicted spectrum, with labels, medium and flags.

    Raises:
        SpectrumError: for a suffix that is not one of .csv, .txt, .fits, .npz.
    """
    suffix = path.suffix.lower()
    columns = {"wavelength": prediction.wavelength, "flux": prediction.flux}
    if prediction.continuum is not None:
        columns["continuum"] = prediction.continuum
    if suffix in (".csv", ".txt"):
        separator = "," if suffix == ".csv" else " "
        head = [
            f"# wavelength in Angstrom ({prediction.medium}); flux normalised to the continuum",
            "# " + ", ".join(f"{name} = {value:g}" for name, value in labels.items()),
            *(f"# flag: {flag}" for flag in prediction.flags[0]),
            separator.join(columns),
        ]
        rows = [separator.join([f"{row[0]:.6f}", *(f"{v:.7g}" for v in row[1:])]) for row in zip(*columns.values(), strict=True)]
        write_bytes(path, ("\n".join([*head, *rows]) + "\n").encode())
    elif suffix == ".npz":
        with path.open("wb") as file:
            np.savez(file, **columns, medium=np.array(prediction.medium), labels=np.array(list(labels.values())),
                     names=np.array(list(labels)))  # fmt: skip
    elif suffix == ".fits":
        from astropy.table import Table

        table = Table(columns)
        table["wavelength"].unit = "Angstrom"
        table.meta.update({"MEDIUM": prediction.medium, "FLAGS": ",".join(prediction.flags[0])})
        table.meta.update({f"HIERARCH {name}": value for name, value in labels.items()})
        table.write(path, format="fits", overwrite=True)
    else:
        raise SpectrumError(f"{path.name}: spectra are written as {', '.join(FORMATS)}; the suffix decides")
