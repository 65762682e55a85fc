"""The whole chain on a small real grid: synthesize, train, evaluate, fit a star that the emulators have never seen."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from starpayne import bundle, plots
from starpayne.errors import GridError
from starpayne.evaluation import Evaluation, evaluate
from starpayne.files import read_json, write_json
from starpayne.fitting import FitOptions, FitResult, fit
from starpayne.labels import unit_of
from starpayne.report import Report
from starpayne.simulate import Observation, observe
from starpayne.spectra import ObservedSpectrum
from starpayne.synthesis import ChildEngine, Design, run
from starpayne.training import Recipe, TrainingData, train

STAR = {"teff": 5640.0, "logg": 4.25, "feh": -0.35, "vmic": 1.25, "mg_fe": 0.12}
"""True labels of the star to be fitted; not a point of the design."""

OBSERVATION = Observation(rv=37.4, vsini=6.0, resolution=40_000, snr=150, tilt=0.15, level=1.0, seed=11)
MARGIN = 5.0
"""Å by which the star is synthesized beyond the grid's window, for velocity and broadening."""

Stage = Callable[[str], AbstractContextManager[Callable[..., None]]]
"""Opens a progress bar of a given title and yields ``update(done, total, note="")``."""


@dataclass(frozen=True)
class Size:
    """How much of the demo is done."""

    n_spectra: int
    n_test: int
    n_validation: int
    payne_steps: int
    transformer_steps: int


FULL = Size(n_spectra=400, n_test=40, n_validation=40, payne_steps=12_000, transformer_steps=3_000)
QUICK = Size(n_spectra=48, n_test=10, n_validation=8, payne_steps=1_000, transformer_steps=120)


@dataclass
class _Clock:
    """Seconds per stage in a file; those of a resumable stage add up over interruptions."""

    path: Path
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, resumable: bool = False) -> Iterator[None]:
        start = time.monotonic()
        before = self.seconds.get(name, 0.0) if resumable else 0.0
        try:
            yield
        finally:
            self.seconds[name] = round(before + time.monotonic() - start, 2)
            write_json(self.path, self.seconds)


def run_demo(folder: str | Path, stage: Stage, quick: bool = False, workers: int = 2) -> dict[str, Any]:
    """Run the demo, or what is left of it, and write ``report.html`` and ``summary.json``.

    Args:
        folder: where everything goes; a second run continues there.
        stage: opens a progress bar (see :data:`Stage`).
        quick: a tiny grid and short trainings, to see that everything works; its numbers mean nothing.
        workers: spectra synthesized at a time.

    Returns:
        the summary: ``{"evaluation": {emulator: {"mae", …}}, "fit": {"labels": {name:
        {"value", "error", "raw_error", "truth"}}, …}, "seconds": {stage: …}}``.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    size = QUICK if quick else FULL
    design = dataclasses.replace(
        Design.shipped("demo"), n_spectra=size.n_spectra, n_test=size.n_test, n_validation=size.n_validation
    )
    timings = folder / "timings.json"
    clock = _Clock(timings, read_json(timings, GridError) if timings.exists() else {})
    with clock.stage("synthesis", resumable=True), stage("synthesis") as bar:
        grid = run(
            design, folder / "grid.zarr", workers=workers,
            progress=lambda done, total, failed: bar(done, total, f"{failed} failed" if failed else ""),
        )  # fmt: skip
    data = TrainingData.from_grid(grid, name="demo")
    models: dict[str, bundle.Model] = {}
    for name, steps in (("payne", size.payne_steps), ("transformer", size.transformer_steps)):
        recipe = Recipe.preset(name).replace(steps=steps)
        with clock.stage(f"train {name}", resumable=True), stage(f"training {name}") as bar:
            models[name] = train(data, recipe, folder / f"{name}.model", progress=_training_bar(bar))
    with clock.stage("evaluation"), stage("evaluation") as bar:
        evaluations = {}
        for i, (name, model) in enumerate(models.items()):
            evaluations[name] = evaluate(model, grid)
            bar(i + 1, len(models))
    with clock.stage("observation"), stage("observing a star") as bar:
        spectrum = _observed_star(design, folder / "star.npz")
        bar(1, 1)
    with clock.stage("fit"), stage("fitting the star") as bar:
        fits = {}
        for i, (name, model) in enumerate(models.items()):
            fits[name] = fit(spectrum, model, OBSERVATION.resolution, FitOptions(continuum_degree=2))
            bar(i + 1, len(models))
    # The choice between the two is made on validation spectra; test spectra and star take no part in it.
    best = min(models, key=lambda name: models[name].validation["mae"])
    summary = {
        "quick": quick,
        "grid": {
            "n_spectra": len(grid.labels), "n_failed": len(grid.failures), "labels": list(grid.space.names),
            "wavelength": [float(grid.wavelength[0]), float(grid.wavelength[-1])], "medium": grid.medium,
        },
        "evaluation": {
            name: e.to_dict() | {"validation_mae": models[name].validation["mae"]} for name, e in evaluations.items()
        },
        "fit": _fit_summary(fits[best]) | {"emulator": best},
        "fits": {name: _fit_summary(result) for name, result in fits.items()},
        "seconds": clock.seconds | {"total": round(sum(clock.seconds.values()), 2)},
    }  # fmt: skip
    write_json(folder / "summary.json", summary)
    plots.fitted_spectrum(fits[best]).savefig(folder / "star.png")
    _report(summary, design, models, evaluations, fits, best).write(folder / "report.html")
    return summary


def _training_bar(bar: Callable[..., None]) -> Callable[[int, int, Mapping[str, float]], None]:
    def update(step: int, total: int, facts: Mapping[str, float]) -> None:
        mae = facts.get("validation_mae")
        bar(step, total, "" if mae is None else f"validation MAE {mae:.5f}")

    return update


def _observed_star(design: Design, path: Path) -> ObservedSpectrum:
    """Synthesize the star with the grid's own engine over a wider window, and observe it."""
    if path.exists():
        stored = np.load(path, allow_pickle=False)
        wavelength, flux = stored["wavelength"], stored["flux"]
    else:
        wide = dataclasses.replace(design, low=design.low - MARGIN, high=design.high + MARGIN, sampling=200_000)
        wavelength = wide.wavelength
        with ChildEngine(wide.engine, wide.engine_settings(), wavelength) as engine:
            flux = engine.synthesize(STAR).flux
        draft = path.with_suffix(".partial.npz")
        np.savez(draft, wavelength=wavelength, flux=flux)
        draft.replace(path)
    return observe(wavelength, flux, design.low, design.high, OBSERVATION, design.medium, name="demo star")


