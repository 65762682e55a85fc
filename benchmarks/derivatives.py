"""Do an emulator's derivative spectra agree with those of the code that made its training spectra?

``python benchmarks/derivatives.py MODEL [MODEL ...]``: exact derivatives of each model (window and physics of the
design ``mgb_reference``) at the Sun, against central differences of PySME itself, both through the same spectrograph of
R 40,000 with 3 pixels per FWHM. For each label rms(emulator − PySME) over rms(PySME), over all pixels. The differences
are made once more with half the step: what that changes, over the same rms, is what the yardstick itself is worth.

Goals: at most 5 % for Teff, log g, [Fe/H] and [Mg/Fe]; 10 % for [Cr/Fe] and [Ni/Fe]; the others are reported.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from yardstick import RESULTS, record

from starpayne import bundle
from starpayne.fitting import ForwardModel
from starpayne.inside.sensitivity_figures import derivative_name
from starpayne.labels import LabelSpace, fill_solar_scaled
from starpayne.plots import COLOURS, GREY, new_figure
from starpayne.synthesis import ChildEngine, Design
from starpayne.wavelengths import log_grid

SUN = {"teff": 5772.0, "logg": 4.44, "feh": 0.0, "vmic": 1.0}
STEPS = {"teff": 20.0, "logg": 0.1, "vmic": 0.1}
"""Either side of the Sun; 0.05 dex for [Fe/H] and all [X/Fe]. Of the model's layers every second one is used, and at
5809 K another enters at the top, so that all are others: the flux jumps by what 2 K are worth, and the derivative of
steps of 40 K, which hold the jump, is 5 % off."""

RESOLUTION, PIXELS_PER_FWHM = 40_000.0, 3.0
GOALS = {"teff": 0.05, "logg": 0.05, "feh": 0.05, "mg_fe": 0.05, "cr_fe": 0.10, "ni_fe": 0.10}


def solar(space: LabelSpace) -> dict[str, float]:
    """Return every label of the Sun."""
    return fill_solar_scaled(space, SUN) | SUN


def differences(design: Design, space: LabelSpace) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Return PySME's spectrum (m,) at the Sun, its central differences (n_labels, m) with the steps and with half of
    them, and the seconds per spectrum; on the wavelengths of the design."""
    engine = ChildEngine(design.engine, design.engine_settings(), design.wavelength)
    sun, full, half = solar(space), [], []
    start, count = time.perf_counter(), 1
    try:
        centre = engine.synthesize(sun).flux
        for name in space.names:
            step = STEPS.get(name, 0.05)
            for table, size in ((full, step), (half, step / 2)):
                above, below = (engine.synthesize(sun | {name: sun[name] + s}).flux for s in (size, -size))
                table.append((above - below) / (2 * size))
                count += 2
            print(f"PySME: {name} done, {time.perf_counter() - start:.0f} s", flush=True)
    finally:
        engine.close()
    return centre, np.array(full), np.array(half), (time.perf_counter() - start) / count


def rms(values: np.ndarray) -> np.ndarray:
    return np.sqrt(np.mean(values**2, axis=-1))


def figure(wavelength: np.ndarray, pysme: np.ndarray, ours: np.ndarray, names: list[str], title: str):
    """Draw the derivatives and their differences, each label in a panel of its own."""
    drawn, axes = new_figure(len(names), 1, figsize=(8, 1.35 * len(names)))
    for i, (name, axis) in enumerate(zip(names, axes[:, 0], strict=True)):
        axis.plot(wavelength, pysme[i], color="black", lw=1.3, label="PySME")
        axis.plot(wavelength, ours[i], color=COLOURS[1], lw=0.7, label="emulator")
        axis.plot(wavelength, ours[i] - pysme[i], color=COLOURS[0], lw=0.6, label="emulator − PySME")
        axis.axhline(0, color=GREY, lw=0.4)
        axis.set_ylabel(derivative_name(name), fontsize=7)
        axis.tick_params(labelsize=7, labelbottom=axis is axes[-1, 0])
        axis.set_xlim(wavelength[0], wavelength[-1])
    axes[0, 0].set_title(title, fontsize=9, loc="left")
    axes[0, 0].legend(fontsize=7, ncols=3, loc="lower left")
    axes[-1, 0].set_xlabel("wavelength in air (Å)")
    return drawn


def main() -> None:
    models = {Path(word).name: bundle.load(Path(word)) for word in sys.argv[1:]}
    design = Design.shipped("mgb_reference")
    space = next(iter(models.values())).emulator.space
    pixels = log_grid(5160.6, 5209.4, RESOLUTION * PIXELS_PER_FWHM)
    centre, full, half, seconds = differences(design, space)
    answers: dict[str, object] = {}
    for name, model in models.items():
        emulator = model.emulator
        if emulator.space.names != space.names:
            sys.exit(f"{name} has other labels than the first model")
        forward, usable = ForwardModel.on(emulator, pixels, RESOLUTION, velocity_range=0.0, vsini_max=0.0)
        if not usable.all() or np.max(np.abs(forward.bound.wavelength.values - design.wavelength)) > 1e-6:
            sys.exit(f"{name} does not cover 5160 to 5210 Å at the sampling of the design")

        def seen(curves: np.ndarray, through: ForwardModel = forward) -> np.ndarray:
            return np.asarray(through.observe(jnp.asarray(curves, jnp.float32), 0.0, 0.0, 0.0), np.float64)

        sun = jnp.asarray(emulator.space.vector(solar(space)), jnp.float32)
        ours = np.asarray(jax.jit(jax.jacfwd(forward))(sun), np.float64).T
        truth, finer = seen(full), seen(half)
        off, size = rms(ours - finer), rms(finer)
        flux = np.asarray(forward(sun), np.float64) - (1 + seen(centre - 1))
        table = {
            label: {
                "error": float(f"{off[i] / size[i]:.4f}"), "goal": GOALS.get(label),
                "met": None if label not in GOALS else bool(off[i] <= GOALS[label] * size[i]),
                "rms_derivative": float(f"{size[i]:.4g}"),
                "changed_by_halving_the_step": float(f"{rms(truth - finer)[i] / size[i]:.4f}"),
                "correlation": float(f"{np.corrcoef(ours[i], finer[i])[0, 1]:.5f}"),
            }
            for i, label in enumerate(space.names)
        }  # fmt: skip
        answers[name] = {
            "architecture": emulator.architecture, "validation_mae": model.validation["mae"],
            "flux_rms_difference_at_the_sun": float(f"{float(rms(flux)):.5f}"), "labels": table,
        }  # fmt: skip
        shown = [*GOALS, "vmic", "ti_fe"]
        rows = [space.names.index(label) for label in shown]
        title = f"derivatives at the Sun, R = {RESOLUTION:,.0f}: {name} and PySME"
        RESULTS.mkdir(exist_ok=True)
        figure(pixels, finer[rows], ours[rows], shown, title).savefig(RESULTS / f"derivatives_{Path(name).stem}.png")
    steps = {name: STEPS.get(name, 0.05) / 2 for name in space.names}
    record(
        "derivatives",
        {"star": solar(space), "resolution": RESOLUTION, "pixels": len(pixels), "steps": steps,
         "seconds_per_pysme_spectrum": round(seconds, 2), "models": answers},
    )  # fmt: skip


if __name__ == "__main__":
    main()
