"""PySME against Turbospectrum: the same stars, atmospheres, lines and abundances through two independent codes.

``STARPAYNE_DATA=… python benchmarks/engines.py`` compares normalised flux and continuum on 5160–5210 Å, twice: as the
codes are, and told the same: one list of damping constants for both (no terms to look up others by, no broadening by
electrons, which the Gaia-ESO list does not give and each code guesses), and scattering in the continuum taken as
absorption, as PySME does. What is left then is how they solve the same equations. The Sun is also held against the
observed atlas, and drawn in docs/images/engines.png. Two minutes on one core. Seconds are those of the processor, for a
spectrum after the first, with all lines of the list.
"""

from __future__ import annotations

import gzip
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from yardstick import data_folder, record

from starpayne import plots, simulate
from starpayne.synthesis import LineList, PySMESettings, Synthesis, TurbospectrumSettings, gaia_eso
from starpayne.synthesis.pysme import PySMEEngine
from starpayne.synthesis.turbospectrum import TurbospectrumEngine
from starpayne.wavelengths import log_grid

LOW, HIGH, SAMPLING = 5160.0, 5210.0, 200_000
NO_STARK = -30.0
"""log10 of a width per electron that broadens nothing; 0 would let either code guess one."""

SUN = {"teff": 5772.0, "logg": 4.438, "vmic": 1.0}
STARS: dict[str, dict[str, float]] = {
    "Sun": SUN,
    "Sun, [Mg/Fe] = 0.4": {**SUN, "mg_fe": 0.4},
    "hot dwarf": {"teff": 7500.0, "logg": 4.0, "vmic": 2.0},
    "cool dwarf": {"teff": 4500.0, "logg": 4.6, "feh": 0.2, "vmic": 1.0},
    "red giant": {"teff": 4500.0, "logg": 1.5, "feh": -1.0, "alpha_fe": 0.3, "vmic": 1.5},
    "metal-poor turn-off": {"teff": 6200.0, "logg": 4.0, "feh": -2.0, "vmic": 1.5},
    "metal-poor giant": {"teff": 4000.0, "logg": 1.0, "feh": -2.5, "alpha_fe": 0.4, "vmic": 2.0},
}
OBSERVED = simulate.Observation(vsini=1.6, resolution=42_000)
"""The atlas has R = 47,000; macroturbulence takes that to 42,000."""


class WithoutScattering(TurbospectrumEngine):
    """Turbospectrum with scattering in the continuum taken as absorption."""

    def _opacities(self, folder: Path, model: Any, words: str) -> None:
        super()._opacities(folder, model, f"'PURE-LTE  :' '.true.'\n{words}")


def vald_extract(path: Path, lines: LineList) -> Path:
    """Write lines as a VALD extract in long format, without broadening by electrons."""
    heading = "   Lande factors   Damping parameters\nElm Ion WL_air(A) log gf* E_low(eV) J lo E_up(eV) J up\n"
    record = "'{}', {:.4f}, {:.4f}, {:.4f}, 0, 0, 0, 0, 0, 0, {:.4f}, {:.1f}, {:.4f},\n'  LS'\n'  LS'\n'_'\n"
    columns = (lines.species, lines.wavelength, lines.log_gf, lines.excitation, lines.radiative)
    rows = zip(*columns, np.full(len(lines), NO_STARK), lines.waals, strict=True)
    path.write_text(heading + "".join(record.format(*row) for row in rows))
    return path


def synthesized(engine: Any, star: Mapping[str, float], wavelength: np.ndarray) -> tuple[Synthesis, float]:
    """Return the spectrum and its seconds of processor time, those of the programs that the engine runs included."""
    before = sum(os.times()[:4])
    spectrum = engine.synthesize(star, wavelength)
    return spectrum, sum(os.times()[:4]) - before


def compared(ours: Synthesis, other: Synthesis) -> dict[str, float]:
    difference = ours.flux - other.flux
    return {
        "rms": round(float(np.sqrt(np.mean(difference**2))), 5),
        "mean_absolute": round(float(np.mean(np.abs(difference))), 5),
        "largest": round(float(np.max(np.abs(difference))), 4),
        "continuum_ratio": round(float(np.mean(ours.continuum / other.continuum)), 4),
    }


def atlas() -> tuple[np.ndarray, np.ndarray]:
    """Return wavelength (Å, air) and normalised flux of the observed Sun."""
    with gzip.open(data_folder() / "sun_atlas" / "ATLAS.Sun_47000.txt.gz", "rt") as text:
        table = np.loadtxt(text, skiprows=1)
    return 10 * table[:, 0], table[:, 1]


