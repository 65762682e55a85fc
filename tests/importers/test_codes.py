"""Spectra of other codes in the layouts they are kept in: Turbospectrum, Korg, Starfish, The Payne, plain folders."""

from __future__ import annotations

import sys
from pathlib import Path

import foreign_grids
import numpy as np
import pytest

from starpayne.errors import GridError, LabelError, MissingExtraError
from starpayne.grid import FAILED
from starpayne.importers import ImportOptions, import_any, recognise
from starpayne.importers.starfish import key_of

POINTS = np.array(foreign_grids.POINTS)
TRUE = np.array([foreign_grids.normalised(foreign_grids.WINDOW, p) for p in foreign_grids.POINTS])
CONTINUUM = np.array([foreign_grids.surface_flux(foreign_grids.WINDOW, p)[1] for p in foreign_grids.POINTS])


@pytest.fixture
def h5py():
    return pytest.importorskip("h5py")


# -- Turbospectrum ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["comments", "table"])
def test_turbospectrum_has_its_labels_from_tsfitpys_comments_or_table(tmp_path: Path, where: str) -> None:
    foreign_grids.write_turbospectrum(tmp_path / "ts", **{where: True})
    assert recognise(tmp_path / "ts").name == "turbospectrum"
    grid = import_any(tmp_path / "ts", tmp_path / "g", options=ImportOptions(low=5005))
    np.testing.assert_array_equal(grid.labels[:, :3], POINTS)
    assert (grid.space.names, grid.medium) == (("teff", "logg", "feh", "mg_fe"), "air")
    np.testing.assert_array_equal(grid.labels[:, 3], POINTS[:, 2] / 2)
    assert grid.provenance["fixed"]["vmic"] == 1.0
    assert ("lte" in grid.physics) is (where == "comments")
    flux, continuum = foreign_grids.surface_flux(grid.wavelength, foreign_grids.POINTS[7])
    np.testing.assert_allclose(grid.flux([7])[0], flux / continuum, atol=6e-6)
    np.testing.assert_allclose(grid.continuum([7])[0], continuum, rtol=3e-5)
    assert grid.sampling is None  # equal steps of wavelength, not of its logarithm


def test_turbospectrum_without_labels_or_with_bad_files(tmp_path: Path) -> None:
    files = foreign_grids.write_turbospectrum(tmp_path / "ts")
    with pytest.raises(
        GridError, match="neither a table nor comments say the labels of the spectra; give --labels TABLE"
    ):
        import_any(tmp_path / "ts", tmp_path / "g")
    table = foreign_grids.write_table(tmp_path / "t.csv", files)
    files[0].write_text("5000.0 1.0 nan\n5000.05 1.0 1e6\n5000.1 1 1\n5000.2 1 1\n")
    files[1].write_text("".join(files[2].read_text().splitlines(keepends=True)[:-5]))
    files[3].write_text("5000.0 one 1\n")
    files[4].unlink()
    grid = import_any(tmp_path / "ts", tmp_path / "g", options=ImportOptions(labels=table, high=5055))
    assert {f.reason for f in grid.failures} == {
        "0.spec: its flux is not finite and positive",
        "3.spec: 3.spec is no table of numbers: could not convert string 'one' to float64 at row 0, column 2.",
        "4.spec: 4.spec is missing",
    }
    # The one that is short ends beyond the window.
    assert grid.status[1] != FAILED


# -- Korg -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("julia", "rectified"), [(False, True), (True, False)])
def test_korg_hdf5_as_python_or_julia_wrote_it(h5py, tmp_path: Path, julia: bool, rectified: bool) -> None:
    grid = import_any(foreign_grids.write_korg_hdf5(tmp_path / "k.h5", julia, rectified), tmp_path / "g")
    np.testing.assert_array_equal(grid.labels, POINTS)
    assert (grid.space.names, grid.medium) == (("teff", "logg", "feh"), "vacuum")
    np.testing.assert_allclose(grid.flux(), TRUE, rtol=1e-6)
    # Korg's per cm becomes per Å, told by the brightness.
    np.testing.assert_allclose(grid.continuum(), CONTINUUM, rtol=1e-6)
    assert grid.provenance["unit"] == "erg s-1 cm-2 cm-1, told by its brightness"


