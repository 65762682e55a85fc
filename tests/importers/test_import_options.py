"""What holds for every format: windows, sampling, tables of labels, outputs; and the functions underneath."""

from __future__ import annotations

import re
from pathlib import Path

import foreign_grids
import numpy as np
import pytest
from shell import refuse, run

from starpayne.cli.importing import FORMATS as HELP
from starpayne.errors import GridError, OutputExistsError, StarpayneError, WavelengthError
from starpayne.importers import FORMATS, ImportOptions, import_any, recognise
from starpayne.importers.continuum import pseudo_continuum
from starpayne.importers.names import canonical_labels
from starpayne.importers.resampling import Resampler
from starpayne.importers.surface import check_energy, planck_flux, scale_of
from starpayne.importers.tables import read_table
from starpayne.wavelengths import log_grid, sampling_needed

POINTS = np.array(foreign_grids.POINTS)
AIR = {"medium": "air"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Text spectra and their table."""
    foreign_grids.write_table(tmp_path / "s" / "labels.csv", foreign_grids.write_texts(tmp_path / "s"))
    return tmp_path / "s"


# -- the window and the sampling --------------------------------------------------------------------------------------


def test_spectra_are_resampled_where_it_is_asked_for(folder: Path, tmp_path: Path) -> None:
    grid = import_any(folder, tmp_path / "g", options=ImportOptions(low=5005, high=5055, sampling=60_000, **AIR))
    np.testing.assert_allclose(grid.wavelength, log_grid(5005, 5055, 60_000))
    assert (grid.sampling, grid.provenance["resampled"]) == (pytest.approx(60_000), "onto λ/Δλ = 60000")
    true = [foreign_grids.normalised(grid.wavelength, p) for p in foreign_grids.POINTS]
    np.testing.assert_allclose(grid.flux(), true, atol=2e-3)


def test_wavelengths_that_differ_are_refused_and_resampled(folder: Path, tmp_path: Path) -> None:
    for i in range(1, 24, 2):
        wavelength = log_grid(4999.0 - 0.1 * i, 5061.0, 45_000)
        np.savetxt(
            folder / f"{i}.txt",
            np.stack([wavelength, foreign_grids.normalised(wavelength, foreign_grids.POINTS[i])], 1),
        )
    with pytest.raises(
        GridError, match=r"wavelengths are not those of the other spectra; --sampling 40000 would resample"
    ):
        import_any(folder, tmp_path / "g", options=ImportOptions(**AIR))
    assert not list(tmp_path.glob("g*"))
    grid = import_any(folder, tmp_path / "g", options=ImportOptions(low=5001, high=5058, sampling=40_000, **AIR))
    assert not grid.failures
    true = [foreign_grids.normalised(grid.wavelength, p) for p in foreign_grids.POINTS]
    np.testing.assert_allclose(grid.flux(), true, atol=2e-3)


def test_a_spectrum_that_ends_inside_the_window_fails_alone(folder: Path, tmp_path: Path) -> None:
    text = (folder / "5.txt").read_text().splitlines(keepends=True)
    (folder / "5.txt").write_text("".join(text[:300]))
    for sampling, said in (
        (None, "not those of the other spectra"),
        (40_000, "goes from 5000.00 to 5037.52 Å and does"),
    ):
        options = ImportOptions(sampling=sampling, **AIR)
        failures = import_any(folder, tmp_path / "g", options=options, overwrite=True).failures
        assert [f.row for f in failures] == [5]
        assert said in failures[0].reason


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"low": 6000}, r"the window holds 0 wavelengths; the spectra go from 5000\.00 to 5059\.\d+ Å"),
        ({"low": 5010, "high": 5000}, "--low 5010 and --high 5000 leave no wavelengths between them"),
        ({"sampling": 1}, "--sampling 1 must be larger than 1"),
        ({"sampling": 1e12}, r"--sampling 1e\+12 makes .* wavelengths, more than 20,000,000"),
        ({"resolution": np.nan}, "--resolution nan must be larger than 1"),
        ({"medium": "water"}, "medium 'water' is not known; say 'air' or 'vacuum'"),
        ({"labels": Path("nowhere.csv")}, "no table of labels at nowhere.csv"),
    ],
)
def test_options_that_cannot_be(folder: Path, tmp_path: Path, options, said: str) -> None:
    with pytest.raises(StarpayneError, match=said):
        import_any(folder, tmp_path / "g", options=ImportOptions(**{**AIR, **options}))


def test_wavelengths_in_another_unit_are_refused(folder: Path, tmp_path: Path) -> None:
    for path in folder.glob("*.txt"):
        np.savetxt(path, np.loadtxt(path) * [0.1, 1.0])
    with pytest.raises(WavelengthError, match=r"starpayne expects Å\. For nm multiply by 10"):
        import_any(folder, tmp_path / "g", options=ImportOptions(**AIR))


# -- tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,teff\n../../etc/passwd,5000\n", r"the file '../../etc/passwd' lies outside"),
        ("file,teff\n/etc/passwd,5000\n", r"the file '/etc/passwd' lies outside"),
        ("file,teff\n0.txt,5000\n0.txt,5100\n", r"names the spectrum '0\.txt' twice"),
        ("file,teff\n0.txt\n", r"row 1 has 1 cells, and there are 2 columns"),
        ("file,teff\n", r"holds no labels"),
        ("file,star\n0.txt,Sun\n", r"has no column of numbers: file, star"),
        ("file,teff,Teff\n0.txt,5000,5000\n", r"two columns are the label teff"),
        ("file,teff,rv\n0.txt,5000,3\n", r"the radial velocity rv is not zero; spectra of a grid are at rest"),
        ("file,teff,[Mg/H]\n0.txt,5000,0\n", r"\[Mg/H\] is given, and no \[Fe/H\] to relate it to"),
        ("file,teff,12c\n0.txt,5000,0\n", r"the column '12c' cannot be the name of a label"),
        ("teff,logg\n5000,4\n", r"has 1 rows, and .* has 24 spectra"),
        (b"\xff\xfe\x00", r"cannot be read as a table of labels"),
    ],
)
def test_odd_tables_are_refused(folder: Path, tmp_path: Path, text: str | bytes, said: str) -> None:
    (folder / "labels.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(GridError, match=said):
        import_any(folder, tmp_path / "g", options=ImportOptions(**AIR))


def test_a_table_may_leave_values_out_and_name_files_that_are_not_there(folder: Path, tmp_path: Path) -> None:
    lines = (folder / "labels.csv").read_text().splitlines()
    lines[3] = lines[3].rsplit(",", 1)[0] + ","
    lines[4] = "gone.txt,5432,4.1,0.1"
    (folder / "labels.csv").write_text("\n".join(lines[:11]))
    grid = import_any(folder, tmp_path / "g", options=ImportOptions(**AIR))
    assert grid.provenance["left_out"] == [["2.txt", "no value for feh"]]
    assert [(f.row, f.reason) for f in grid.failures] == [(2, "gone.txt: no file at " + str(folder / "gone.txt"))]
    assert len(grid.labels) == 9


def test_names_of_labels_and_values_in_other_units() -> None:
    names = ["T_eff", "logg", "[Fe/H]", "[Mg/H]", "v_turb", "[C/Fe]", "vsini"]
    values = np.array([[5.777, 4.44, -0.5, -0.1, 1.0, 0.2, 2.0]])
    known, new = canonical_labels(names, values, "x")
    assert known == ("teff", "logg", "feh", "mg_fe", "vmic", "c_fe", "vsini")
    np.testing.assert_allclose(new, [[5777, 4.44, -0.5, 0.4, 1.0, 0.2, 2.0]])


def test_a_table_may_be_separated_by_blanks_tabs_or_semicolons(tmp_path: Path) -> None:
    for separator in (" ", "\t", ";", "   "):
        text = "\n".join(separator.join(row) for row in (["specname", "Teff", "Fe/H"], ["a.fits", "5000", "-0.5"]))
        (tmp_path / "t.dat").write_text("# a comment\n" + text)
        table = read_table(tmp_path / "t.dat")
        assert (table.files, table.names) == (("a.fits",), ("teff", "feh"))
        np.testing.assert_array_equal(table.values, [[5000, -0.5]])


def test_text_that_unpacks_without_end_or_has_other_columns_fails_its_row(
    folder: Path, tmp_path: Path, monkeypatch
) -> None:
    import gzip

    monkeypatch.setattr("starpayne.importers.text.MAX_TEXT", 100_000)
    (folder / "0.txt").unlink()
    (folder / "0.txt.gz").write_bytes(gzip.compress(b"5000 1\n" * 20_000))
    np.savetxt(folder / "1.txt", np.ones((5, 4)))
    np.savetxt(folder / "2.txt", np.ones((3, 2)))
    lines = (folder / "labels.csv").read_text().replace("0.txt,", "0.txt.gz,", 1)
    (folder / "labels.csv").write_text(lines)
    failures = import_any(folder, tmp_path / "g", format="korg").failures
    assert [f.reason.split(": ", 1)[1] for f in failures] == [
        "0.txt.gz unpacks to more than 0 MB",
        "1.txt has 4 columns of numbers, and 2 or 3 are expected",
        "3 wavelengths are no spectrum",
    ]


# -- formats and outputs ----------------------------------------------------------------------------------------------


def test_formats_are_recognised_named_and_listed_in_the_help(folder: Path, write_folder, tmp_path: Path) -> None:
    assert recognise(folder).name == "spectra"
    assert recognise(write_folder()).name == "folder"
    assert recognise(foreign_grids.write_payne(tmp_path / "p.npz")).name == "payne-training"
    assert ", ".join(known.name for known in FORMATS) == HELP
    with pytest.raises(
        GridError,
        match=r"format 'phenix' is not known; did you mean 'phoenix'\? \(formats: payne-network, aet, folder,",
    ):
        import_any(folder, tmp_path / "g", format="phenix")
    with pytest.raises(GridError, match="no file or folder at"):
        import_any(tmp_path / "nowhere", tmp_path / "g", format="phoenix")


def test_what_is_nothing_known_or_a_grid_already_is_refused(finished_grid, tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"?")
    with pytest.raises(GridError, match=r"x\.bin is of no format that is recognised; say which with --format"):
        import_any(tmp_path / "x.bin", tmp_path / "g")
    with pytest.raises(GridError, match="is a Zarr store: a starpayne grid needs no import"):
        import_any(finished_grid.path, tmp_path / "g")


def test_an_existing_output_stays_until_the_new_one_is_whole(folder: Path, tmp_path: Path) -> None:
    options = ImportOptions(**AIR)
    import_any(folder, tmp_path / "g", options=options)
    with pytest.raises(OutputExistsError, match="exists; give another path, or --overwrite to replace it"):
        import_any(folder, tmp_path / "g", options=options)
    before = import_any(folder, tmp_path / "g", options=options, overwrite=True).fingerprint
    for path in folder.glob("*.txt"):
        path.write_text("")
    with pytest.raises(
        GridError, match=r"none of the 24 spectra can be read; the first one is 0\.txt: 0\.txt is empty"
    ):
        import_any(folder, tmp_path / "g", options=options, overwrite=True)
    from starpayne.grid import Grid

    assert Grid.open(tmp_path / "g").fingerprint == before
    with pytest.raises(OutputExistsError, match="it is no earlier output"):
        import_any(folder, folder, options=options, overwrite=True)


def test_grid_json_is_not_contradicted(write_folder, tmp_path: Path) -> None:
    source = write_folder()
    with pytest.raises(GridError, match=r"--medium is not used here: .*grid\.json says it"):
        import_any(source, tmp_path / "g", options=ImportOptions(medium="air"))
    assert import_any(source, tmp_path / "g", options=ImportOptions(low=5005)).wavelength[0] >= 5005


def test_import_from_the_shell(folder: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    table = (folder / "labels.csv").rename(tmp_path / "t.csv")
    (folder / "3.txt").write_text("5000 x\n")
    words = (
        "import",
        folder,
        "--labels",
        table,
        "--low",
        5005,
        "--high",
        5055,
        "--medium",
        "air",
        "--resolution",
        20000,
    )
    out = run(*words, "--format", "spectra", "--out", tmp_path / "g", "--json", tmp_path / "g.json")
    assert re.search(r"g: 23 spectra, \d+ wavelengths 5005\.\d\d to 505\d\.\d\d Å \(air\), labels teff, logg, feh", out)
    assert "1 spectra could not be used; the first one: 3.txt: " in out
    assert '"failed": 1' in (tmp_path / "g.json").read_text()
    said = refuse(monkeypatch, capsys, "import", folder, "--out", tmp_path / "h")
    assert "has spectra and no labels: give --labels TABLE" in said
    assert "spectra" in run("import", "--help")


# -- the functions underneath -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "high"), [(5000, 5060), (4000, 9000), (1000, 50_000)])
def test_the_pseudo_continuum_follows_the_continuum_and_not_the_lines(low: float, high: float) -> None:
    wavelength = log_grid(low, high, 20_000)
    continuum = planck_flux(wavelength, 5500.0)
    random = np.random.default_rng(1)
    lines = np.ones_like(wavelength)
    for at in np.exp(random.uniform(np.log(low), np.log(high), 400)):
        lines -= 0.5 * lines * np.exp(-0.5 * ((wavelength / at - 1) * 1e5) ** 2)
    # Hydrogen: wide and deep.
    lines *= 1 - 0.6 / (1 + ((wavelength - 0.5 * (low + high)) / 4) ** 2)
    found = pseudo_continuum(wavelength, continuum * lines)
    bright = continuum > 1e-3 * continuum.max()
    np.testing.assert_allclose(found[bright] / continuum[bright], 1, atol=0.03)
    assert np.all(found > 0)
    np.testing.assert_array_equal(found, pseudo_continuum(wavelength, continuum * lines))


def test_the_pseudo_continuum_of_dark_or_few_pixels_is_positive() -> None:
    wavelength = log_grid(1000.0, 9000.0, 500)
    dark = np.where(wavelength < 3000, 0.0, planck_flux(wavelength, 3500.0))
    assert np.all(pseudo_continuum(wavelength, dark) > 0)
    np.testing.assert_array_equal(pseudo_continuum(wavelength[:4], np.arange(4.0)), np.full(4, 3.0))


def test_resampling_keeps_areas_where_it_averages_and_values_where_it_interpolates() -> None:
    source = np.linspace(5000, 5100, 20_001)
    values = 1 - 0.8 * np.exp(-0.5 * ((source - 5050) / 0.05) ** 2)
    coarse = Resampler(source, log_grid(5001, 5099, 10_000))
    assert coarse.averages
    width = 0.8 * 0.05 * np.sqrt(2 * np.pi)
    assert np.sum((1 - coarse(values)) * np.gradient(coarse.target)) == pytest.approx(width, rel=1e-3)
    fine = Resampler(source, log_grid(5001, 5099, 2_000_000))
    assert not fine.averages
    np.testing.assert_allclose(fine(values), 1 - 0.8 * np.exp(-0.5 * ((fine.target - 5050) / 0.05) ** 2), atol=1e-5)


def test_a_black_body_carries_the_stefan_boltzmann_flux_and_tells_units() -> None:
    wavelength = np.geomspace(500, 320_000, 4000)
    flux = planck_flux(wavelength, 5777.0)
    check_energy(wavelength, flux, 5777.0, "x")
    for factor in (np.pi, 1 / np.pi, 4):
        with pytest.raises(GridError, match=r"x: the surface flux adds up to"):
            check_energy(wavelength, factor * flux, 5777.0, "x")
    # Known: the solar continuum at 5000 Å is 8e6 erg s⁻¹ cm⁻² Å⁻¹ within the bounds of a black body.
    assert planck_flux(np.array([5000.0]), 5777.0)[0] == pytest.approx(8.2e6, rel=0.03)
    assert [scale_of(wavelength, flux * x, 5777.0) for x in (1, 1e8, 1e-15)] == [1, 1e-8, None]


def test_the_sampling_that_lines_need_is_finer_for_cooler_and_quieter_stars() -> None:
    assert sampling_needed(4000, 0.5) > sampling_needed(6000, 0.5) > sampling_needed(6000, 2.0) > 80_000
