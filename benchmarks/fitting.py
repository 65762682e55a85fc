"""Stars fitted per second by one process, and the share of the time that the emulator takes.

``python benchmarks/fitting.py MODEL [N]`` makes N stars with the model itself (S/N 100, R 40,000 or half its sampling,
velocities within ±200 km/s, v sin i 0–30 km/s) and fits all labels, velocity, v sin i and a continuum of degree 4 to
each, without a guess: once, which compiles, and once for the clock.
"""

from __future__ import annotations

import sys
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from yardstick import record

from starpayne import bundle
from starpayne.fitting import FitOptions, ForwardModel, fit
from starpayne.spectra import ObservedSpectrum
from starpayne.wavelengths import doppler_factor, log_grid

SNR = 100.0


def stars(model: bundle.Model, resolution: float, n: int) -> list[ObservedSpectrum]:
    emulator = model.emulator
    random = np.random.default_rng(0)
    labels = emulator.space.from_cube(0.1 + 0.8 * random.random((n, len(emulator.space))))
    spectra = []
    for i, row in enumerate(labels):
        rv, vsini = random.uniform(-200, 200), random.uniform(0, 30)
        ends = np.array([emulator.domain.low, emulator.domain.high]) * doppler_factor(rv)
        wavelength = log_grid(ends[0], ends[1], 3 * resolution)
        forward, usable = ForwardModel.on(emulator, wavelength, resolution, velocity=rv)
        flux = np.asarray(forward(jnp.asarray(row, jnp.float32), rv, vsini), np.float64)
        noise = random.normal(0, 1 / SNR, len(flux))
        error = np.full(len(flux), 1 / SNR)
        spectra.append(ObservedSpectrum(wavelength, flux + noise, error, usable, emulator.domain.medium, f"star {i}"))
    return spectra


def seconds_per_jacobian(model: bundle.Model) -> float:
    """Return the time of one emulated spectrum with its derivatives by all labels."""
    bound = model.emulator.on()
    n = len(model.emulator.space)

    @eqx.filter_jit
    def evaluate(bound, labels):
        return jax.vmap(lambda t: jax.jvp(bound, (labels,), (t,)), out_axes=(None, 0))(jnp.eye(n))

    labels = jnp.asarray(model.emulator.space.from_cube(np.full(n, 0.5)), jnp.float32)
    jax.block_until_ready(evaluate(bound, labels))
    start = time.perf_counter()
    for _ in range(10):
        jax.block_until_ready(evaluate(bound, labels))
    return (time.perf_counter() - start) / 10


def main() -> None:
    model = bundle.load(sys.argv[1])
    n = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    domain = model.emulator.domain
    resolution = min(40_000.0, 0.5 * domain.sampling, domain.resolution or np.inf)
    options = FitOptions(continuum_degree=4)
    spectra = stars(model, resolution, n)
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        results = [fit(spectrum, model, resolution, options) for spectrum in spectra]
        seconds.append(time.perf_counter() - start)
    total = seconds[1]
    wavelength = model.emulator.native_wavelength
    searched = time.perf_counter()
    model.emulator.predict(model.emulator.space.sobol(options.n_search, 0), wavelength)
    templates = (time.perf_counter() - searched) * n
    evaluations = sum(result.iterations for result in results)
    record(
        f"fitting_{model.emulator.architecture}",
        {
            "labels": len(model.emulator.space),
            "pixels": int(np.median([result.n_pixels for result in results])),
            "resolution": resolution,
            "stars_per_second": round(n / total, 2),
            "seconds_compiling": round(seconds[0] - total, 1),
            "iterations_per_star": round(evaluations / n, 1),
            "share_of_time_in_emulator": round((evaluations * seconds_per_jacobian(model) + templates) / total, 3),
            "share_of_time_in_templates": round(templates / total, 3),
            "median_reduced_chi2": round(float(np.median([result.reduced_chi2 for result in results])), 3),
        },
    )


if __name__ == "__main__":
    main()