def test_korg_text_has_a_table_of_labels(tmp_path: Path) -> None:
    foreign_grids.write_texts(tmp_path / "k", columns=3)
    table = foreign_grids.write_table(tmp_path / "labels.csv", None)
    grid = import_any(tmp_path / "k", tmp_path / "g", format="korg", options=ImportOptions(labels=table))
    # Without a column of files, 2.txt comes before 10.txt.
    np.testing.assert_allclose(grid.flux(), TRUE, rtol=1e-6)
    np.testing.assert_allclose(grid.continuum(), CONTINUUM, rtol=1e-6)
    assert grid.medium == "vacuum"


def test_jld2_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "k.jld2").write_bytes(b"\x89HDF\r\n\x1a\n")
    for source in (tmp_path / "k.jld2", tmp_path):
        with pytest.raises(
            GridError, match=r"k\.jld2 is a JLD2 file, which only Julia reads; save text or HDF5 .*writedlm"
        ):
            import_any(source, tmp_path / "g")


def test_korg_hdf5_without_labels_or_of_other_shapes_is_refused(h5py, tmp_path: Path) -> None:
    path = foreign_grids.write_korg_hdf5(tmp_path / "k.h5")
    with h5py.File(path, "a") as file:
        del file["label_names"]
    with pytest.raises(GridError, match=r"labels have shape \(24, 3\); 24 spectra and 0 names in 'label_names'"):
        import_any(path, tmp_path / "g")
    table = foreign_grids.write_table(tmp_path / "t.csv", None)
    assert import_any(path, tmp_path / "g", options=ImportOptions(labels=table)).space.names == ("teff", "logg", "feh")
    with h5py.File(path, "a") as file:
        del file["cntm"]
        file["cntm"] = np.ones((24, 7))
    with pytest.raises(GridError, match=r"cntm has shape \(24, 7\), and there are 478 wavelengths"):
        import_any(path, tmp_path / "h")


# -- Starfish ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("norm", "old"), [(False, False), (True, False), (True, True)])
def test_starfish_surface_fluxes_are_restored(h5py, tmp_path: Path, norm: bool, old: bool) -> None:
    grid = import_any(foreign_grids.write_starfish(tmp_path / "s.hdf5", norm, old), tmp_path / "g")
    np.testing.assert_array_equal(grid.labels, POINTS)
    assert (grid.space.names, grid.medium) == (("teff", "logg", "feh"), "air")
    np.testing.assert_allclose(grid.flux() * grid.continuum(), TRUE * CONTINUUM, rtol=1e-6)
    assert grid.provenance["library"] == "PHOENIX"


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("T{0:.0f}_{0.__class__}", r"is not understood; fields like \{0:\.0f\} are"),
        ("T{0:99999999.0f}", "is not understood"),
        ("{3:.1f}", "has a field 3, and there are 3 parameters"),
        ("all", "is not understood"),
    ],
)
def test_a_hostile_key_name_is_refused(pattern: str, said: str) -> None:
    with pytest.raises(GridError, match=said):
        key_of(pattern, POINTS[0])


def test_starfishs_own_key_names_are_understood() -> None:
    point = np.array([5800.0, 4.5, -0.5])
    assert key_of("T{:.0f}_g{:.2f}_Z{:.2f}", point) == "T5800_g4.50_Z-0.50"
    assert key_of("lte{0:0>5.0f}-{1:.2f}{2:.1f}.PHOENIX", point) == "lte05800-4.50-0.5.PHOENIX"


