"""The report of a study: tables and figures in one HTML page, and each figure as PNG and PDF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from starpayne.labels import unit_of
from starpayne.report import Report
from starpayne.study.figures import error_against_cost, error_against_size, recovery_against_size
from starpayne.study.plan import Study
from starpayne.study.table import Result, curve, finished, names_of, row_of, write_tables


def write_report(study: Study, results: Sequence[Result], folder: Path) -> Path:
    """Write ``study.html``, the tables and ``figures/`` of the results; return the path of the page."""
    write_tables(folder, study.name, results)
    done = finished(results)
    report = Report(f"Study: {study.name}", study.description or "Emulators compared on one grid.")
    report.heading("Mean absolute error of normalised flux on the test spectra")
    report.table(*summary(results))
    if done:
        figures = {
            "error_against_size": (error_against_size(results), "Test error against the number of training spectra."),
            "error_against_cost": (
                error_against_cost(results),
                "Test error against cost, at the largest training set of each emulator.",
            ),
            "recovery_against_size": (
                recovery_against_size(results),
                "Scatter of recovered labels due to the emulator (fits of spectra without noise), of the stars whose "
                "bound is below a quarter of the label's range; dotted: the Cramér–Rao bound of the noise (median).",
            ),
        }
        (folder / "figures").mkdir(exist_ok=True)
        for name, (figure, caption) in figures.items():
            if figure is None:
                continue
            report.figure(figure, caption)
            for suffix in ("png", "pdf"):
                figure.savefig(folder / "figures" / f"{name}.{suffix}")
    if any(r.get("recovery") for r in done):
        report.heading("Labels recovered")
        report.text(recovery_setting(done))
        report.table(*recovered(done))
    report.heading("Cost")
    report.text(
        "Of the largest training set of each emulator, in its first seed. Operations are those of matrix products. The "
        "yardstick is a plain 2048³ float32 matrix product on the same machine, measured just before the training."
    )
    report.table(*costs(results))
    failed = [r for r in results if "failed" in r]
    if failed:
        report.heading("Not trained")
        report.table(["training", "why"], [[f"{r['emulator']}, N = {r['n_train']:,}", r["failed"]] for r in failed])
    lost = [r for r in done if "recovery_failed" in r]
    if lost:
        report.heading("Labels not recovered")
        report.table(
            ["training", "why"], [[f"{r['emulator']}, N = {r['n_train']:,}", r["recovery_failed"]] for r in lost]
        )
    page = folder / "study.html"
    report.write(page)
    return page


def summary(results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the table of test errors: mean over seeds ± half their range."""
    sizes = sorted({r["n_train"] for r in results})
    rows = []
    for name in names_of(results):
        own, values = curve(results, name, lambda r: r["test"]["mae"])
        row = [name]
        for n in sizes:
            found = values[own == n]
            found = found[np.isfinite(found)]
            if not len(found):
                row.append("–")
                continue
            spread = f" ± {(found.max() - found.min()) / 2:.5f}" if len(found) > 1 else ""
            row.append(f"{found.mean():.5f}{spread}")
        rows.append(row)
    return ["emulator", *(f"N = {n:,}" for n in sizes)], rows


def recovery_setting(results: Sequence[Result]) -> str:
    """Say how labels were recovered, and what the table shows."""
    facts = next(r["recovery"] for r in results if r.get("recovery"))
    return (
        f"{facts['n_spectra']} test spectra ({facts['split']}), R = {facts['resolution']:,.0f}, S/N {facts['snr']:g} "
        "per pixel, fitted from a coarse search, each with noise and without. Robust scatter (1.4826 times the median "
        "absolute deviation) of the label without noise, which is the emulator's part, and in brackets the Cramér–Rao "
        "bound that the noise sets, of the stars whose bound is below a quarter of the label's range; – for none. "
        "At the largest training set of each emulator. Fits that have not converged count too."
    )


def recovered(results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the table of recovered labels, one column per emulator."""
    with_recovery = [r for r in results if r.get("recovery")]
    chosen = {
        name: max((r for r in with_recovery if r["emulator"] == name), key=lambda r: r["n_train"])
        for name in names_of(with_recovery)
    }
    rows = []
    for label in with_recovery[0]["recovery"]["labels"]:
        row = [f"{label} ({unit_of(label)})" if unit_of(label) else label]
        for r in chosen.values():
            facts = r["recovery"]["summary"][label]
            part, bound = facts["emulator_scatter_constrained"], facts["bound_constrained"]
            row.append("–" if part is None else f"{part:.3g} ({bound:.3g})")
        rows.append(row)
    counts = [f"{r['recovery']['n_converged']} of {r['recovery']['n_spectra']}" for r in chosen.values()]
    return ["label", *(f"{n}, N = {r['n_train']:,}" for n, r in chosen.items())], [*rows, ["converged", *counts]]


def costs(results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the table of costs, for the largest training set of each emulator."""
    head = [
        "emulator",
        "parameters",
        "operations/spectrum",
        "training (s)",
        "ms/spectrum alone",
        "in a batch",
        "yardstick",
    ]
    rows = []
    for name in names_of(results):
        r = row_of(max((r for r in finished(results) if r["emulator"] == name), key=lambda r: r["n_train"]))
        rows.append([
            name, f"{r['parameters']:,}", f"{r['operations_per_spectrum']:.3g}",
            f"{r['training_seconds']:.0f}", f"{r['ms_per_spectrum_alone']:.2f}",
            f"{r['ms_per_spectrum_in_batch']:.3f}", f"{r['matrix_product_gflops']:.0f} GFLOP/s",
        ])  # fmt: skip
    return head, rows
