"""PySME's spectra are the ones its makers get, whatever was synthesized before, in the units we promise."""

from __future__ import annotations

import csv
import gzip
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from starpayne.errors import LabelError, SynthesisError
from starpayne.labels import Label, LabelSpace
from starpayne.synthesis import Design, Engine, PySMESettings, engine
from starpayne.synthesis.pysme import PySMEEngine
from starpayne.wavelengths import air_to_vacuum, log_grid

pytestmark = pytest.mark.synthesis

SUN = {"teff": 5772.0, "logg": 4.438}
MG_B = log_grid(5165, 5175, 200_000)


@pytest.fixture(scope="module")
def sun() -> PySMEEngine:
    return PySMEEngine(PySMESettings(window=(5165, 5175)))


@pytest.fixture(scope="module")
def reference() -> PySMEEngine:
    """The engine with the recipe of mgb_reference; its lines are pruned at the corners its README names."""
    return PySMEEngine(PySMESettings.from_dict(Design.shipped("mgb_reference").engine_settings()))


# -- against the shared grid -------------------------------------------------------------------------------------


def test_pruning_finds_the_lines_of_the_shared_grid(reference: PySMEEngine, data_folder: Path) -> None:
    assert reference.provenance()["line_list"]["lines"] == 1087
    with (data_folder / "mgb_reference" / "lines.csv").open() as rows:
        stored = [(r["species"], float(r["wlcent"]), round(float(r["gflog"]), 4)) for r in csv.DictReader(rows)]
    lines = reference.lines
    assert lines is not None
    ours = zip(lines.species, lines.wavelength, lines.log_gf, strict=True)
    assert sorted((str(s), float(w), round(float(g), 4)) for s, w, g in ours) == sorted(stored)


@pytest.mark.parametrize("row", [0, 5, 10_999])
def test_spectra_of_the_shared_grid_come_out_again(reference: PySMEEngine, mgb: Any, row: int) -> None:
    spectrum = reference.synthesize(mgb.star(row), mgb.wavelength)
    assert np.max(np.abs(spectrum.flux - mgb.flux[row])) <= 1.2e-5, "half a step of the stored integers is 1e-5"
    np.testing.assert_allclose(spectrum.continuum[[0, -1]], mgb.continuum_ends[row], rtol=1e-6)


# -- traps -------------------------------------------------------------------------------------------------------


