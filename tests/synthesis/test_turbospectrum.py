"""Turbospectrum is a second opinion: the spectra of PySME to a few thousandths, by other code, in the same units."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from starpayne.errors import LabelError, SynthesisError
from starpayne.labels import Label, LabelSpace
from starpayne.synthesis import (
    Design,
    Engine,
    LineList,
    PySMESettings,
    Synthesis,
    TurbospectrumSettings,
    atmosnet,
    engine,
    gaia_eso,
    run,
)
from starpayne.synthesis import turbospectrum_files as files
from starpayne.synthesis.linelists import make_linelist
from starpayne.synthesis.pysme import PySMEEngine
from starpayne.synthesis.turbospectrum import TurbospectrumEngine
from starpayne.wavelengths import air_to_vacuum, log_grid

pytestmark = [pytest.mark.synthesis, pytest.mark.turbospectrum]

SUN = {"teff": 5772.0, "logg": 4.438}
MG_B = log_grid(5165, 5175, 200_000)
MG_LINE = log_grid(5172, 5174, 200_000)
WING = np.argmin(np.abs(MG_LINE - 5172.68)) + 15
"""0.4 Å from the centre of the Mg b line at 5172.68 Å."""


@pytest.fixture(scope="module")
def solver() -> TurbospectrumEngine:
    return TurbospectrumEngine(TurbospectrumSettings(window=(5165, 5175)))


@pytest.fixture(scope="module")
def pysme() -> PySMEEngine:
    return PySMEEngine(PySMESettings(window=(5165, 5175)))


@pytest.fixture(scope="module")
def sun(solver: TurbospectrumEngine) -> Synthesis:
    return solver.synthesize(SUN, MG_B)


@pytest.fixture(scope="module")
def line(solver: TurbospectrumEngine) -> Synthesis:
    return solver.synthesize(SUN, MG_LINE)


def _mean_difference(first: Synthesis, second: Synthesis) -> float:
    return float(np.mean(np.abs(first.flux - second.flux)))


# -- against PySME -----------------------------------------------------------------------------------------------


def test_the_sun_is_pysmes_to_a_few_thousandths_and_not_the_same(sun: Synthesis, pysme: PySMEEngine) -> None:
    """They broaden lines by hydrogen and by electrons from different tables."""
    other = pysme.synthesize(SUN, MG_B)
    difference = sun.flux - other.flux
    assert 1e-3 < np.mean(np.abs(difference)) < 0.008
    assert 2e-3 < np.sqrt(np.mean(difference**2)) < 0.018
    assert np.corrcoef(sun.flux, other.flux)[0, 1] > 0.99


def test_the_continuum_is_pysmes_surface_flux_to_three_percent(sun: Synthesis, pysme: PySMEEngine) -> None:
    ratio = sun.continuum / pysme.synthesize(SUN, MG_B).continuum
    assert np.all(np.abs(ratio - 1) < 0.03)
    assert np.ptp(ratio) < 1e-3, "smooth: rounded numbers of the result file do not show"
    assert np.ptp(sun.continuum) < 0.01 * sun.continuum[0]


def test_a_metal_poor_giant_is_pysmes_too(solver: TurbospectrumEngine, pysme: PySMEEngine) -> None:
    giant = {"teff": 4500.0, "logg": 1.5, "feh": -1.0, "alpha_fe": 0.3, "vmic": 2.0}
    ours, other = solver.synthesize(giant, MG_LINE), pysme.synthesize(giant, MG_LINE)
    assert 2e-4 < _mean_difference(ours, other) < 0.01
    np.testing.assert_allclose(ours.continuum, other.continuum, rtol=0.05)


@pytest.mark.parametrize(("low", "high"), [(6565.5, 6567.0), (4864.0, 4865.0)], ids=["Hα", "Hβ"])
def test_hydrogen_wings_are_there_and_pysmes(low: float, high: float) -> None:
    wavelength = log_grid(low, high, 100_000)
    ours, other = TurbospectrumEngine().synthesize(SUN, wavelength), PySMEEngine().synthesize(SUN, wavelength)
    assert np.max(ours.flux) < 0.92, "the highest point in the wing stays well below the continuum"
    assert _mean_difference(ours, other) < 0.015


# -- traps -------------------------------------------------------------------------------------------------------


def test_abundance_labels_are_totals(solver: TurbospectrumEngine, line: Synthesis, pysme: PySMEEngine) -> None:
    """[Mg/Fe] = 0.3 deepens the wing as in PySME, and its electrons dim the continuum as there."""
    stronger = {**SUN, "mg_fe": 0.3}
    ours, other = solver.synthesize(stronger, MG_LINE), pysme.synthesize(stronger, MG_LINE)
    before = pysme.synthesize(SUN, MG_LINE)
    assert ours.flux[WING] - line.flux[WING] == pytest.approx(other.flux[WING] - before.flux[WING], rel=0.1)
    assert ours.flux[WING] - line.flux[WING] < -0.03
    np.testing.assert_allclose(ours.continuum / line.continuum, other.continuum / before.continuum, rtol=0.01)
    assert ours.continuum[0] < 0.95 * line.continuum[0]


def test_alpha_fe_does_not_strengthen_magnesium_lines_at_fixed_mg_fe(
    solver: TurbospectrumEngine, line: Synthesis
) -> None:
    def wing(**labels: float) -> float:
        return float(solver.synthesize({**SUN, **labels}, MG_LINE).flux[WING] - line.flux[WING])

    # What is left is the atmosphere and the electrons of the other α elements, which weaken the wings.
    assert 0 < wing(alpha_fe=0.3, mg_fe=0.0) < 0.03
    assert wing(alpha_fe=0.3) < -0.045


def test_every_element_is_handed_over_with_its_own_abundance() -> None:
    words = files.composition_words({"H": 12.0, "He": 10.93, "Mg": 5.7}, feh=-2.0, alpha_fe=0.3)
    assert words[5] == "'INDIVIDUAL ABUNDANCES:' '92'", "so that no table of theirs counts"
    rows = dict(row.split() for row in words[6:])
    assert len(rows) == 92
    assert float(rows["12"]) == 5.7
    assert float(rows["26"]) == -29, "an element without a solar abundance is absent"


def test_a_spectrum_does_not_depend_on_those_before_it(solver: TurbospectrumEngine, line: Synthesis) -> None:
    solver.synthesize({"teff": 7900.0, "logg": 4.5, "feh": -2.0, "mg_fe": 0.5}, MG_LINE)
    for again in (solver, TurbospectrumEngine(TurbospectrumSettings(window=(5165, 5175)))):
        repeated = again.synthesize(SUN, MG_LINE)
        np.testing.assert_array_equal(repeated.flux, line.flux)
        np.testing.assert_array_equal(repeated.continuum, line.continuum)


def test_vacuum_and_air_wavelengths_give_the_same_spectrum(line: Synthesis) -> None:
    vacuum = TurbospectrumEngine(TurbospectrumSettings(medium="vacuum"))
    same = vacuum.synthesize(SUN, air_to_vacuum(MG_LINE))
    np.testing.assert_allclose(same.flux, line.flux, atol=1e-6)
    shifted = vacuum.synthesize(SUN, MG_LINE)
    assert _mean_difference(shifted, line) > 0.05, "and the medium counts: 1.4 Å lie between the two"


def test_an_atmosphere_may_be_given(solver: TurbospectrumEngine, line: Synthesis) -> None:
    given = atmosnet(5772.0, 4.438)
    np.testing.assert_array_equal(solver.synthesize({}, MG_LINE, given).flux, line.flux)
    outside = dataclasses.replace(given, log_tau_ross=given.log_tau_ross - 20)
    with pytest.raises(SynthesisError, match="has 0 layers between the optical depths that are used"):
        solver.synthesize(SUN, MG_LINE, outside)


# -- the accuracy that the settings promise ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "least", "most", "largest"),
    [
        ({"step": 5e6}, 1e-7, 3e-5, 2e-3),
        ({"step": 2e5}, 5e-5, 1e-3, 2e-2),
        ({"molecules": "all"}, 1e-9, 5e-6, 1e-4),
        ({"layer_stride": 2}, 1e-4, 6e-3, 2e-2),
    ],
    ids=lambda value: "-".join(map(str, *value.items())) if isinstance(value, dict) else "",
)
def test_settings_cost_the_accuracy_that_their_docstrings_say(
    line: Synthesis, settings: Mapping[str, Any], least: float, most: float, largest: float
) -> None:
    other = TurbospectrumEngine(TurbospectrumSettings(window=(5165, 5175), **settings)).synthesize(SUN, MG_LINE)
    assert least < _mean_difference(other, line) < most
    assert np.max(np.abs(other.flux - line.flux)) < largest


def test_wavelengths_between_those_asked_for_change_nothing(solver: TurbospectrumEngine, line: Synthesis) -> None:
    """The spectrum is interpolated from steps of its own: every third wavelength alone has the same fluxes."""
    np.testing.assert_allclose(solver.synthesize(SUN, MG_LINE[::3]).flux, line.flux[::3], atol=2e-4)


def test_lines_beside_the_window_cast_their_wings_into_it(solver: TurbospectrumEngine) -> None:
    wavelength = log_grid(5172.9, 5173.4, 200_000)
    blind = TurbospectrumEngine(TurbospectrumSettings(margin=0)).synthesize(SUN, wavelength)
    assert np.all(solver.synthesize(SUN, wavelength).flux < blind.flux - 0.1)


# -- line lists --------------------------------------------------------------------------------------------------


def _vald(path: Path, lines: LineList) -> Path:
    heading = "   Lande factors   Damping parameters\nElm Ion WL_air(A) log gf* E_low(eV) J lo E_up(eV) J up\n"
    rows = zip(
        lines.species, lines.wavelength, lines.log_gf, lines.excitation, lines.radiative, lines.stark, lines.waals,
        strict=True,
    )  # fmt: skip
    record = "'{}', {:.4f}, {:.4f}, {:.4f}, 2.0, 5.0, 3.0, 1.0, 1.0, 1.0, {:.3f}, {:.3f}, {:.3f},\n"
    path.write_text(heading + "".join(record.format(*row) + "'  LS a'\n'  LS b'\n'_ K wl:K14'\n" for row in rows))
    return path


def test_a_vald_extract_of_the_same_lines_gives_nearly_the_same_spectrum(line: Synthesis, tmp_path: Path) -> None:
    """A VALD extract has no terms, from which the Gaia-ESO list looks up broadening; strong lines have their own."""
    path = _vald(tmp_path / "vald.txt", gaia_eso(5166, 5180))
    other = TurbospectrumEngine(TurbospectrumSettings(line_list=str(path))).synthesize(SUN, MG_LINE)
    assert 1e-6 < _mean_difference(other, line) < 2e-3
    assert np.max(np.abs(other.flux - line.flux)) < 0.03


def test_lines_are_written_as_turbospectrum_reads_them() -> None:
    lines = make_linelist(
        [
            ("H 1", 5168.0, 10.2, -1.0, 0.0, 2.0, 4.0),
            ("Fe 1", 5166.0, 1.0, -2.0, 0.0, 0.0, 0.0),
            ("Mg 1", 5172.684, 2.712, -0.363, 7.99, -5.5, 729.238),
            ("Fe 1", 5167.0, 1.5, -1.0, 8.1, 0.0, -7.51),
        ],
        "three",
    )
    assert files.line_list_text(lines).splitlines() == [
        "' 26.000 ' 1 2",
        "'Fe 1'",
        "5166.0000 1.0000 -2.0000 2.5000 1.0 1.000E+05 0.000 'x' 'x'",
        "5167.0000 1.5000 -1.0000 -7.5100 1.0 1.259E+08 0.000 'x' 'x'",
        "' 12.000 ' 1 1",
        "'Mg 1'",
        "5172.6840 2.7120 -0.3630 729.2380 1.0 9.772E+07 -5.500 'x' 'x'",
    ], "without hydrogen, whose lines are Turbospectrum's own"


@pytest.mark.parametrize("species", ["MgH 1", "Np 1"])
def test_species_that_turbospectrum_cannot_be_given_are_refused(tmp_path: Path, species: str) -> None:
    lines = make_linelist([(species, 5172.5, 0.2, -1.0, 7.0, 0.0, 0.0)], "one")
    settings = TurbospectrumSettings(line_list=str(_vald(tmp_path / "vald.txt", lines)))
    with pytest.raises(
        SynthesisError,
        match=f"the line list has the species '{species}', which starpayne cannot hand to Turbospectrum: atoms up to "
        "uranium only; take it out of the list, or use the engine pysme",
    ):
        TurbospectrumEngine(settings).synthesize(SUN, MG_LINE)


@pytest.mark.parametrize(("low", "high"), [(4000, 4010), (9190, 9210)])
def test_a_window_that_the_line_list_does_not_cover_is_refused(low: float, high: float) -> None:
    with pytest.raises(SynthesisError, match=r"the line list gaia-eso covers 4200 to 9200 Å \(air\), not all of"):
        TurbospectrumEngine().synthesize(SUN, log_grid(low, high, 50_000))


def test_a_window_beyond_a_vald_extract_is_refused(tmp_path: Path) -> None:
    path = _vald(tmp_path / "vald.txt", gaia_eso(5172, 5173))
    with pytest.raises(SynthesisError, match=r"vald.txt covers 5162 to 5183 Å \(air\), not all of 5160.0 to 5175"):
        TurbospectrumEngine(TurbospectrumSettings(line_list=str(path))).synthesize(SUN, log_grid(5160, 5175, 50_000))


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
def test_bad_labels_are_refused(solver: TurbospectrumEngine, labels: Mapping[str, float], message: str) -> None:
    with pytest.raises(LabelError, match=message):
        solver.synthesize(labels, MG_LINE)


def test_check_refuses_a_design_before_anything_runs() -> None:
    solver = TurbospectrumEngine(TurbospectrumSettings(fixed={"vmic": 1.0}))
    teff, logg = Label("teff", 5000, 6000), Label("logg", 3, 5)
    solver.check(LabelSpace((teff, logg, Label("mg_fe", -0.4, 0.4))))
    with pytest.raises(LabelError, match="vmic is both a label of the design and fixed"):
        solver.check(LabelSpace((teff, logg, Label("vmic", 0, 2))))
    with pytest.raises(LabelError, match="label teff: 5000 to 8500 K reaches beyond the atmosnet model"):
        solver.check(LabelSpace((Label("teff", 5000, 8500), logg)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stepp": 1e6}, r"unknown engine setting 'stepp'; did you mean 'step'\?; known settings: line_list"),
        ({"n_mu": 7}, "unknown engine setting 'n_mu'.*; known settings: line_list, abundances, step"),
        ({"step": 1e5}, r"engine setting step = 100000.0 is outside the range 200000 to 1e\+07"),
        ({"layer_stride": 2.5}, "engine setting layer_stride = 2.5 is not a whole number"),
        ({"molecules": "few"}, "engine setting molecules = 'few': choose abundant or all"),
        ({"margin": "wide"}, "an engine setting cannot be read: could not convert string to float: 'wide'"),
        ({"abundances": "asplund2099"}, "unknown solar composition 'asplund2099'; choose one of asplund2009"),
        ({"medium": "water"}, "medium 'water' is not known"),
        ({"fixed": {"tefff": 1}}, r"unknown label 'tefff'; did you mean 'teff'\?"),
    ],
)
def test_bad_settings_are_refused_by_name(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        engine("turbospectrum", settings)


def test_settings_survive_the_way_through_plain_data() -> None:
    settings = TurbospectrumSettings(step=2e6, window=(5000, 5010), molecules="all", fixed={"vmic": 1})
    plain = json.loads(json.dumps(settings.to_dict()))
    assert TurbospectrumSettings.from_dict(plain) == settings


def test_provenance_is_json_and_says_what_was_done_and_what_is_missing(solver: TurbospectrumEngine) -> None:
    assert isinstance(solver, Engine)
    provenance = json.loads(json.dumps(solver.provenance(), allow_nan=False))
    assert provenance["engine"] == "turbospectrum"
    assert provenance["physics"] == ["no_molecules", "lte", "plane_parallel"]
    assert provenance["versions"]["atmosnet"] == "1.0.1"
    assert provenance["line_list"]["name"] == "gaia-eso"
    assert len(provenance["line_list"]["hash"]) == 16
    assert provenance["line_list"]["lines"] > 100
    assert provenance["settings"]["step"] == 1e6
    assert TurbospectrumEngine().provenance()["line_list"] is None, "no window is known yet"


# -- on the farm -------------------------------------------------------------------------------------------------


def test_turbospectrum_on_the_farm_equals_turbospectrum_in_this_process(tmp_path: Path) -> None:
    space = LabelSpace((Label("teff", 5000, 6000), Label("logg", 3, 5), Label("mg_fe", -0.3, 0.3)))
    design = Design(
        space, 3, low=5172, high=5174, sampling=200_000, n_test=1, n_validation=1, engine="turbospectrum",
        settings={"fixed": {"vmic": 1.0}},
    )  # fmt: skip
    grid = run(design, tmp_path / "grid", workers=1)
    assert grid.failures == []
    assert grid.physics == ("no_molecules", "lte", "plane_parallel")
    assert grid.provenance["engine"] == "turbospectrum"
    alone = engine("turbospectrum", design.engine_settings())
    for row in range(3):
        labels = dict(zip(space.names, design.labels[row].tolist(), strict=True))
        spectrum = alone.synthesize(labels, design.wavelength)
        np.testing.assert_array_equal(grid.flux([row])[0], spectrum.flux.astype(np.float32))
        np.testing.assert_array_equal(grid.continuum([row])[0], spectrum.continuum.astype(np.float32))


def test_the_shipped_design_has_the_labels_and_wavelengths_of_mgb_reference() -> None:
    ours, reference = Design.shipped("mgb_turbospectrum"), Design.shipped("mgb_reference")
    assert ours.engine == "turbospectrum"
    assert ours.space == reference.space
    np.testing.assert_array_equal(ours.wavelength, reference.wavelength)
    assert not set(map(tuple, ours.labels)) & set(map(tuple, reference.labels)), "other stars"
    assert ours.engine_settings()["window"] == pytest.approx([5160, 5210], abs=0.1)
    assert "corners" not in ours.engine_settings()
