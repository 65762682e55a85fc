"""How many spectra a second come out of a table of labels: a network on pixels against a TransformerPayne of 128×8.

``python benchmarks/predict_many.py MODEL --rows 100000``, where MODEL is a ``payne_wide`` of 1,929 pixels. Measured are
the prediction alone, in batches, and the whole command (table in, store on disk out); the transformer has random
weights, which cost what trained ones do. Goals: 300 times as many spectra as the transformer, and 10,000 a second where
the yardstick is 350 GFLOP/s; and a transformer at 70 % of the yardstick.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from yardstick import record, speeds

from starpayne import bundle
from starpayne.emulators import TransformerPayne
from starpayne.emulators.base import predict_in_chunks
from starpayne.prediction import predict_table
from starpayne.study.cost import matrix_operations
from starpayne.training.build import fitted_periods

MACHINE = 350.0
"""GFLOP/s of the machine that the goal of 10,000 spectra a second is for."""


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Return seconds by the clock and of processor time."""
    start, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--turns", type=int, default=5)
    given = parser.parse_args()
    model = bundle.load(given.model)
    payne = model.emulator
    pixels = payne.native_wavelength
    transformer = TransformerPayne.initialise(
        payne.space, payne.domain, payne.channels, width=128, depth=8, tokens=16, head_width=32,
        periods=fitted_periods(pixels), key=jax.random.key(0),
    )  # fmt: skip
    random = np.random.default_rng(0)

    def labels(n: int) -> np.ndarray:
        return payne.space.from_cube(random.random((n, len(payne.space))))

    batches = {"payne": (payne, labels(8192)), "transformer": (transformer, labels(16))}
    for emulator, rows in batches.values():
        predict_in_chunks(emulator, rows, pixels)
    # They take turns, and each counts with its best: on a shared machine the load changes by the second.
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in batches}
    yardsticks = [speeds()]
    for _ in range(given.turns):
        for name, (emulator, rows) in batches.items():
            clock, processor = timed(lambda e=emulator, r=rows: predict_in_chunks(e, r, pixels))
            rates[name].append((len(rows) / clock, len(rows) / processor))
        yardsticks.append(speeds())
    by_clock, by_processor = (
        {name: max(rate[i] for rate in found) for name, found in rates.items()} for i in range(2)
    )  # fmt: skip
    yardstick, yardstick_processor = (max(y[i] for y in yardsticks) for i in range(2))
    with tempfile.TemporaryDirectory() as folder:
        table, out = Path(folder) / "labels.csv", Path(folder) / "spectra.zarr"
        np.savetxt(table, labels(given.rows), delimiter=",", header=",".join(payne.space.names), comments="")
        clock, processor = timed(lambda: predict_table(model, table, out))
    operations = {
        name: matrix_operations(e.bind(pixels).batch, jax.numpy.zeros((16, len(e.space)))) / 16
        for name, (e, _) in batches.items()
    }  # fmt: skip
    record(
        "predict_many",
        {
            "pixels": len(pixels),
            "load_average": os.getloadavg()[0],
            "yardstick_gflops_best": round(yardstick, 1),
            "yardstick_gflops_per_processor_second": round(yardstick_processor, 1),
            "spectra_per_second": {name: round(rate, 1) for name, rate in by_clock.items()},
            "spectra_per_processor_second": {name: round(rate, 1) for name, rate in by_processor.items()},
            "ratio": round(by_clock["payne"] / by_clock["transformer"]),
            "ratio_of_processor_time": round(by_processor["payne"] / by_processor["transformer"]),
            "fraction_of_yardstick": {
                name: round(rate * operations[name] / yardstick / 1e9, 3) for name, rate in by_clock.items()
            },
            "fraction_of_yardstick_in_processor_time": {
                name: round(rate * operations[name] / yardstick_processor / 1e9, 3)
                for name, rate in by_processor.items()
            },
            "payne_scaled_to_350_gflops": round(by_clock["payne"] * MACHINE / yardstick),
            "whole_command": {
                "rows": given.rows, "seconds": round(clock, 1), "processor_seconds": round(processor, 1),
                "rows_per_second": round(given.rows / clock),
                "rows_per_processor_second": round(given.rows / processor),
            },
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