def test_abundances_reach_smelib_as_totals(sun: PySMEEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """At [Fe/H] = −2, [Mg/Fe] = +0.1, A(Mg) is A☉ − 1.9; PySME's abund["Mg"] = … would add the metallicity twice."""
    from pysme.abund import Abund

    handed_over = []
    give = sun._sme.InputAbund
    monkeypatch.setattr(sun._sme, "InputAbund", lambda abund: (handed_over.append(abund), give(abund)))
    sun.synthesize({**SUN, "feh": -2.0, "alpha_fe": 0.3, "mg_fe": 0.1}, MG_B)
    (abund,) = handed_over
    solar = Abund(monh=0.0, pattern="asplund2009")
    assert abund.A["Mg"] == pytest.approx(solar.A["Mg"] - 1.9)
    assert abund.A["Ca"] == pytest.approx(solar.A["Ca"] - 1.7)
    assert abund.A["Fe"] == pytest.approx(solar.A["Fe"] - 2.0)
    assert abund.A["C"] == pytest.approx(solar.A["C"] - 2.0)
    trap = Abund(monh=-2.0, pattern="asplund2009")
    with pytest.warns(FutureWarning):
        trap["Mg"] = solar.A["Mg"] - 1.9
    assert trap["Mg"] == pytest.approx(solar.A["Mg"] - 3.9), "the trap is still there: keep writing .A"


def test_cool_metal_poor_dwarfs_do_not_hang_since_deep_layers_are_trimmed(sun: PySMEEngine) -> None:
    for labels in ({"teff": 4000.0, "logg": 5.0, "feh": -2.5}, {"teff": 4000.0, "logg": 1.0, "feh": -2.5}):
        flux = sun.synthesize(labels, MG_B).flux
        assert 0 < flux.min() < flux.max() < 1.001


def test_a_spectrum_does_not_depend_on_those_before_it(sun: PySMEEngine) -> None:
    first = sun.synthesize(SUN, MG_B)
    for labels in ({"teff": 4200.0, "logg": 1.5, "feh": 0.3}, {"teff": 7900.0, "logg": 4.5, "feh": -2.0, "mg_fe": 0.5}):
        sun.synthesize(labels, MG_B)
    again = sun.synthesize(SUN, MG_B)
    np.testing.assert_array_equal(first.flux, again.flux)
    np.testing.assert_array_equal(first.continuum, again.continuum)
    other = PySMEEngine(PySMESettings(window=(5165, 5175))).synthesize(SUN, MG_B)
    np.testing.assert_array_equal(first.flux, other.flux)


def test_default_transfer_accuracy_is_below_a_ten_thousandth(sun: PySMEEngine) -> None:
    finest = PySMEEngine(PySMESettings(window=(5165, 5175), accrt=1e-5)).synthesize(SUN, MG_B).flux
    coarse = PySMEEngine(PySMESettings(window=(5165, 5175), accrt=1e-3)).synthesize(SUN, MG_B).flux
    default = sun.synthesize(SUN, MG_B).flux
    assert np.mean(np.abs(default - finest)) < 5e-5
    assert np.mean(np.abs(coarse - finest)) > np.mean(np.abs(default - finest))


def test_every_second_layer_is_another_recipe(sun: PySMEEngine) -> None:
    halved = PySMEEngine(PySMESettings(window=(5165, 5175), layer_stride=2)).synthesize(SUN, MG_B)
    full = sun.synthesize(SUN, MG_B)
    assert 1e-4 < np.mean(np.abs(halved.flux - full.flux)) < 3e-3
    assert 1e-3 < np.mean(np.abs(halved.continuum / full.continuum - 1)) < 1e-2


def test_pruned_spectra_differ_little_from_those_with_all_lines(sun: PySMEEngine) -> None:
    corner = {"teff": 5772.0, "logg": 4.438, "vmic": 1.0}
    pruned = PySMEEngine(PySMESettings(window=(5165, 5175), corners=(corner,)))
    difference = pruned.synthesize(SUN, MG_B).flux - sun.synthesize(SUN, MG_B).flux
    assert pruned.lines is not None
    assert sun.lines is not None
    assert len(pruned.lines) < 0.7 * len(sun.lines)
    assert np.sqrt(np.mean(difference**2)) < 1e-3


def test_alpha_fe_does_not_strengthen_magnesium_lines_at_fixed_mg_fe(sun: PySMEEngine) -> None:
    centre = np.argmin(np.abs(MG_B - 5172.68))

    def wing(**labels: float) -> float:
        return float(sun.synthesize({**SUN, **labels}, MG_B).flux[centre + 15])

    by_alpha = wing(mg_fe=0.0, alpha_fe=0.3) - wing(mg_fe=0.0, alpha_fe=0.0)
    by_mg = wing(mg_fe=0.3, alpha_fe=0.0) - wing(mg_fe=0.0, alpha_fe=0.0)
    assert by_mg < -0.03
    # What is left is the atmosphere and the electrons of the other α elements, which weaken the wings.
    assert 0 < by_alpha < 0.03


# -- units, media, angles ----------------------------------------------------------------------------------------


def test_solar_continuum_is_a_surface_flux_in_erg_per_s_cm2_angstrom() -> None:
    wavelength = log_grid(5500, 5502, 100_000)
    spectrum = PySMEEngine(PySMESettings(mu=(1.0,))).synthesize(SUN, wavelength)
    # Disk-centre continuum 3.63e6 erg/(s cm2 Å sr) and mean over centre 0.82: Neckel & Labs 1984, 1994, Solar Phys.
    assert spectrum.continuum[0] == pytest.approx(np.pi * 0.82 * 3.63e6, rel=0.08)
    assert spectrum.intensity is not None
    assert spectrum.intensity.shape == (1, len(wavelength))
    assert spectrum.intensity.max() == pytest.approx(3.63e6, rel=0.08)


def test_intensities_at_the_angles_of_the_flux_give_the_flux() -> None:
    rings = tuple(np.sqrt(1 - (np.arange(7) + 0.5) / 7))
    spectrum = PySMEEngine(PySMESettings(mu=rings)).synthesize(SUN, MG_B)
    assert spectrum.intensity is not None
    np.testing.assert_allclose(np.pi * spectrum.intensity.mean(axis=0), spectrum.flux * spectrum.continuum, rtol=1e-12)


def test_vacuum_and_air_wavelengths_give_the_same_spectrum(sun: PySMEEngine) -> None:
    vacuum = PySMEEngine(PySMESettings(medium="vacuum")).synthesize(SUN, air_to_vacuum(MG_B))
    np.testing.assert_allclose(vacuum.flux, sun.synthesize(SUN, MG_B).flux, atol=1e-9)


# -- hydrogen ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("line", "low", "high"), [("Hα", 6540.0, 6585.0), ("Hβ", 4845.0, 4878.0)])
def test_balmer_wings_of_the_sun_are_the_observed_ones(data_folder: Path, line: str, low: float, high: float) -> None:
    """The wings are LTE physics to 0.03; the core forms in the chromosphere and is not expected to fit."""
    with gzip.open(data_folder / "sun_atlas" / "ATLAS.Sun_47000.txt.gz", "rt") as text:
        observed = np.loadtxt(text, skiprows=1)
    wavelength = log_grid(low, high, 100_000)
    flux = PySMEEngine().synthesize(SUN, wavelength).flux
    centre = {"Hα": 6562.79, "Hβ": 4861.33}[line]
    at = 10 * observed[:, 0]
    for near, far in ((1.5, 4), (4, 9), (9, 15)):
        rows = (np.abs(at - centre) > near) & (np.abs(at - centre) < far)
        envelope = np.percentile(np.interp(at[rows], wavelength, flux), 80), np.percentile(observed[rows, 1], 80)
        assert abs(envelope[0] - envelope[1]) < 0.035, f"{line}, {near} to {far} Å from its centre"
    assert flux[np.argmin(np.abs(wavelength - centre))] < 0.45


def test_paschen_lines_are_deep_in_hot_stars_and_weak_in_cool_ones() -> None:
    wavelength = log_grid(8655, 8675, 50_000)
    at = np.argmin(np.abs(wavelength - 8665.02))
    solver = PySMEEngine()
    hot = solver.synthesize({"teff": 7900.0, "logg": 4.0, "feh": -2.0}, wavelength).flux[at]
    cool = solver.synthesize({"teff": 4800.0, "logg": 4.5, "feh": -2.0}, wavelength).flux[at]
    assert hot < 0.85
    assert cool > 0.95


# -- molecules ---------------------------------------------------------------------------------------------------


def _vald(tmp_path: Path, *species: str) -> Path:
    heading = "   Lande factors   Damping parameters\nElm Ion WL_air(A) log gf* E_low(eV) J lo E_up(eV) J up\n"
    record = "'{}', {}, -1.0, 0.2, 2.0, 5.0, 3.0, 1.0, 1.0, 1.0, 7.0, 0.0, 0.0,\n'  LS a'\n'  LS b'\n'_ K wl:K14'\n"
    path = tmp_path / "vald.txt"
    path.write_text(heading + "".join(record.format(s, 5166 + 2 * i) for i, s in enumerate(species)))
    return path


def test_molecules_of_a_vald_extract_absorb_and_clear_the_flag(tmp_path: Path) -> None:
    path = _vald(tmp_path, "MgH 1", "C2 1", "Fe 1")
    solver = PySMEEngine(PySMESettings(line_list=str(path), window=(5165, 5172)))
    wavelength = log_grid(5165, 5172, 200_000)
    flux = solver.synthesize({"teff": 4500.0, "logg": 4.5}, wavelength).flux
    for centre in (5166, 5168, 5170):
        assert flux[np.argmin(np.abs(wavelength - centre))] < 0.9
    provenance = solver.provenance()
    assert provenance["physics"] == ["lte", "plane_parallel"]
    assert provenance["line_list"]["name"] == "vald:vald.txt"


def test_a_species_at_which_smelib_would_end_the_process_is_refused(tmp_path: Path) -> None:
    solver = PySMEEngine(PySMESettings(line_list=str(_vald(tmp_path, "Xy 1", "Fe 1"))))
    with pytest.raises(SynthesisError, match="the line list has the species 'Xy 1'"):
        solver.synthesize(SUN, log_grid(5165, 5170, 50_000))


# -- refusals and metadata ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"Teff": 5772, "logg": 4.4}, r"unknown label 'Teff'; did you mean 'teff'\?"),
        ({"teff": 5772}, "missing labels: logg"),
        ({**SUN, "vmic": -1}, "vmic = -1 km/s is negative"),
        ({**SUN, "mg_fe": float("nan")}, "mg_fe = nan is not a finite number"),
        ({"teff": 8100, "logg": 4}, "teff = 8100 is outside the range of the atmosnet model atmospheres, 2500 to 8000"),
    ],
)
def test_bad_labels_are_refused(sun: PySMEEngine, labels: Mapping[str, float], message: str) -> None:
    with pytest.raises(LabelError, match=message):
        sun.synthesize(labels, MG_B)


