"""Stars fitted per second, by one process and by one per core, and the share of the time that the emulator takes.

``python benchmarks/fitting.py MODEL [N [WORKERS …]]`` makes N stars with the model itself (S/N 100, R 40,000 or half
its sampling, five pixels per FWHM, which makes 2,000 over the 50 Å of mgb_reference; velocities within ±200 km/s,
v sin i 0–30 km/s) and fits all labels, velocity, v sin i and a continuum of degree 4 to each, without a guess: once,
which compiles, and once for the clock. With several workers four batches of them for each are fitted in one more run;
the clock runs from the end of the first batches on, when nothing is left to compile. On a GPU the processes share it.
``MODEL`` may be ``transformer_128``: TransformerPayne of width 128 and depth 8 with random weights, which says nothing
of its accuracy and all of its speed.
"""

from __future__ import annotations

import argparse
import resource
import time
from itertools import cycle, islice

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from yardstick import data_folder, record

from starpayne import bundle
from starpayne.fitting import FitOptions, FitResult, ForwardModel, cluster, fit_many, lanes, lockstep
from starpayne.fitting.following import company
from starpayne.fitting.many import batch_size
from starpayne.fitting.setup import Setup
from starpayne.spectra import ObservedSpectrum
from starpayne.wavelengths import doppler_factor, log_grid

SNR, PIXELS_PER_FWHM = 100.0, 5


def stars(model: bundle.Model, resolution: float, n: int) -> list[ObservedSpectrum]:
    emulator = model.emulator
    random = np.random.default_rng(0)
    labels = emulator.space.from_cube(0.1 + 0.8 * random.random((n, len(emulator.space))))
    spectra = []
    for i, row in enumerate(labels):
        rv, vsini = random.uniform(-200, 200), random.uniform(0, 30)
        ends = np.array([emulator.domain.low, emulator.domain.high]) * doppler_factor(rv)
        wavelength = log_grid(ends[0], ends[1], PIXELS_PER_FWHM * resolution)
        forward, usable = ForwardModel.on(emulator, wavelength, resolution, velocity=rv)
        flux = np.asarray(forward(jnp.asarray(row, jnp.float32), rv, vsini), np.float64)
        noise = random.normal(0, 1 / SNR, len(flux))
        error = np.full(len(flux), 1 / SNR)
        spectra.append(ObservedSpectrum(wavelength, flux + noise, error, usable, emulator.domain.medium, f"star {i}"))
    return spectra


def untrained(recipe: str) -> bundle.Model:
    """Return a network of a shipped recipe on the labels and wavelengths of mgb_reference, with random weights."""
    import tempfile
    from pathlib import Path

    from starpayne.importers import import_folder
    from starpayne.training import Recipe, TrainingData, train

    with tempfile.TemporaryDirectory() as folder:
        grid = import_folder(data_folder() / "mgb_reference", Path(folder) / "g.zarr")
        changes = {"steps": 1, "validate_every": 1, "batch_spectra": 2, "precision": "float32"}
        data = TrainingData.from_grid(grid, 8, name="mgb_reference")
        return train(data, Recipe.preset(recipe).replace(**changes), Path(folder) / "m")


def seconds_of_emulator(model: bundle.Model, lanes: int) -> tuple[float, float]:
    """Return the time of one spectrum, and of one with its derivatives by all labels, in batches of so many."""
    bound = model.emulator.on()
    n = len(model.emulator.space)
    one_by_one = jax.default_backend() == "cpu" and 4 * bound.floats_per_spectrum * (n + 1) > lockstep.CACHED

    @eqx.filter_jit
    def spectra(bound, labels):
        return jax.vmap(bound)(labels)

    @eqx.filter_jit
    def derivatives(bound, labels):
        def one(labels):
            if one_by_one:
                depth, linear = jax.linearize(bound, labels)
                return depth, jax.lax.map(linear, jnp.eye(n))
            return jax.vmap(lambda t: jax.jvp(bound, (labels,), (t,)), out_axes=(None, 0))(jnp.eye(n))

        return jax.vmap(one)(labels)

    labels = jnp.asarray(model.emulator.space.sobol(lanes, 0), jnp.float32)
    found = []
    for function in (spectra, derivatives):
        jax.block_until_ready(function(bound, labels))
        start = time.perf_counter()
        for _ in range(3):
            jax.block_until_ready(function(bound, labels))
        found.append((time.perf_counter() - start) / 3 / lanes)
    return found[0], found[1]


