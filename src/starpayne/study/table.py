"""The results of a study as tables: one row per training, and one per training and recovered label."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from starpayne.files import write_bytes, write_json
from starpayne.labels import unit_of

Result = Mapping[str, Any]

COLUMNS = (
    "emulator", "n_train", "seed", "test_mae", "test_rmse", "validation_mae", "parameters", "operations_per_spectrum",
    "training_seconds", "ms_per_spectrum_alone", "ms_per_spectrum_in_batch", "matrix_product_gflops", "failed",
)  # fmt: skip


def finished(results: Sequence[Result]) -> list[Result]:
    """Return the results of the jobs that did not fail."""
    return [r for r in results if "failed" not in r]


def row_of(result: Result) -> dict[str, Any]:
    """Return the columns of one training; those that a failed one lacks are None."""
    cost, test = result.get("cost", {}), result.get("test", {})
    return {
        "emulator": result["emulator"],
        "n_train": result["n_train"],
        "seed": result["seed"],
        "test_mae": test.get("mae"),
        "test_rmse": test.get("rmse"),
        "validation_mae": result.get("validation", {}).get("mae"),
        **{k: result.get(k) for k in ("parameters", "training_seconds", "matrix_product_gflops", "failed")},
        **{k: cost.get(k) for k in ("operations_per_spectrum", "ms_per_spectrum_alone", "ms_per_spectrum_in_batch")},
    }


def write_tables(folder: Path, name: str, results: Sequence[Result]) -> None:
    """Write ``study.csv`` (one row per training), ``recovery.csv`` (one per training and label) and ``study.json``."""
    _write_csv(folder / "study.csv", COLUMNS, [row_of(r) for r in results])
    recovered = [
        {
            **{k: r[k] for k in ("emulator", "n_train", "seed")},
            **{k: r["recovery"][k] for k in ("n_spectra", "n_converged")},
            "label": label,
            "unit": unit_of(label),
            **facts,
        }
        for r in finished(results)
        if r.get("recovery")
        for label, facts in r["recovery"]["summary"].items()
    ]
    if recovered:
        _write_csv(folder / "recovery.csv", tuple(recovered[0]), recovered)
    write_json(folder / "study.json", {"study": name, "trainings": [_without_stars(r) for r in results]})


def curve(results: Sequence[Result], emulator: str, value: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the sizes (k,) and the values (k, most seeds) of an emulator, NaN where a seed is missing.

    Args:
        results: of a study.
        emulator: its name.
        value: a function of a result.
    """
    mine = [r for r in finished(results) if r["emulator"] == emulator]
    sizes = sorted({r["n_train"] for r in mine})
    rows = [[float(value(r)) for r in mine if r["n_train"] == n] for n in sizes]
    table = np.full((len(sizes), max(map(len, rows), default=0)), np.nan)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    return np.array(sizes), table


def names_of(results: Sequence[Result]) -> list[str]:
    """Return the emulators with at least one finished training, in the order of the study."""
    return list(dict.fromkeys(r["emulator"] for r in finished(results)))


def _without_stars(result: Result) -> dict[str, Any]:
    """Return a result without the labels of every star: those are in the ``result.json`` of its job."""
    recovery = result.get("recovery")
    if not recovery:
        return dict(result)
    kept = {k: v for k, v in recovery.items() if not isinstance(v, list) or k == "labels"}
    return {**result, "recovery": kept}


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())
