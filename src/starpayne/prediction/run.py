"""Predict the spectra of a table of labels, chunk by chunk, in memory that does not grow with the table."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from starpayne import bundle
from starpayne.bundle import Model
from starpayne.emulators import Emulator, flags_of
from starpayne.emulators.base import PIECE, predict_in_chunks, room
from starpayne.errors import GridError, OutputExistsError
from starpayne.files import remove_output
from starpayne.grid import MISSING
from starpayne.machine import free_memory
from starpayne.prediction.store import BITS, Predictions
from starpayne.prediction.table import LabelTable
from starpayne.wavelengths import check_wavelength, convert_medium

MOST_MEMORY = 256 * 2**20
"""Bytes that the spectra of one chunk may take while they are made, even where there is more."""

PART = 1 / 8
"""Of the free memory, at most: the machine has other things to do."""

COPIES = 4
"""A spectrum stands in memory so many times while it is predicted and stored."""

MOST_ROWS = 4096
"""Of a chunk: larger batches are no faster, and less is lost when a run is stopped."""


def predict_table(
    model: Model,
    table: str | Path,
    path: str | Path,
    *,
    name: str = "",
    wavelength: ArrayLike | None = None,
    medium: str | None = None,
    extrapolate: bool = False,
    precision: str = "float32",
    memory: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    overwrite: bool = False,
) -> Predictions:
    """Predict a spectrum for every row of a table of labels; run again after a stop, it goes on where it was.

    Rows whose labels are outside the model's range get no spectrum (NaN) and the flag ``not_predicted``; with
    ``extrapolate`` they get one, flagged ``extrapolated``, unless a label is no number.

    Args:
        model: the model.
        table: a .parquet, .csv or .ecsv file with a column for each label, in the model's units.
        path: store to make, or to go on with.
        name: of the model, for the record.
        wavelength: (n,) Å, increasing; by default the model's own.
        medium: of the wavelengths; by default the model's.
        extrapolate: predict outside the model's label range.
        precision: of the matrix products, as of :meth:`starpayne.emulators.Emulator.predict`.
        memory: bytes that the spectra may take while they are made; by default an eighth of what is free, 256 MB at
            most.
        progress: called as ``progress(spectra, of)`` at the start and after every chunk.
        overwrite: replace what stands at the path.

    Raises:
        LabelError: for a table that cannot be used.
        WavelengthError: the wavelengths leave the model's range.
        RecipeError: for a precision that is not known.
        OutputExistsError: the path holds something else, or spectra of another table, model, or other wavelengths.
    """
    path, emulator = Path(path), model.emulator.with_products(precision)
    domain = emulator.domain
    medium = medium or domain.medium
    asked = convert_medium(emulator.native_wavelength, domain.medium, medium) if wavelength is None else wavelength
    asked = check_wavelength(asked)
    own = emulator.native_wavelength if wavelength is None else domain.prepare(asked, medium)
    rows = LabelTable.open(table, emulator.space.names)
    identity = {
        "model": bundle.digest(emulator), "table": rows.digest, "medium": medium, "extrapolate": extrapolate,
        "wavelengths": hashlib.sha256(asked.tobytes()).hexdigest(),
    }  # fmt: skip
    if precision != "float32":
        identity["precision"] = precision
    if overwrite:
        remove_output(path, "zarr.json")
    if path.exists():
        store = _same(path, identity)
    else:
        store = Predictions.lay_out(
            path, rows, emulator.space, asked, medium=medium, quantity=domain.quantity,
            continuum="log10_continuum" in emulator.channels, resolution=domain.resolution, identity=identity,
            chunk=min(
                rows_of_chunk(len(asked), len(emulator.channels), rows.n, memory), rows_of_a_while(emulator, own)
            ),
            provenance={
                "engine": "emulator", "predicted_by": {
                    "name": name, "digest": identity["model"], "architecture": emulator.architecture,
                    "validation": dict(model.validation), "precision": precision,
                },
                "table": rows.path.name, "physics": list(domain.physics),
            },
        )  # fmt: skip
    status = store.status
    if progress is not None:
        progress(0, len(store))
    for first in range(0, len(store), store.chunk):
        place = slice(first, min(first + store.chunk, len(store)))
        if np.any(status[place] == MISSING):
            store.write(first, *_predicted(emulator, store.labels(place), own, extrapolate))
        if progress is not None:
            progress(place.stop, len(store))
    return store


def rows_of_chunk(n_wavelength: int, channels: int, n: int, memory: int | None = None) -> int:
    """Return how many spectra to predict and store at once.

    Args:
        n_wavelength, channels: of a spectrum.
        n: rows of the table.
        memory: bytes that they may take; by default an eighth of the free memory, 256 MB at most.
    """
    room = min(MOST_MEMORY, int(PART * free_memory())) if memory is None else memory
    return int(np.clip(room // (4 * COPIES * channels * n_wavelength), 1, min(n, MOST_ROWS)))


def rows_of_a_while(emulator: Emulator, wavelength: np.ndarray) -> int:
    """Return how many spectra take some seconds: a stop loses no more than a chunk, and progress moves with each."""
    floats = emulator.bind(wavelength[:PIECE]).floats_per_spectrum * -(-len(wavelength) // PIECE)
    return max(1, 16 * room() // (4 * floats))


def _same(path: Path, identity: Mapping[str, Any]) -> Predictions:
    """Return the store at the path, if it is of this very prediction."""
    refusal = "give another path, or --overwrite to replace it"
    try:
        store = Predictions.open(path, writable=True)
    except GridError as error:
        raise OutputExistsError(f"{path} exists and cannot be gone on with ({error}); {refusal}") from error
    # Absent is what older versions did not know of, or what is as usual.
    changed = [what for what in {**store.identity, **identity} if store.identity.get(what) != identity.get(what)]
    if changed:
        raise OutputExistsError(f"{path} holds spectra of other settings ({', '.join(changed)}); {refusal}")
    return store


def _predicted(
    emulator: Emulator, labels: Float[np.ndarray, "n labels"], wavelength: np.ndarray, extrapolate: bool
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Return flux (n, m), continuum where the emulator gives one, and flags (n,) as bits."""
    flags = flags_of(emulator.space, emulator.domain.physics, labels)
    good = _predictable(emulator, labels) if extrapolate else ~flags[:, 0]
    # A place in the middle of the range keeps the batch whole; what is predicted there is thrown away.
    filled = np.where(good[:, None], labels, emulator.space.from_cube(np.full(len(emulator.space), 0.5)))
    outputs = predict_in_chunks(emulator, filled, wavelength)
    outputs[~good] = np.nan
    continuum = None
    if "log10_continuum" in emulator.channels:
        continuum = 10.0 ** outputs[:, emulator.channels.index("log10_continuum")]
    # Only what has been predicted can have been extrapolated, or suffer from missing physics.
    columns = np.concatenate([~good[:, None], flags & good[:, None]], axis=1)
    return outputs[:, 0], continuum, np.sum(columns << np.arange(len(BITS)), axis=1).astype(np.uint8)


def _predictable(emulator: Emulator, labels: Float[np.ndarray, "n labels"]) -> Bool[np.ndarray, " n"]:
    """Return which label vectors have a place on the labels' scales, wherever it is."""
    linear = np.array([label.transform == "linear" for label in emulator.space.labels])
    return np.all(np.isfinite(labels) & (linear | (labels > 0)), axis=-1)
