"""Fit stars that PySME made, not the emulator: are the labels unbiased, and the errors as large as they say?

``python benchmarks/calibration.py MODEL STARS.zarr [N]``: the stars of ``benchmarks/pysme_stars.toml`` (inner 80 % of
the label ranges) through a spectrograph of R 40,000 with 3 pixels per FWHM, S/N 100 per pixel, v sin i 0–30 km/s,
velocities within ±200 km/s, a tilted continuum; all labels, velocity, v sin i and a continuum of degree 4 are fitted
without a guess.

For each label, over the stars whose Cramér–Rao bound (photon noise alone, at the true labels) is under a quarter of
its range: mean and robust width of the pulls; median bias over robust scatter; scatter of (fit − truth) over the bound.
The bound must be that of the truth: at the fitted labels it is smaller for a star whose weak line noise has deepened,
and a cut in it leaves more of those.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from yardstick import record

from starpayne import bundle
from starpayne.fitting import FitOptions, FitResult, fit_many
from starpayne.fitting.forecast import forecast
from starpayne.fitting.setup import Setup
from starpayne.grid import Grid
from starpayne.simulate import Observation, observe
from starpayne.spectra import ObservedSpectrum

RESOLUTION, SNR, DETECTOR = 40_000.0, 100.0, (5156.0, 5214.0)
DEGREE = 4
"""Of the continuum."""

FEW = 20
"""Fewer values than this say nothing about a width."""


def motions(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return velocities and v sin i of the stars, km/s."""
    random = np.random.default_rng(5)
    return random.uniform(-200, 200, n), random.uniform(0, 30, n)


def stars(grid: Grid, rows: np.ndarray) -> Iterator[ObservedSpectrum]:
    """Yield the stars as observed."""
    rv, vsini = motions(len(rows))
    random = np.random.default_rng(6)
    for i, row in enumerate(rows):
        setup = Observation(
            rv=rv[i], vsini=vsini[i], resolution=RESOLUTION, snr=SNR, tilt=random.uniform(-0.2, 0.2), seed=1000 + i
        )
        flux = grid.flux([row])[0].astype(np.float64)
        yield observe(grid.wavelength, flux, *DETECTOR, setup, grid.medium, f"star {row}")


def robust(values: np.ndarray) -> float:
    """Return half the distance of the 16th and 84th percentiles."""
    low, high = np.percentile(values, [15.865, 84.135])
    return float(high - low) / 2


def cramer_rao(setup: Setup, star: ObservedSpectrum, *truth: float) -> np.ndarray:
    """Return the smallest errors (n,) of labels, rv and v sin i that photon noise allows, the continuum being free."""
    *labels, rv, vsini = truth
    named = dict(zip(setup.model.emulator.space.names, labels, strict=True))
    bounds = forecast(star, setup, RESOLUTION, named, rv=rv, vsini=vsini).bounds(emulator_error=False)
    return np.array(list(bounds.values()))


def main() -> None:
    model, grid = bundle.load(Path(sys.argv[1])), Grid.open(Path(sys.argv[2]))
    rows = grid.usable(grid.split.test)[: int(sys.argv[3]) if len(sys.argv) > 3 else None]
    observed = list(stars(grid, rows))
    rv, vsini = motions(len(rows))

    options = FitOptions(continuum_degree=DEGREE)
    first = time.perf_counter()
    list(fit_many(observed[:60], model, RESOLUTION, options))
    compiling = time.perf_counter() - first
    start = time.perf_counter()
    results = list(fit_many(observed, model, RESOLUTION, options))
    seconds = time.perf_counter() - start
    good = [i for i, r in enumerate(results) if isinstance(r, FitResult)]
    fits = [r for r in results if isinstance(r, FitResult)]
    names = (*model.emulator.space.names, "rv", "vsini")
    order = [grid.space.names.index(name) for name in model.emulator.space.names]
    truth = np.column_stack([grid.labels[rows][:, order], rv, vsini])[good]

    def of(fields: tuple[str, str, str]) -> np.ndarray:
        return np.array([[*getattr(r, fields[0]).values(), *(getattr(r, f) for f in fields[1:])] for r in fits])

    values, errors = of(("labels", "rv", "vsini")), of(("errors", "rv_error", "vsini_error"))
    setup = Setup(model, options)
    bounds = np.array([cramer_rao(setup, observed[i], *truth[k]) for k, i in enumerate(good)])
    unsure = np.array([[f"unconstrained:{n}" in r.flags for n in names] for r in fits])
    table = {}
    for j, name in enumerate(names):
        span = 1.0
        if name in model.emulator.space.names:
            span = float(model.emulator.space[name].high - model.emulator.space[name].low)
        told = np.isfinite(values[:, j]) & (bounds[:, j] < (0.25 * span if name in grid.space.names else np.inf))
        if told.sum() < FEW:
            table[name] = {"stars": int(told.sum())}
            continue
        off, pull = (values - truth)[told, j], ((values - truth) / errors)[told, j]
        table[name] = {
            "stars": int(told.sum()),
            "pull_mean": round(float(pull.mean()), 3),
            "pull_median": round(float(np.median(pull)), 3),
            "pull_width": round(robust(pull), 3),
            "bias_over_scatter": round(float(np.median(off)) / robust(off), 3),
            "scatter": float(f"{robust(off):.3g}"),
            "scatter_over_bound": round(robust(off / bounds[told, j]), 3),
            "beyond_4_sigma": round(float(np.mean(np.abs(pull) > 4)), 4),
            "flagged_unconstrained": round(float(unsure[told, j].mean()), 3),
        }
        print(name, table[name], flush=True)
    lost = np.abs(values[:, -2] - truth[:, -2]) > 20
    flags: dict[str, int] = {}
    for result in fits:
        for flag in result.flags:
            flags[flag] = flags.get(flag, 0) + 1
    record(
        f"calibration_{model.emulator.architecture}",
        {
            "stars": len(rows), "model": Path(sys.argv[1]).name, "validation_mae": model.validation["mae"],
            "stars_per_second": round(len(rows) / seconds, 2), "seconds": round(seconds, 1),
            "seconds_of_first_60": round(compiling, 1), "peak_memory_gb":
            round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
            "errors": [str(r) for r in results if not isinstance(r, FitResult)][:5],
            "wrong_velocity": int(lost.sum()), "median_iterations": int(np.median([r.iterations for r in fits])),
            "median_reduced_chi2": round(float(np.median([r.reduced_chi2 for r in fits])), 3),
            "with_jitter": sum(r.jitter > 0 for r in fits), "flags": dict(sorted(flags.items())), "values": table,
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