def test_links_that_lead_out_of_an_hdf5_file_are_not_followed(h5py, tmp_path: Path) -> None:
    other = foreign_grids.write_starfish(tmp_path / "other.hdf5", norm=False)
    path = foreign_grids.write_starfish(tmp_path / "s.hdf5", norm=False)
    with h5py.File(path, "a") as file:
        name = next(iter(file["flux"]))
        del file["flux"][name]
        file["flux"][name] = h5py.ExternalLink(str(other), f"/flux/{name}")
    failures = import_any(path, tmp_path / "g").failures
    assert [f.reason for f in failures] == [
        f"{name}: s.hdf5: {name!r} is a link that leads elsewhere; it is not followed"
    ]
    with h5py.File(path, "a") as file:
        del file["wl"]
        file["wl"] = h5py.ExternalLink(str(other), "/wl")
    with pytest.raises(GridError, match="'wl' is a link that leads elsewhere; it is not followed"):
        import_any(path, tmp_path / "h")


def test_hdf5_that_claims_too_much_is_truncated_or_cannot_be_read(h5py, tmp_path: Path, monkeypatch) -> None:
    path = foreign_grids.write_starfish(tmp_path / "s.hdf5", norm=False)
    data = path.read_bytes()
    with h5py.File(path, "a") as file:
        del file["wl"]
        file.create_dataset("wl", shape=(10**12,), chunks=(1000,), dtype="f8")
    with pytest.raises(
        GridError, match=r"'wl' has 1,000,000,000,000 numbers, more than the 500,000,000 that can be held"
    ):
        import_any(path, tmp_path / "g")
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(GridError, match=r"s\.hdf5 is a damaged HDF5 file"):
        import_any(path, tmp_path / "g")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r'h5py is missing .* run: pip install "starpayne\[importers\]"'):
        import_any(path, tmp_path / "g")


# -- The Payne --------------------------------------------------------------------------------------------------------


def test_the_paynes_training_set_comes_in_with_kelvin_and_abundances_relative_to_iron(tmp_path: Path) -> None:
    grid = import_any(foreign_grids.write_payne(tmp_path / "kurucz_training_spectra.npz"), tmp_path / "g")
    assert grid.space.names == ("teff", "logg", "mg_fe", "feh")
    np.testing.assert_array_equal(grid.labels[:, [0, 1, 3]], POINTS)
    np.testing.assert_allclose(grid.labels[:, 2], np.linspace(-0.3, 0.3, 24), atol=1e-9)
    np.testing.assert_allclose(grid.flux(), TRUE, atol=1e-7)
    assert (grid.medium, grid.resolution, grid.has_continuum) == ("vacuum", 22_500, False)
    fixed = grid.provenance["fixed"]
    assert (fixed["vmic"], fixed["c12_c13"], fixed["si_fe"]) == (1.5, 30.0, 0.0)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (
            {"labels": np.ones((3, 24))},
            r"labels of shape \(3, 24\) without names, and not the 25 of The Payne; give --labels",
        ),
        ({"labels": np.ones((25, 23))}, r"labels of shape \(25, 23\), 24 spectra and 25 names"),
        ({"wavelength": np.ones(7)}, r"spectra of 478 pixels, and .* has 7 wavelengths"),
        ({"label_names": np.array(["teff"])}, r"labels of shape \(25, 24\), 24 spectra and 1 names"),
        ({"labels": np.array([[{}]], dtype=object)}, r"labels has shape \(1, 1\) of object; 2 dimensions of numbers"),
    ],
)
def test_odd_training_sets_are_refused(tmp_path: Path, arrays, said: str) -> None:
    path = foreign_grids.write_payne(tmp_path / "x.npz", **arrays)
    with pytest.raises(GridError, match=said):
        import_any(path, tmp_path / "g", options=ImportOptions(medium="vacuum"))


def test_an_npz_whose_header_claims_too_much_is_not_loaded(tmp_path: Path) -> None:
    import io
    import zipfile

    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)})
    path = foreign_grids.write_payne(tmp_path / "x.npz")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("spectra.npy", header.getvalue())
        archive.writestr("labels.npy", header.getvalue())
    with pytest.raises(GridError, match=r"spectra takes 3725\.3 GiB, more than 4"):
        import_any(path, tmp_path / "g")


