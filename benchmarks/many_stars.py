"""Fit many thousand stars in one run and watch the memory: does it stay where it was after the first thousand?

``python benchmarks/many_stars.py MODEL [N [WORKERS]]``: stars as in ``fitting.py``, a hundred of them with new noise
again and again, all labels free. Prints the resident memory of this process and of its workers as stars are finished.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from fitting import SNR, stars
from yardstick import record

from starpayne import bundle
from starpayne.fitting import FitOptions, FitResult, fit_many
from starpayne.spectra import ObservedSpectrum

DIFFERENT, TIMES = 100, 20


def noisy(base: list[ObservedSpectrum], n: int) -> Iterator[ObservedSpectrum]:
    random = np.random.default_rng(1)
    for i in range(n):
        star = base[i % len(base)]
        flux = star.flux + random.normal(0, 1 / SNR, len(star.flux))
        yield replace(star, flux=flux, error=np.sqrt(2) * np.asarray(star.error), name=f"star {i}")


def resident_mb() -> float:
    """Return the memory of this process and its children, in MB."""
    lines = subprocess.run(["ps", "-eo", "pid,ppid,rss"], capture_output=True, text=True, check=True).stdout
    rows = [[int(x) for x in line.split()] for line in lines.splitlines()[1:]]
    return sum(rss for pid, parent, rss in rows if os.getpid() in (pid, parent)) / 1024


def main() -> None:
    model = bundle.load(sys.argv[1])
    n = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
    workers = int(sys.argv[3]) if len(sys.argv) > 3 else 2
    resolution = min(40_000.0, 0.5 * model.emulator.domain.sampling)
    base = stars(model, resolution, DIFFERENT)
    memory, good, start = [], 0, time.perf_counter()
    outcomes = fit_many(noisy(base, n), model, resolution, FitOptions(continuum_degree=4), workers=workers)
    for i, outcome in enumerate(outcomes, 1):
        good += isinstance(outcome, FitResult) and "failed" not in outcome.flags
        if i % max(1, n // TIMES) == 0:
            memory.append((i, round(resident_mb())))
            print(*memory[-1], f"{i / (time.perf_counter() - start):.1f} stars/s", flush=True)
    seconds = time.perf_counter() - start
    record(
        "many_stars",
        {
            "model": model.emulator.architecture, "stars": n, "fitted": good, "workers": workers,
            "seconds": round(seconds), "stars_per_second": round(n / seconds, 2),
            "resident_mb_after_stars": memory,
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