def figure(wavelength: np.ndarray, suns: Mapping[str, tuple[Synthesis, Synthesis]], path: Path) -> dict[str, float]:
    """Draw the Sun by both codes and as observed, and the differences; return the rms against the observed one."""
    ours, other = suns["as they are"]
    drawn, axes = plots.new_figure(3, 1, figsize=(9, 7.5))
    observed: np.ndarray | None = None
    left: dict[str, float] = {}
    # The thin line lies on the thick one, which is seen wherever the two differ.
    drawing = (("PySME", other, plots.COLOURS[4], 1.8), ("Turbospectrum", ours, plots.COLOURS[0], 0.8))
    for name, spectrum, colour, width in drawing:
        pixels, flux = simulate.record(wavelength, spectrum.flux, LOW + 1, HIGH - 1, OBSERVED)
        if observed is None:
            observed = np.interp(pixels, *atlas())
            axes[0, 0].plot(pixels, observed, color="black", lw=1.0, ls=":", zorder=3, label="observed atlas")
        axes[0, 0].plot(pixels, flux, color=colour, lw=width, label=name)
        left[name] = round(float(np.sqrt(np.mean((flux - observed) ** 2))), 4)
        label = f"{name} − observed, rms {left[name]:.4f}"
        axes[2, 0].plot(pixels, flux - observed, color=colour, lw=width, label=label)
    for (name, pair), colour in zip(suns.items(), (plots.COLOURS[1], plots.COLOURS[2]), strict=True):
        rms = compared(*pair)["rms"]
        axes[1, 0].plot(wavelength, pair[0].flux - pair[1].flux, color=colour, lw=0.8, label=f"{name}, rms {rms:.4f}")
    titles = (
        f"the Sun at R = {OBSERVED.resolution:,.0f}", "Turbospectrum − PySME, not broadened",
        f"either − observed, R = {OBSERVED.resolution:,.0f}",
    )  # fmt: skip
    labels = ("normalised flux", "difference of\nnormalised flux", "difference of\nnormalised flux")
    for axis, title, label in zip(axes[:, 0], titles, labels, strict=True):
        axis.set_title(title, fontsize=9, loc="left")
        axis.set_ylabel(label)
        axis.legend(fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.1, frameon=False, ncols=3)
        axis.set_xlim(LOW, HIGH)
    axes[-1, 0].set_xlabel("wavelength in air (Å)")
    drawn.savefig(path)
    return left


def main() -> None:
    wavelength = log_grid(LOW, HIGH, SAMPLING)
    window = (float(wavelength[0]), float(wavelength[-1]))
    rows: dict[str, dict[str, Any]] = {}
    suns: dict[str, tuple[Synthesis, Synthesis]] = {}
    with tempfile.TemporaryDirectory() as folder:
        alike = str(vald_extract(Path(folder) / "alike.txt", gaia_eso(LOW - 6, HIGH + 6)))
        pairs = {
            "as they are": (
                TurbospectrumEngine(TurbospectrumSettings(window=window)), PySMEEngine(PySMESettings(window=window)),
            ),
            "told the same": (
                WithoutScattering(TurbospectrumSettings(window=window, line_list=alike)),
                PySMEEngine(PySMESettings(window=window, line_list=alike)),
            ),
        }  # fmt: skip
        print(f"{'':20} {'':14} {'rms':>8} {'mean':>8} {'largest':>8} {'continuum':>10} {'seconds':>14}")
        for way, engines in pairs.items():
            for engine in engines:
                engine.synthesize(SUN, wavelength)  # reads its lines
            for star, labels in STARS.items():
                (ours, our_seconds), (other, other_seconds) = (synthesized(e, labels, wavelength) for e in engines)
                row = compared(ours, other)
                seconds = {"turbospectrum": round(our_seconds, 2), "pysme": round(other_seconds, 2)}
                rows.setdefault(star, {"labels": labels})[way] = {**row, "processor_seconds": seconds}
                if star == "Sun":
                    suns[way] = ours, other
                numbers = f"{row['rms']:8.4f} {row['mean_absolute']:8.4f} {row['largest']:8.3f}"
                both = f"{our_seconds:6.2f} {other_seconds:6.2f}"
                print(f"{star:20} {way:14} {numbers} {row['continuum_ratio']:10.4f} {both:>14}", flush=True)
    images = Path(__file__).parent.parent / "docs" / "images"
    left = figure(wavelength, suns, images / "engines.png")
    versions = {**pairs["as they are"][0].provenance()["versions"], **pairs["as they are"][1].provenance()["versions"]}
    record(
        "engines",
        {
            "window": f"{LOW:g}-{HIGH:g} Å (air), sampled at {SAMPLING:,}, gaia-eso lines, atmosnet atmospheres",
            "versions": versions, "turbospectrum_minus_pysme": rows, "rms_against_observed_sun": left,
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