def _fit_summary(result: FitResult) -> dict[str, Any]:
    facts = result.to_dict()
    for name, entry in facts["labels"].items():
        entry["truth"] = STAR[name]
    return facts | {"truth": {"rv": OBSERVATION.rv, "vsini": OBSERVATION.vsini}}


def _report(
    summary: Mapping[str, Any],
    design: Design,
    models: Mapping[str, bundle.Model],
    evaluations: Mapping[str, Evaluation],
    fits: Mapping[str, FitResult],
    best: str,
) -> Report:
    grid = summary["grid"]
    report = Report(
        "starpayne demo",
        f"{grid['n_spectra']} spectra synthesized with PySME, two emulators trained on them, and a star fitted that "
        "neither has seen. 1D, LTE, plane-parallel, atomic lines only."
        + (" This was a quick run: its numbers only show that everything works." if summary["quick"] else ""),
    )
    report.heading("The grid")
    report.table(
        ["label", "low", "high", "unit"],
        [[label.name, f"{label.low:g}", f"{label.high:g}", label.unit] for label in design.space.labels],
    )
    low, high = grid["wavelength"]
    report.text(
        f"{low:.1f} to {high:.1f} Å ({grid['medium']}), {grid['n_failed']} spectra failed; "
        f"the last {design.n_test} spectra test, the {design.n_validation} before them validate."
    )
    report.heading("The emulators on spectra they have never seen")
    report.table(
        ["emulator", "parameters", "MAE", "RMSE", "95 % of spectra below (MAE)", "training (s)"],
        [
            [
                name, f"{models[name].training['parameters']:,}", f"{e.mae:.5f}", f"{e.rmse:.5f}",
                f"{np.percentile(e.per_spectrum, 95):.5f}", f"{models[name].training['seconds']:.0f}",
            ]
            for name, e in evaluations.items()
        ],
    )  # fmt: skip
    report.figure(
        plots.residuals_by_wavelength(evaluations),
        "Absolute residual in normalised flux at each wavelength, over the held-out spectra.",
    )
    report.figure(
        plots.residuals_by_label(evaluations), "Mean absolute error of each held-out spectrum against its labels."
    )
    for name, evaluation in evaluations.items():
        report.figure(plots.examples(evaluation, name), f"{name}: the median and the worst held-out spectrum.")
    report.figure(
        plots.training_curves({n: m.training["history"] for n, m in models.items()}),
        "Validation error during training.",
    )
    report.heading("A star")
    report.text(
        f"Synthesized with PySME at labels that are no point of the grid, then observed in plain double precision: "
        f"radial velocity {OBSERVATION.rv} km/s, v sin i {OBSERVATION.vsini} km/s, "
        f"R = {OBSERVATION.resolution:,.0f}, "
        f"S/N {OBSERVATION.snr:.0f} per pixel, a continuum that rises by {OBSERVATION.tilt:.0%}. The fit starts "
        "from no guess; its errors include the emulator's validation error."
    )
    report.table(["", "truth", *fits], [*_label_rows(fits), *_velocity_rows(fits)])
    for name, result in fits.items():
        flags = ", ".join(result.flags) or "none"
        report.text(f"{name}: reduced χ² {result.reduced_chi2:.2f}, {result.n_pixels} pixels, flags: {flags}.")
    report.figure(plots.fitted_spectrum(fits[best]), f"The star with its best {best} model; unused pixels are shaded.")
    report.heading("Time")
    report.table(["stage", "seconds"], [[k, f"{v:.1f}"] for k, v in summary["seconds"].items()])
    return report


def _label_rows(fits: Mapping[str, FitResult]) -> list[list[str]]:
    rows = []
    for name, truth in STAR.items():
        digits = 0 if name == "teff" else 3
        values = [f"{f.labels[name]:.{digits}f} ± {f.errors[name]:.{digits}f}" for f in fits.values()]
        rows.append([f"{name} ({unit_of(name)})", f"{truth:g}", *values])
    return rows


def _velocity_rows(fits: Mapping[str, FitResult]) -> list[list[str]]:
    return [
        ["radial velocity (km/s)", f"{OBSERVATION.rv}", *(f"{f.rv:.2f} ± {f.rv_error:.2f}" for f in fits.values())],
        ["v sin i (km/s)", f"{OBSERVATION.vsini}", *(f"{f.vsini:.2f} ± {f.vsini_error:.2f}" for f in fits.values())],
    ]
