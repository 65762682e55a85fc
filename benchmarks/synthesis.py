"""Seconds per synthetic spectrum, and what a second worker adds.

Run on an idle machine with two cores: ``python benchmarks/synthesis.py``. The window is 5160–5210 Å, the star the Sun,
the settings are those of the shared grid mgb_reference; importing the engine and pruning its lines are excluded. The
targets are 1.0 s per spectrum and core, and 1.8 times the throughput with two workers. Speeds are also given in units
of a matrix product measured in the same run, so that machines can be compared.
"""

from __future__ import annotations

import json
import os
import threading
import time

# Before NumPy is imported, which reads them once: the yardstick is the speed of one core.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402

from starpayne.synthesis import ChildEngine, Design  # noqa: E402

SUN = {"teff": 5772.0, "logg": 4.438, "feh": 0.0, "alpha_fe": 0.0, "vmic": 1.0}
REPEATS = 12
SIZE = 2048


def gflops() -> float:
    """Return the speed of a 2048³ float32 matrix product on one core in GFLOP/s, the best of three."""
    a = np.random.default_rng(0).standard_normal((SIZE, SIZE), dtype=np.float32)
    _ = a @ a
    best = min(_timed(lambda: a @ a) for _ in range(3))
    return 2 * SIZE**3 / best / 1e9


def _timed(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _many(engine: ChildEngine) -> None:
    for _ in range(REPEATS):
        engine.synthesize(SUN)


def main() -> None:
    design = Design.shipped("mgb_reference")
    engines = [ChildEngine(design.engine, design.engine_settings(), design.wavelength) for _ in range(2)]
    try:
        for engine in engines:
            engine.synthesize(SUN)
        one = _timed(lambda: _many(engines[0])) / REPEATS

        def both() -> None:
            threads = [threading.Thread(target=_many, args=(engine,)) for engine in engines]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        two = _timed(both) / (2 * REPEATS)
    finally:
        for engine in engines:
            engine.close()
    speed = gflops()
    report = {
        "window": [design.low, design.high],
        "seconds_per_spectrum": round(one, 3),
        "target_seconds": 1.0,
        "two_workers_over_one": round(one / two, 2),
        "target_ratio": 1.8,
        "matmul_gflops_per_core": round(speed, 1),
        "matmul_gflop_per_spectrum": round(one * speed, 1),
        "cores": os.cpu_count(),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