# -- plain folders ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["fits", "csv"])
def test_a_folder_of_spectra_and_a_table(tmp_path: Path, ending: str) -> None:
    if ending == "fits":
        from astropy.table import Table

        files = []
        for i, flux in enumerate(TRUE):
            files.append(tmp_path / f"s{i}.fits")
            table = Table({"wavelength": foreign_grids.WINDOW / 10, "flux": flux}, units={"wavelength": "nm"})
            table.write(files[-1])
    else:
        files = foreign_grids.write_texts(tmp_path, header="wave_vac,flux", ending="csv")
    foreign_grids.write_table(tmp_path / "labels.csv", files)
    options = ImportOptions(medium="vacuum", resolution=20_000)
    grid = import_any(tmp_path, tmp_path / "out" / "g", options=options)
    np.testing.assert_allclose(grid.flux(), TRUE, rtol=1e-6)
    np.testing.assert_array_equal(grid.labels, POINTS)
    np.testing.assert_allclose(grid.wavelength, foreign_grids.WINDOW, rtol=1e-9)
    assert (grid.resolution, grid.has_continuum) == (20_000, False)
    assert grid.physics == ()  # sampled twice per resolution element
    if ending == "fits":
        with pytest.raises(GridError, match="does not say whether its wavelengths are in air or vacuum; give --medium"):
            import_any(tmp_path, tmp_path / "out" / "h")


@pytest.mark.parametrize("continuum", [False, True])
def test_arrays_and_a_table(tmp_path: Path, continuum: bool) -> None:
    np.save(tmp_path / "wavelength.npy", foreign_grids.WINDOW)
    np.save(tmp_path / "flux.npy", (TRUE * CONTINUUM).astype(np.float32))
    if continuum:
        np.save(tmp_path / "continuum.npy", CONTINUUM)
    (tmp_path / "labels.ecsv").write_text(
        "# %ECSV 1.0\n# ---\n# datatype:\n# - {name: teff, unit: K, datatype: float64}\nteff logg feh star\n"
        + "".join(f"{t} {g} {m} x{i}\n" for i, (t, g, m) in enumerate(foreign_grids.POINTS))
    )
    grid = import_any(tmp_path, tmp_path / "g", options=ImportOptions(medium="air"))
    np.testing.assert_allclose(grid.flux() * grid.continuum(), TRUE * CONTINUUM, rtol=1e-6)
    np.testing.assert_array_equal(grid.labels, POINTS)
    assert ("pseudo_continuum" in grid.physics) is not continuum
    assert grid.provenance["unit"] == "erg s-1 cm-2 Angstrom-1, told by its brightness"


def test_fluxes_of_an_unknown_unit_are_normalised_and_have_no_continuum(tmp_path: Path) -> None:
    np.save(tmp_path / "wavelength.npy", foreign_grids.WINDOW)
    np.save(tmp_path / "flux.npy", 1e-15 * TRUE * CONTINUUM)
    foreign_grids.write_table(tmp_path / "labels.csv", None)
    grid = import_any(tmp_path, tmp_path / "g", options=ImportOptions(medium="air"))
    assert not grid.has_continuum
    assert grid.provenance["unit"] == "unknown; no continuum is stored"
    np.testing.assert_allclose(grid.flux(), TRUE, atol=0.01)


def test_labels_that_do_not_vary_at_all_or_belong_to_two_spectra(tmp_path: Path) -> None:
    files = foreign_grids.write_texts(tmp_path / "s")
    one = np.full(24, 5000.0)
    table = foreign_grids.write_table(tmp_path / "t.csv", files, teff=one, logg=one / 1000)
    with pytest.raises(GridError, match=r"no label varies among the 24 spectra \(teff, logg\)"):
        import_any(tmp_path / "s", tmp_path / "g", options=ImportOptions(labels=table, medium="air"))
    table = foreign_grids.write_table(tmp_path / "t.csv", files, teff=POINTS[:, 0], logg=POINTS[:, 1])
    grid = import_any(tmp_path / "s", tmp_path / "g", options=ImportOptions(labels=table, medium="air"))
    assert len(grid.failures) == 16
    assert grid.failures[0].reason == "1.txt: 0.txt has the same labels; a label that tells them apart is missing"
    with pytest.raises(LabelError):
        grid.space.check([4000.0, 4.0])