def side_by_side(
    spectra: list[ObservedSpectrum], model: bundle.Model, resolution: float, options: FitOptions, workers: int,
    size: int | None, turns: int,
) -> float:  # fmt: skip
    """Return stars per second in several processes, after the first batch of each, in which it compiles."""
    setup = Setup(model, options)
    size, stream = size or batch_size(setup), cycle(spectra)
    batches = ((i, list(islice(stream, size))) for i in range(turns * workers))
    # Whichever is first: in the order of the stars, one batch may wait for another.
    ends = [
        time.perf_counter() for _ in cluster.fit_batches(batches, resolution, setup, company(), workers, None)
    ]  # fmt: skip
    return round((len(ends) - workers) * size / (ends[-1] - ends[workers - 1]), 3)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("stars", type=int, nargs="?", default=100)
    parser.add_argument("workers", type=int, nargs="*", help="numbers of processes to try")
    parser.add_argument("--batch", type=int, help="stars of a batch (default: as fit_many has it)")
    parser.add_argument("--turns", type=int, default=4, help="batches for each process, the first of which compiles")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    model, n = untrained(given.model) if given.model == "transformer_128" else bundle.load(given.model), given.stars
    domain = model.emulator.domain
    resolution = min(40_000.0, 0.5 * domain.sampling, domain.resolution or np.inf)
    options = FitOptions(continuum_degree=4)
    spectra = stars(model, resolution, n)
    renewed = []
    original = lockstep._pursue

    def counted(bound, parameters, problem, own, theta, renew, *rest):  # type: ignore[no-untyped-def]
        if renew:
            renewed.append(len(theta))
        return original(bound, parameters, problem, own, theta, renew, *rest)

    lockstep._pursue = counted
    seconds = []
    for _ in range(2):
        renewed.clear()
        start = time.perf_counter()
        results = [r for r in fit_many(spectra, model, resolution, options) if isinstance(r, FitResult)]
        seconds.append(time.perf_counter() - start)
    total = seconds[1]
    in_processes = {
        str(workers): side_by_side(spectra, model, resolution, options, workers, given.batch, given.turns)
        for workers in given.workers
    }
    wavelength = model.emulator.native_wavelength
    searched = time.perf_counter()
    model.emulator.predict(model.emulator.space.sobol(options.n_search, 0), wavelength)
    templates = time.perf_counter() - searched
    evaluations = sum(result.iterations for result in results)
    parameters = len(model.emulator.space) + 2
    at_once = lanes.lanes(model.emulator.on(), parameters, max(lanes.sizes()))
    one, with_derivatives = seconds_of_emulator(model, at_once)
    emulator = evaluations * one + sum(renewed) * with_derivatives + templates
    record(
        f"fitting_{model.emulator.architecture}" + ("" if jax.default_backend() == "cpu" else "_gpu"),
        {
            "model": given.model.rstrip("/").split("/")[-1], "stars": len(results), "labels": len(model.emulator.space),
            "pixels": int(np.median([result.n_pixels for result in results])), "resolution": resolution,
            "stars_per_second": round(len(results) / total, 3), "seconds_per_star": round(total / len(results), 3),
            "stars_per_second_by_workers": in_processes,
            "seconds_compiling": round(seconds[0] - total, 1), "lanes": at_once,
            "iterations_per_star": round(evaluations / n, 1), "derivatives_per_star": round(sum(renewed) / n, 2),
            "share_of_time_in_emulator": round(emulator / total, 3),
            "share_of_time_in_templates": round(templates / total, 3),
            "median_reduced_chi2": round(float(np.median([result.reduced_chi2 for result in results])), 3),
            "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
