"""Line lists come out in one convention, whatever they came in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from starpayne.errors import SynthesisError
from starpayne.synthesis import gaia_eso, read_vald
from starpayne.synthesis.elements import ISOTOPES, NUMBERS, SYMBOLS
from starpayne.synthesis.hydrogen import hydrogen_lines, line_centre, oscillator_strength
from starpayne.synthesis.linelists import read_turbospectrum
from starpayne.wavelengths import vacuum_to_air

# -- Gaia-ESO ----------------------------------------------------------------------------------------------------


@pytest.mark.synthesis
def test_the_gaia_eso_list_is_whole_sorted_and_atomic() -> None:
    lines = gaia_eso()
    assert len(lines) == 104_296
    assert np.all(np.diff(lines.wavelength) >= 0)
    assert lines.wavelength[0] >= 4200
    assert lines.wavelength[-1] <= 9200
    assert not lines.has_molecules
    assert "H 1" not in lines.species


@pytest.mark.synthesis
def test_lines_of_isotopes_have_gf_times_the_isotope_fraction() -> None:
    lines = gaia_eso(5200.0, 5200.2)
    neodymium = lines.take(lines.species == "Nd 2")
    assert len(neodymium) == 7
    # All seven isotopes carry the same log gf = -0.49 in the file; together they make one line.
    assert np.log10(np.sum(10**neodymium.log_gf)) == pytest.approx(-0.49, abs=1e-4)
    assert neodymium.log_gf.max() == pytest.approx(-0.49 + np.log10(0.27044))


@pytest.mark.synthesis
def test_damping_is_in_the_form_smelib_reads() -> None:
    lines = gaia_eso(5155, 5215)
    abo = lines.waals > 20
    assert np.any(abo)
    assert np.all((lines.waals[abo] % 1 > 0.1) & (lines.waals[abo] % 1 < 0.5)), "the velocity exponent of ABO theory"
    # A factor on Unsöld's width (2.5) would be taken for the width itself.
    assert not np.any((lines.waals > 0) & (lines.waals < 20))
    assert np.all((lines.radiative > 2) & (lines.radiative < 11))


def _turbospectrum(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "lines.txt"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "' 26.000            '    1  1\n'Fe I'\n 5000.0 1.0 what\n",
            "lines.txt, line 3: not a line of a Turbospectrum",
        ),
        ("'607.012014'  1  1\n'CN'\n 5000.0 1.0 -1 0 1 1e5\n", "is a molecule, and only atomic lists are read"),
        ("' 26.056            '    1  1\n'Fe I'\n 5000.0 1.0 -1 0 1 1e5\n", "the isotope 56Fe has no known fraction"),
        ("' what              '    1  1\n'Fe I'\n", "line 1: not a species header"),
    ],
)
def test_a_damaged_list_is_refused_with_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SynthesisError, match=message):
        read_turbospectrum(_turbospectrum(tmp_path, text))


def test_isotope_fractions_of_an_element_sum_to_one() -> None:
    for number in {z for z, _ in ISOTOPES}:
        assert sum(f for (z, _), f in ISOTOPES.items() if z == number) == pytest.approx(1, abs=1e-4)


def test_elements_are_numbered_as_everywhere() -> None:
    assert [NUMBERS[s] for s in ("H", "Mg", "Fe", "Y", "Nd", "U")] == [1, 12, 26, 39, 60, 92]
    assert len(SYMBOLS) == 99


def test_the_hash_of_a_list_changes_with_any_value(tmp_path: Path) -> None:
    text = "' 26.000            '    1  1\n'Fe I'\n 5000.0 1.0 {} 0 1 1e5\n"
    first = read_turbospectrum(_turbospectrum(tmp_path, text.format("-1.00")))
    same = read_turbospectrum(_turbospectrum(tmp_path, text.format("-1.00")))
    other = read_turbospectrum(_turbospectrum(tmp_path, text.format("-1.01")))
    assert first.hash == same.hash != other.hash


# -- VALD --------------------------------------------------------------------------------------------------------

_HEADING = "                                                   Lande factors      Damping parameters\n"
_AIR = "Elm Ion WL_air(A) log gf* E_low(eV) J lo\n"
_COLUMNS = (
    "Elm Ion       WL_{medium}({unit})  log gf* E_low({energy}) J lo  E_up(eV) J up   lower   upper    mean   Rad.\n"
)


def _record(species: str, wavelength: float, excitation: float, waals: float = -7.5) -> str:
    return (
        f"'{species}', {wavelength:.5f}, -2.100, {excitation:.4f}, 2.0, 5.0000, 3.0, 1.000, 1.000, 1.000, 8.100,-5.900,"
        f" {waals:.3f},\n'  LS   3d6.4s2 a5D'\n'  LS   3d6.4s.4p z7D*'\n'_   Kurucz   1 wl:K14 ...'\n"
    )


def _extract_all(
    tmp_path: Path, *records: str, medium: str = "air", unit: str = "A", energy: str = "eV", end: str = ""
) -> Path:
    path = tmp_path / "vald.txt"
    columns = _COLUMNS.format(medium=medium, unit=unit, energy=energy)
    path.write_text(_HEADING + columns + "".join(records) + "* oscillator strengths were scaled\n References:\n" + end)
    return path


def test_a_vald_extract_all_is_read_with_molecules(tmp_path: Path) -> None:
    path = _extract_all(
        tmp_path,
        _record("MgH 1", 5168.0, 0.1, 0),
        _record("Fe 1", 5166.0, 1.0),
        _record("(46)Ti 2", 5169.0, 1.0, 325.243),
    )
    lines = read_vald(path)
    assert lines.species.tolist() == ["Fe 1", "MgH 1", "Ti 2"]
    assert lines.wavelength.tolist() == [5166, 5168, 5169]
    assert lines.has_molecules
    assert lines.ion.tolist() == [1, 1, 2]
    assert lines.atomic_number.tolist() == [26, 0, 22]
    assert lines.log_gf.tolist() == [-2.1] * 3
    assert lines.radiative.tolist() == [8.1] * 3
    assert lines.stark.tolist() == [-5.9] * 3
    assert lines.waals.tolist() == [-7.5, 0, 325.243]
    assert lines.name == "vald:vald.txt"


def test_a_vald_extract_stellar_ends_where_its_header_says(tmp_path: Path) -> None:
    path = tmp_path / "stellar.txt"
    first = " 5160.00000, 5170.00000, {n}, 9999, 1.0 Wavelength region, lines selected, lines processed, Vmicro\n"
    columns = _COLUMNS.format(medium="air", unit="A", energy="eV")
    body = (
        _record("Fe 1", 5166.0, 1.0).replace("-7.500,", "-7.500, 0.412,")
        + "'castelli_ap00k2_T05750G45.krz',\n'H : -0.04','END'\n"
    )
    path.write_text(first.format(n=1) + _HEADING + columns + body)
    assert read_vald(path).species.tolist() == ["Fe 1"]
    path.write_text(first.format(n=2) + _HEADING + columns + body)
    with pytest.raises(
        SynthesisError, match="truncated or not a VALD extract: it has 1 lines, and its header promises 2"
    ):
        read_vald(path)


@pytest.mark.parametrize(
    ("medium", "unit", "wavelength"), [("vac", "A", 5000.0), ("vac", "nm", 500.0), ("vac", "cm^-1", 20000.0)]
)
def test_vald_units_become_air_angstrom_and_ev(tmp_path: Path, medium: str, unit: str, wavelength: float) -> None:
    path = _extract_all(tmp_path, _record("Fe 1", wavelength, 8065.544), medium=medium, unit=unit, energy="cm^-1")
    lines = read_vald(path)
    assert lines.wavelength[0] == pytest.approx(vacuum_to_air(np.array([5000.0]))[0])
    assert lines.excitation[0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing here\nat all\n", "is not a VALD extract"),
        (_HEADING.replace("Lande factors", "Damping") + _AIR, "in short format; ask VALD for the long"),
        (_HEADING + "Elm Ion wavelength\n", "the units of wavelength and energy cannot be read"),
        (_HEADING + _AIR, "truncated or not a VALD extract: it has 0 lines"),
        (
            _HEADING + _COLUMNS.format(medium="air", unit="A", energy="eV") + _record("Fe 1", 5166, 1)
            + "* oscillator strengths were NOT scaled by the solar isotopic ratios.\n",
            "not scaled by isotopic fractions",
        ),
    ],
)  # fmt: skip
def test_what_is_no_usable_vald_extract_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "vald.txt"
    path.write_text(text)
    with pytest.raises(SynthesisError, match=message):
        read_vald(path)


def test_a_missing_vald_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SynthesisError, match=r"the line list .*none.txt cannot be read"):
        read_vald(tmp_path / "none.txt")


# -- hydrogen ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lower", "upper", "f"),
    [(1, 2, 0.41620), (2, 3, 0.64075), (2, 4, 0.11932), (2, 5, 0.04467), (3, 4, 0.84210), (3, 5, 0.15058)],
)
def test_hydrogen_oscillator_strengths_are_the_tabulated_ones(lower: int, upper: int, f: float) -> None:
    """Wiese & Fuhr 2009, J. Phys. Chem. Ref. Data 38, 565."""
    assert oscillator_strength(lower, upper) == pytest.approx(f, rel=2e-4)


@pytest.mark.parametrize(
    ("lower", "upper", "centre"), [(2, 3, 6562.79), (2, 4, 4861.33), (2, 5, 4340.47), (2, 6, 4101.74), (3, 12, 8750.47)]
)
def test_hydrogen_lines_are_where_they_are_observed(lower: int, upper: int, centre: float) -> None:
    assert line_centre(lower, upper) == pytest.approx(centre, abs=0.04)


def test_hydrogen_lines_are_added_within_a_hundred_angstrom_of_the_window_only() -> None:
    assert len(hydrogen_lines(5160, 5210)) == 0
    assert len(hydrogen_lines(4962, 4970)) == 0
    (beta,) = hydrogen_lines(4961, 4970)
    assert beta[3:].tolist() == [2, 4]
    assert hydrogen_lines(8590, 8670)[:, 3].tolist() == [3] * 5


@pytest.mark.synthesis
def test_hydrogen_lines_of_other_lists_are_replaced_by_ours(tmp_path: Path) -> None:
    lines = read_vald(_extract_all(tmp_path, _record("H 1", 6562.797, 10.2), _record("Fe 1", 6560.0, 1.0)))
    ours = lines.with_hydrogen(6550, 6570)
    (row,) = np.flatnonzero(ours.species == "H 1")
    assert (ours.stark[row], ours.waals[row]) == (2, 3), "the quantum numbers of the levels, in PySME's columns"
    assert "H 1" not in lines.with_hydrogen(5160, 5210).species
