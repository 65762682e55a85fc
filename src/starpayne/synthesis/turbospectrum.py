"""The second engine: Turbospectrum 20, an independent radiative-transfer code, on the same atmospheres and lines."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.interpolate import make_interp_spline

from starpayne.errors import SynthesisError
from starpayne.labels import LabelSpace
from starpayne.synthesis import turbospectrum_files as files
from starpayne.synthesis.abundances import abundances
from starpayne.synthesis.atmospheres import BOLTZMANN, ModelAtmosphere, atmosnet, check_layers
from starpayne.synthesis.engine import Synthesis
from starpayne.synthesis.hydrogen import hydrogen_lines
from starpayne.synthesis.linelists import GAIA_ESO_RANGE
from starpayne.synthesis.linesources import GAIA_ESO, check_covers, load_lines
from starpayne.synthesis.protocol import SCRATCH
from starpayne.synthesis.settings import TurbospectrumSettings
from starpayne.synthesis.smelib import solar_abundances, version_of
from starpayne.synthesis.stellar_labels import StellarLabels
from starpayne.synthesis.turbospectrum_install import COMMAND, Turbospectrum, find
from starpayne.wavelengths import check_wavelength, convert_medium

ALL_MOLECULES = "DATA/LISTE_molecules_all_v19.1.dat"
HYDROGEN_LINES = "DATA/Hlinedata"

CPU_LIMIT = 300
"""Seconds of processor time after which the system ends a program that its parent can no longer end."""

NOT_RUN = (126, 127)
"""Statuses of a shell that found no program, or one of another machine."""

PRESSURE_TOLERANCE = 0.01
"""Largest relative difference of a layer's gas pressure from the model's; 0.001 moves the flux by less than 1e-4."""

MOST_RUNS = 12
SLOPES = (0.7, 2.5)
"""Bounds of d ln P / d ln P_e: about 1 where electrons come from ionised metals, 2 where hydrogen is being ionised."""

WINGS = 20
"""Steps by which the computed window is wider than the one asked for, so that the interpolation has neighbours."""


def make(settings: Mapping[str, Any]) -> TurbospectrumEngine:
    """Build the engine from plain data, as a child process does."""
    return TurbospectrumEngine(TurbospectrumSettings.from_dict(settings))


class TurbospectrumEngine:
    """Synthesizes spectra by running Turbospectrum's two programs, in a folder that is deleted afterwards.

    LTE, plane-parallel, fluxes only. Temperature and gas pressure are the model's; electrons and the chemical
    equilibrium are Turbospectrum's own, for the abundances asked for.

    Example:
        ``TurbospectrumEngine().synthesize({"teff": 5772, "logg": 4.438}, log_grid(5160, 5210, 200_000)).flux``

    Source:
        Plez 2012, ascl:1205.004; Gerber et al. 2023, A&A 669, A43.
    """

    def __init__(self, settings: TurbospectrumSettings | None = None) -> None:
        self.settings = settings or TurbospectrumSettings()
        self.code: Turbospectrum = find()
        self._labels = StellarLabels(solar_abundances(self.settings.abundances), self.settings.fixed)
        self._labels.refuse_unknown(self.settings.fixed)
        self._molecules = ""
        if self.settings.molecules == "abundant":
            table = (self.code.data / Path(ALL_MOLECULES).name).read_text(encoding="ascii", errors="replace")
            self._molecules = files.abundant_molecules(table)
        self._lines: tuple[str, int] | None = None
        self._window: tuple[float, float] | None = None

    # -- the Engine protocol --------------------------------------------------------------------------------

    def synthesize(
        self, labels: Mapping[str, float], wavelength: np.ndarray, atmosphere: ModelAtmosphere | None = None
    ) -> Synthesis:
        """Return the spectrum of ``labels`` on (n_wavelength,) Å in the medium of the settings.

        Args:
            labels: physical units; missing feh, alpha_fe and vmic are 0, 0 and 1 km/s.
            wavelength: (n_wavelength,) Å, increasing, float64. Turbospectrum computes at equal steps, from which the
                spectrum is interpolated (quintic spline).
            atmosphere: as for PySME.

        Raises:
            LabelError: unknown, missing or out-of-range labels.
            SynthesisError: if Turbospectrum fails, or its answer is not a spectrum.
        """
        air = convert_medium(check_wavelength(wavelength), self.settings.medium, "air")
        lines, _ = self._prepared(air)
        complete = self._labels.complete(labels, atmosphere)
        if atmosphere is None:
            atmosphere = atmosnet(*(complete[name] for name in ("teff", "logg", "feh", "alpha_fe")))
        model = atmosphere.trim(stride=self.settings.layer_stride)
        check_layers(model)
        step = float(min(air[0] / self.settings.step, np.min(np.diff(air), initial=np.inf)))
        low, high = round(air[0] - WINGS * step, 6), air[-1] + WINGS * step
        step = round(step, 8)
        with tempfile.TemporaryDirectory(prefix="starpayne-turbospectrum-", dir=os.environ.get(SCRATCH)) as name:
            folder = Path(name)
            self._write(folder, lines)
            composition = files.composition_words(
                abundances(complete, self._labels.solar), complete["feh"], complete["alpha_fe"]
            )
            window = files.window_words(low, high, step)
            molecules = "molecules" if self._molecules else ALL_MOLECULES
            # Continuous opacities at every Å, which must enclose the window.
            words = files.opacity_words(
                files.window_words(low - 2.0, high + 2.0, 1.0), composition, complete["vmic"], molecules
            )
            self._opacities(folder, model, words)
            lists = ["lines", *([HYDROGEN_LINES] if len(hydrogen_lines(low, high)) else [])]
            self._run("bsyn_lu", files.spectrum_words(window, composition, lists, molecules), folder)
            own, flux, level = files.read_spectrum(folder / "spectrum", low, step)
        return _interpolated(own, flux, level, air)

    def provenance(self) -> dict[str, Any]:
        """Return engine, versions, line list, atmosphere, abundances, settings and physics flags as JSON data."""
        lines = self._lines
        if lines is None and self.settings.window is not None:
            lines = self._prepared(convert_medium(np.array(self.settings.window), self.settings.medium, "air"))
        described = None
        if lines is not None:
            text, n = lines
            digest = hashlib.sha256(text.encode()).hexdigest()[:16]
            described = {"name": self.settings.line_list, "hash": digest, "lines": n}
        return {
            "engine": "turbospectrum",
            "versions": {"turbospectrum": self.code.version, "atmosnet": version_of("atmosnet")},
            "line_list": described,
            "atmosphere": "atmosnet c3k cool, -6 < log tau_Ross < 1.5",
            "abundances": self.settings.abundances,
            "settings": self.settings.to_dict(),
            "physics": ["no_molecules", "lte", "plane_parallel"],
        }

    def check(self, space: LabelSpace) -> None:
        """Refuse labels and ranges that the engine cannot do, before anything runs.

        Raises:
            LabelError: as :meth:`~starpayne.synthesis.stellar_labels.StellarLabels.check` says.
        """
        self._labels.check(space)

    # -- files and programs ---------------------------------------------------------------------------------

    def _prepared(self, air: np.ndarray) -> tuple[str, int]:
        """Return the line list of the window as text, read once."""
        low, high = float(air[0]), float(air[-1])
        known = self._window
        if self._lines is not None and known and known[0] - 1e-6 <= low and high <= known[1] + 1e-6:
            return self._lines
        if self.settings.window is not None:
            ends = convert_medium(np.array(self.settings.window), self.settings.medium, "air")
            low, high = min(low, float(ends[0])), max(high, float(ends[1]))
        margin = self.settings.margin
        if self.settings.line_list == GAIA_ESO:
            text, n = files.gaia_eso_text(low - margin, high + margin)
            check_covers(GAIA_ESO, low, high, *GAIA_ESO_RANGE, n)
        else:
            lines = load_lines(self.settings.line_list, low, high, margin)
            text, n = files.line_list_text(lines), len(lines)
        self._lines, self._window = (text, n), (low, high)
        return self._lines

    def _write(self, folder: Path, lines: str) -> None:
        (folder / "DATA").symlink_to(self.code.data.resolve(), target_is_directory=True)
        (folder / "lines").write_text(lines)
        if self._molecules:
            (folder / "molecules").write_text(self._molecules)

    def _opacities(self, folder: Path, model: ModelAtmosphere, words: str) -> None:
        """Run ``babsma_lu`` until the electrons belong to the abundances.

        Turbospectrum takes the electron pressure from the model and computes from it the gas pressure. Where abundances
        are not the model's (magnesium gives a cool star a third of its electrons), that is not the gas pressure that
        carries the layers above. So the electron density of every layer is changed, by secants in the logarithm, until
        the gas pressure is the model's.
        """
        wanted = np.log((model.atom_density + model.electron_density) * BOLTZMANN * model.temperature)
        electrons = np.log(model.electron_density)
        slope, before = np.interp(model.temperature, (4500.0, 7000.0), (1.1, 1.95)), None
        for _ in range(MOST_RUNS):
            text = files.atmosphere_text(model, np.exp(wanted), np.exp(electrons))
            (folder / "model").write_text(text)
            pressure = files.gas_pressure(self._run("babsma_lu", words, folder))
            if len(pressure) != len(wanted) or not np.all(pressure > 0):
                raise SynthesisError("Turbospectrum's babsma_lu printed no gas pressure for every layer")
            found = np.log(pressure)
            error = found - wanted
            if np.max(np.abs(error)) < PRESSURE_TOLERANCE:
                return
            if before is not None:
                step = electrons - before[0]
                secant = np.divide(found - before[1], step, out=slope.copy(), where=np.abs(step) > 1e-4)
                slope = np.clip(secant, *SLOPES)
            before = electrons, found
            electrons = electrons - error / slope
        raise SynthesisError(
            f"no electron density found at which Turbospectrum's gas pressure is the model's: {MOST_RUNS} tries left a "
            f"difference of {np.max(np.abs(error)):.1%}"
        )

    def _run(self, program: str, words: str, folder: Path) -> str:
        """Run one of the programs and return what it prints, which is quoted if it fails.

        Fortran's ``stop`` with a message has exit status 0: whether there is a spectrum is seen from its file.
        """
        # The shell sets the limit: a preexec_fn would have to fork this process, in which JAX may run threads.
        command = ["sh", "-c", f'ulimit -t {CPU_LIMIT} 2> /dev/null; exec "$0"', str(self.code.programs / program)]
        done = subprocess.run(
            command, input=words.encode(), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )  # fmt: skip
        expected = {"babsma_lu": "opacity", "bsyn_lu": "spectrum"}[program]
        output, printed = folder / expected, done.stdout.decode(errors="replace")
        if done.returncode or not output.is_file() or output.stat().st_size == 0:
            last = [line.strip() for line in printed.splitlines() if line.strip()][-2:]
            remedy = f"; run: {COMMAND} --overwrite" if done.returncode in NOT_RUN else ""
            raise SynthesisError(
                f"Turbospectrum's {program} failed (status {done.returncode}): {' / '.join(last)}{remedy}"
            )
        return printed


def _interpolated(own: np.ndarray, flux: np.ndarray, level: np.ndarray, air: np.ndarray) -> Synthesis:
    """Return the spectrum at the wavelengths asked for.

    The continuum is a ratio of two rounded numbers, 1e-5 or better where the flux is high, and smooth: it is
    interpolated linearly between such wavelengths.
    """
    high = np.isfinite(level) & (flux > min(0.5, float(np.median(flux))))
    if not (np.all(np.isfinite(flux)) and np.any(high) and np.all(level[high] > 0) and own[-1] >= air[-1]):
        raise SynthesisError("NaN, no continuum or too short a window in the flux that Turbospectrum returned")
    continuum = np.interp(air, own[high], level[high])
    return Synthesis(np.asarray(make_interp_spline(own, flux, k=5)(air), np.float64), continuum)
