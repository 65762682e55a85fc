"""Published libraries in their true layouts: labels, units, media and resolutions come out as their papers say."""

from __future__ import annotations

import shutil
from pathlib import Path

import foreign_grids
import numpy as np
import pytest
import toy

from starpayne.errors import GridError
from starpayne.grid import DONE, FAILED
from starpayne.importers import ImportOptions, import_any
from starpayne.training import TrainingData, train

WINDOW = ImportOptions(low=5000.0, high=5060.0)
POINTS = np.array(foreign_grids.POINTS)


def true_flux(grid) -> tuple[np.ndarray, np.ndarray]:
    """Surface flux and continuum (n, m) that the spectra of a grid were made of."""
    columns = [grid.space.names.index(name) for name in ("teff", "logg", "feh")]
    parts = [foreign_grids.surface_flux(grid.wavelength, point) for point in grid.labels[:, columns]]
    flux, continuum = (np.array(x) for x in zip(*parts, strict=True))
    return flux, continuum


# -- PHOENIX ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def phoenix_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phoenix") / "PHOENIX"
    foreign_grids.write_phoenix(folder)
    return folder


@pytest.fixture
def phoenix_copy(phoenix_files: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(phoenix_files, tmp_path / "PHOENIX"))


def test_phoenix_comes_in_with_surface_fluxes_per_angstrom(phoenix_files: Path, tmp_path: Path) -> None:
    grid = import_any(phoenix_files, tmp_path / "g", options=WINDOW)
    assert (grid.space.names, grid.medium, grid.resolution) == (("teff", "logg", "feh"), "vacuum", None)
    assert sorted(map(tuple, grid.labels)) == sorted(foreign_grids.POINTS)
    assert [(x.low, x.high, x.unit) for x in grid.space.labels[:1]] == [(5000, 6500, "K")]
    np.testing.assert_allclose(grid.wavelength, foreign_grids.WINDOW)
    assert grid.sampling == pytest.approx(40_000)
    # flux × pseudo-continuum is the file's flux, to the rounding of float32.
    flux, continuum = true_flux(grid)
    np.testing.assert_allclose(grid.flux().astype(np.float64) * grid.continuum(), flux, rtol=3e-7)
    # The lines leave windows here, so that the envelope finds the true continuum.
    np.testing.assert_allclose(grid.continuum(), continuum, rtol=0.01)
    assert grid.physics == ("lte", "undersampled", "pseudo_continuum")
    facts = grid.provenance
    assert facts["continuum"].startswith("pseudo-continuum: Chebyshev polynomial in ln wavelength")
    assert (facts["fixed"], facts["vmic"]) == ({"alpha_fe": 0.0}, [1.5, 1.65])
    assert "Husser" in facts["cite"]


def test_the_split_is_shuffled_said_and_the_same_again(phoenix_files: Path, tmp_path: Path) -> None:
    one, two = (import_any(phoenix_files, tmp_path / name, options=WINDOW) for name in "ab")
    assert one.split == two.split
    assert (len(one.split.train), len(one.split.validation), len(one.split.test)) == (20, 2, 2)
    assert sorted([*one.split.train, *one.split.validation, *one.split.test]) == list(range(24))
    assert list(one.split.train) != sorted(one.split.train)
    assert "numpy.random.default_rng(0)" in one.provenance["split"]


def test_a_model_is_trained_on_what_came_in(phoenix_files: Path, tmp_path: Path) -> None:
    grid = import_any(phoenix_files, tmp_path / "g", options=WINDOW)
    model = train(TrainingData.from_grid(grid), toy.recipe("payne", steps=60), tmp_path / "m")
    assert model.emulator.domain.physics == ("lte", "undersampled", "pseudo_continuum")
    predicted = model.emulator.predict({"teff": 5800, "logg": 4.4, "feh": 0.0})
    truth = foreign_grids.normalised(foreign_grids.WINDOW, (5800, 4.4, 0.0))
    assert np.mean(np.abs(predicted.flux - truth)) < np.mean(np.abs(1 - truth))


def test_damaged_phoenix_files_become_failed_rows_and_files_left_out(phoenix_copy: Path, tmp_path: Path) -> None:
    from astropy.io import fits

    files = sorted(phoenix_copy.rglob("lte*.fits"))
    short, nan, silent, empty = files[:4]
    short.write_bytes(short.read_bytes()[:5000])
    with fits.open(nan, mode="update") as hdus:
        hdus[0].data[600] = np.nan
    with fits.open(silent, mode="update") as hdus:
        del hdus[0].header["PHXLOGG"]
    empty.write_bytes(b"")
    grid = import_any(phoenix_copy, tmp_path / "g", options=WINDOW)
    assert sorted(grid.status) == [DONE] * 20 + [FAILED] * 2
    reasons = " ".join(failure.reason for failure in grid.failures)
    assert f"{short.name} is cut short: its header says" in reasons
    assert f"{nan.name}: its flux is not finite at 1 wavelengths" in reasons
    left_out = dict(grid.provenance["left_out"])
    assert left_out[silent.name] == f"{silent.name} does not say PHXLOGG"
    assert "damaged FITS file" in left_out[empty.name]
    assert len(grid.flux(grid.usable(range(22)))) == 20


