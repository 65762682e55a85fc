"""What every benchmark prints beside its figures: the machine's speed in a plain matrix product, and what ran where."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
SIZE = 2048


def gflops() -> float:
    """Return the speed of a 2048³ float32 matrix product in JAX on the default device in GFLOP/s, the best of five."""
    return speeds()[0]


def speeds() -> tuple[float, float]:
    """Return that speed by the clock, and per second of processor time, which others on the machine disturb less."""
    import jax

    a = jax.random.normal(jax.random.key(0), (SIZE, SIZE), dtype="float32")
    product = jax.jit(lambda x: x @ x)
    product(a).block_until_ready()
    clock, processor = [], []
    for _ in range(5):
        start, used = time.perf_counter(), time.process_time()
        product(a).block_until_ready()
        clock.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    return 2 * SIZE**3 / min(clock) / 1e9, 2 * SIZE**3 / max(min(processor), 1e-9) / 1e9


def data_folder() -> Path:
    """Return the folder of the benchmark grids named by $STARPAYNE_DATA."""
    if "STARPAYNE_DATA" not in os.environ:
        sys.exit("set STARPAYNE_DATA to the folder that holds korg_flux, mgb_reference and sun_atlas")
    return Path(os.environ["STARPAYNE_DATA"])


def record(name: str, facts: dict[str, Any]) -> None:
    """Print facts as JSON and keep them in ``results/NAME.json`` with command, commit, hardware and yardstick."""
    import jax

    here = Path(__file__).parent
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=here, check=False
    ).stdout.strip()
    full = {
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *(Path(w).name for w in sys.argv[1:])]),
        "commit": commit,
        "hardware": f"{os.cpu_count()} cores {platform.machine()}, jax {jax.__version__} {jax.default_backend()}",
        "yardstick_gflops_2048_float32": round(gflops(), 1),
        **facts,
    }
    text = json.dumps(full, indent=1, ensure_ascii=False)
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