def test_check_refuses_a_design_before_anything_runs() -> None:
    solver = PySMEEngine(PySMESettings(fixed={"vmic": 1.0}))
    teff, logg = Label("teff", 5000, 6000), Label("logg", 3, 5)
    solver.check(LabelSpace((teff, logg, Label("mg_fe", -0.4, 0.4))))
    for labels, message in (
        ((teff, logg, Label("kr_ypton", 0, 1)), "unknown label 'kr_ypton'"),
        ((teff,), "missing labels: logg"),
        ((teff, logg, Label("vmic", 0, 2)), "vmic is both a label of the design and fixed"),
        ((Label("teff", 5000, 8500), logg), "label teff: 5000 to 8500 K reaches beyond the atmosnet model"),
    ):
        with pytest.raises(LabelError, match=message):
            solver.check(LabelSpace(labels))


@pytest.mark.parametrize(("low", "high"), [(4000, 4010), (9190, 9210), (1500, 1600)])
def test_a_window_that_the_line_list_does_not_cover_is_refused(low: float, high: float) -> None:
    with pytest.raises(SynthesisError, match=r"covers 4200 to 9200 Å|PySME needs them above 2000 Å"):
        PySMEEngine().synthesize(SUN, log_grid(low, high, 50_000))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"acrt": 1e-3},
            r"unknown engine setting 'acrt'; did you mean 'accrt'\?; known settings: line_list, abundances",
        ),
        ({"abundances": "asplund2099"}, "unknown solar composition 'asplund2099'; choose one of asplund2009"),
        ({"accrt": 1.0}, "engine setting accrt = 1.0 is outside the range 1e-06 to 0.01"),
        ({"n_mu": 2.5}, "engine setting n_mu = 2.5 is not a whole number"),
        ({"mu": [0.0]}, "cosines of viewing angles lie in"),
        ({"medium": "water"}, "medium 'water' is not known"),
        ({"fixed": {"tefff": 1}}, r"unknown label 'tefff'; did you mean 'teff'\?"),
    ],
)
def test_bad_settings_are_refused_by_name(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        engine("pysme", settings)


def test_settings_survive_the_way_through_plain_data() -> None:
    settings = PySMESettings(mu=(0.5,), window=(5000, 5010), corners=({"teff": 5000},), fixed={"vmic": 1})
    assert PySMESettings.from_dict(settings.to_dict()) == settings


def test_provenance_says_what_was_done_and_what_is_missing(sun: PySMEEngine) -> None:
    provenance = sun.provenance()
    assert isinstance(sun, Engine)
    assert provenance["physics"] == ["no_molecules", "lte", "plane_parallel"]
    assert provenance["versions"]["atmosnet"] == "1.0.1"
    assert provenance["line_list"]["name"] == "gaia-eso"
    assert len(provenance["line_list"]["hash"]) == 16
    assert provenance["abundances"] == "asplund2009"
    assert provenance["settings"]["accrt"] == 1e-4


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pysme", "pysme.abund", "pysme.sme_synth"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=r'PySME is not installed .*pip install "starpayne\[synthesis\]"'):
        PySMEEngine()


def test_two_processes_may_import_pysme_for_the_first_time_together(tmp_path: Path) -> None:
    """At its first import PySME writes ~/.sme; the second process must not read half of it. It is also silent."""
    code = "from starpayne.synthesis.pysme import PySMEEngine; PySMEEngine()"
    environment = {**os.environ, "HOME": str(tmp_path)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for _ in range(2)
    ]
    for process in started:
        printed = process.communicate(timeout=100)[0]
        assert process.returncode == 0, printed
        assert printed == b""
    assert (tmp_path / ".sme" / "config.json").exists()