def test_phoenix_in_another_unit_is_refused(phoenix_copy: Path, tmp_path: Path) -> None:
    from astropy.io import fits

    for path in phoenix_copy.rglob("lte*.fits"):
        with fits.open(path, mode="update") as hdus:
            hdus[0].data /= np.float32(np.pi)
    with pytest.raises(
        GridError, match=r"the surface flux adds up to 0\.3\d+ σTeff⁴ of its Teff = 5000 K, so its unit"
    ):
        import_any(phoenix_copy, tmp_path / "g", options=WINDOW)


def test_phoenix_without_wavelengths_or_in_air_is_refused(phoenix_copy: Path, tmp_path: Path) -> None:
    with pytest.raises(GridError, match="PHOENIX has wavelengths in vacuum; --medium air contradicts it"):
        import_any(phoenix_copy, tmp_path / "g", options=ImportOptions(medium="air"))
    # Beside the spectra or above them, as the library has it.
    assert import_any(phoenix_copy / "Z-0.0", tmp_path / "one", options=WINDOW).space.names == ("teff", "logg")
    (phoenix_copy / "WAVE_PHOENIX-ACES-AGSS-COND-2011.fits").unlink()
    with pytest.raises(GridError, match=r"WAVE_PHOENIX-ACES-AGSS-COND-2011\.fits is neither in .* nor above it"):
        import_any(phoenix_copy, tmp_path / "g")
    assert not (tmp_path / "g").exists()


# -- BOSZ -------------------------------------------------------------------------------------------------------------


def test_bosz_2024_is_four_pi_times_the_eddington_flux(tmp_path: Path) -> None:
    foreign_grids.write_bosz_2024(tmp_path / "bosz" / "r10000" / "m", tmp_path / "bosz" / "wavelength_grids")
    grid = import_any(tmp_path / "bosz" / "r10000" / "m", tmp_path / "g", options=WINDOW)
    flux, continuum = true_flux(grid)
    np.testing.assert_allclose(grid.continuum(), continuum, rtol=2e-6)
    np.testing.assert_allclose(grid.flux(), flux / continuum, rtol=3e-6)
    assert (grid.medium, grid.resolution, grid.space.names) == ("vacuum", 10_000, ("teff", "logg", "feh"))
    assert grid.provenance["fixed"] == {"alpha_fe": 0.0, "c_fe": 0.25, "vmic": 2.0}
    assert grid.provenance["unit"] == "Eddington flux H, F = 4π H"
    assert grid.physics == ("lte", "plane_parallel")


def test_bosz_2024_that_is_not_resampled_has_its_own_wavelengths(tmp_path: Path) -> None:
    foreign_grids.write_bosz_2024(tmp_path / "bosz", tmp_path / "bosz", "orig")
    grid = import_any(tmp_path / "bosz", tmp_path / "g", options=WINDOW)
    np.testing.assert_allclose(grid.continuum(), true_flux(grid)[1], rtol=1e-4)
    assert grid.resolution is None


@pytest.mark.parametrize("ascii", [False, True])
def test_bosz_2017_is_pi_times_the_surface_brightness(tmp_path: Path, ascii: bool) -> None:
    foreign_grids.write_bosz_2017(tmp_path / "bosz", ascii)
    grid = import_any(tmp_path / "bosz", tmp_path / "g", options=WINDOW)
    flux, continuum = true_flux(grid)
    np.testing.assert_allclose(grid.continuum(), continuum, rtol=1e-5)
    np.testing.assert_allclose(grid.flux(), flux / continuum, rtol=1e-5)
    assert grid.resolution == 5000
    # op03 is [α/M] = 0.25: names give rounded tenths of quarters.
    assert grid.provenance["fixed"] == {"alpha_fe": 0.25, "c_fe": 0.0, "vmic": 2.0}


def test_bosz_with_a_short_file_and_without_wavelengths(tmp_path: Path) -> None:
    import gzip

    files = foreign_grids.write_bosz_2024(tmp_path / "bosz", tmp_path / "bosz")
    with gzip.open(files[3], "wt") as file:
        np.savetxt(file, np.ones((10, 2)))
    files[4].write_bytes(files[4].read_bytes()[:2000])
    grid = import_any(tmp_path / "bosz", tmp_path / "g", options=WINDOW)
    reasons = sorted(failure.reason.split(": ", 1)[1] for failure in grid.failures)
    assert reasons[0].startswith("10 fluxes and ")
    assert "cannot be read (EOFError" in reasons[1]
    (tmp_path / "bosz" / "bosz2024_wave_r10000.txt").unlink()
    with pytest.raises(GridError, match=r"bosz2024_wave_r10000\.txt is neither in .* nor above it; BOSZ publishes it"):
        import_any(tmp_path / "bosz", tmp_path / "g", options=WINDOW, overwrite=True)


def test_two_resolutions_of_bosz_are_not_mixed(tmp_path: Path) -> None:
    files = foreign_grids.write_bosz_2017(tmp_path / "bosz")
    files[0].rename(files[0].with_name(files[0].name.replace("b5000", "b10000")))
    with pytest.raises(GridError, match="mixes spectra of resolution 5000, 10000; import one of them at a time"):
        import_any(tmp_path / "bosz", tmp_path / "g")


def test_a_table_without_a_column_of_bosz_fails_its_row(tmp_path: Path) -> None:
    from astropy.table import Table

    files = foreign_grids.write_bosz_2017(tmp_path / "bosz")
    table = Table.read(files[0])
    table.remove_column("Continuum")
    table.write(files[0], overwrite=True)
    grid = import_any(tmp_path / "bosz", tmp_path / "g", options=WINDOW)
    assert "has no column Continuum (columns: Wavelength, SpecificIntensity)" in grid.failures[0].reason
