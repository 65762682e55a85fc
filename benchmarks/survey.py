"""A survey over Dask with a worker killed half-way, against an undisturbed one: are all rows there, and the same?

``python benchmarks/survey.py MODEL [N [WORKERS]]``: N stars as in ``fitting.py``, a hundred of them with new noise
again and again, in one Parquet file; all labels free. ``starpayne fit`` is run on it as a user would, twice; in the
second run the process of one worker is killed when half of the stars are done. Prints whether the two tables are the
same, and stars per second of both, compilation and start included.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
from fitting import stars
from many_stars import DIFFERENT, noisy
from yardstick import record

from starpayne import bundle


def write_survey(model: bundle.Model, resolution: float, n: int, path: Path) -> None:
    rows = list(noisy(stars(model, resolution, DIFFERENT), n))
    columns = {
        "name": [f"star {i}" for i in range(n)], "wavelength": [row.wavelength for row in rows],
        "flux": [row.flux for row in rows],
        "error": [np.where(row.used, np.asarray(row.error), 0) for row in rows],
    }  # fmt: skip
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=64)


def fitted(model: str, resolution: float, spectra: Path, out: Path, workers: int, n: int, kill: bool) -> float:
    """Run the command, and return its seconds; kill one worker when half of the rows are on disk."""
    words = ["fit", spectra, "--model", model, "--resolution", resolution, "--continuum-degree", 4, "--workers",
             workers, "--out", out]  # fmt: skip
    start = time.perf_counter()
    command = subprocess.Popen(
        [sys.executable, "-c", "from starpayne.cli import main; main()", *map(str, words)], stderr=subprocess.DEVNULL
    )
    parts = out.with_name(out.name + ".parts")
    while kill:
        time.sleep(0.2)
        done = len(list(parts.glob("part-*.json"))) if parts.exists() else 0
        if command.poll() is not None:
            sys.exit("the run ended before half of it was seen")
        if done * batch(model) >= n / 2:
            os.kill(workers_of(command.pid)[0], signal.SIGKILL)
            break
    if command.wait() != 0:
        sys.exit(f"starpayne fit ended with status {command.returncode}")
    return time.perf_counter() - start


def batch(model: str) -> int:
    from starpayne.fitting import FitOptions
    from starpayne.fitting.many import batch_size
    from starpayne.fitting.setup import Setup

    return batch_size(Setup(bundle.load(model), FitOptions()))


def workers_of(command: int) -> list[int]:
    """Return the processes that fit: children of the nannies, which are children of the command."""
    lines = subprocess.run(["ps", "-eo", "pid,ppid,rss"], capture_output=True, text=True, check=True).stdout
    rows = [[int(x) for x in line.split()] for line in lines.splitlines()[1:]]
    nannies = {pid for pid, parent, _ in rows if parent == command}
    found = sorted(((rss, pid) for pid, parent, rss in rows if parent in nannies), reverse=True)
    return [pid for _, pid in found]


def main() -> None:
    path = sys.argv[1]
    model = bundle.load(path)
    n = int(sys.argv[2]) if len(sys.argv) > 2 else 2000
    workers = int(sys.argv[3]) if len(sys.argv) > 3 else 2
    resolution = min(40_000.0, 0.5 * model.emulator.domain.sampling)
    with tempfile.TemporaryDirectory() as folder:
        spectra = Path(folder) / "survey.parquet"
        write_survey(model, resolution, n, spectra)
        calm, killed = Path(folder) / "calm.csv", Path(folder) / "killed.csv"
        seconds = fitted(path, resolution, spectra, calm, workers, n, kill=False)
        seconds_killed = fitted(path, resolution, spectra, killed, workers, n, kill=True)
        rows = calm.read_text().splitlines(), killed.read_text().splitlines()
    names = [row.split(",")[0] for row in rows[1][1:]]
    differ = sum(a != b for a, b in zip(*rows, strict=True))
    record(
        "survey",
        {
            "model": model.emulator.architecture, "stars": n, "workers": workers, "rows": len(names),
            "rows_twice": len(names) - len(set(names)), "rows_that_differ": differ,
            "stars_per_second": round(n / seconds, 2), "stars_per_second_one_killed": round(n / seconds_killed, 2),
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
