"""Write a predicted spectrum to a file that other programs read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from starpayne.emulators import Prediction
from starpayne.errors import SpectrumError
from starpayne.files import write_bytes

FORMATS = (".csv", ".txt", ".fits", ".npz")
MEANING = {
    "flux": "flux normalised to the continuum",
    "intensity": "intensity times pi over the continuum flux",
}


def write_spectrum(path: Path, prediction: Prediction, labels: Mapping[str, float]) -> None:
    """Write wavelength (Å, float64) and normalised flux or intensity of one spectrum, with labels, medium and flags.

    Raises:
        SpectrumError: for a suffix that is not one of .csv, .txt, .fits, .npz.
    """
    suffix = path.suffix.lower()
    columns = _columns(prediction)
    if suffix in (".csv", ".txt"):
        write_bytes(path, as_text(prediction, labels, "," if suffix == ".csv" else " ").encode())
    elif suffix == ".npz":
        with path.open("wb") as file:
            facts = {"medium": prediction.medium, "names": list(labels), "labels": list(labels.values())}
            np.savez(file, allow_pickle=False, **columns, **{name: np.array(value) for name, value in facts.items()})
    elif suffix == ".fits":
        from astropy.table import Table

        meta = {"MEDIUM": prediction.medium, "FLAGS": ",".join(prediction.flags[0])}
        meta |= {f"HIERARCH {name}": value for name, value in labels.items()}
        table = Table(columns, units={"wavelength": "Angstrom"}, meta=meta)
        table.write(path, format="fits", overwrite=True)
    else:
        raise SpectrumError(f"{path.name}: spectra are written as {', '.join(FORMATS)}; the suffix decides")


def as_text(prediction: Prediction, labels: Mapping[str, float], separator: str = ",") -> str:
    """Return one spectrum as a table in text, headed by comments that say what it is."""
    columns = _columns(prediction)
    head = [
        f"# wavelength in Angstrom ({prediction.medium}); {MEANING[prediction.quantity]}",
        "# " + ", ".join(f"{name} = {value:g}" for name, value in labels.items()),
        *(f"# flag: {flag}" for flag in prediction.flags[0]),
        separator.join(columns),
    ]
    values = zip(*columns.values(), strict=True)
    rows = [separator.join([f"{row[0]:.6f}", *(f"{v:.7g}" for v in row[1:])]) for row in values]
    return "\n".join([*head, *rows]) + "\n"


def _columns(prediction: Prediction) -> dict[str, np.ndarray]:
    columns = {"wavelength": prediction.wavelength, prediction.quantity: prediction.flux}
    return columns if prediction.continuum is None else columns | {"continuum": prediction.continuum}
