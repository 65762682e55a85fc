"""The grid on disk: what is written comes back, and what is missing or damaged is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import toy
import xarray

from starpayne.errors import GridError, LabelError, OutputExistsError, WavelengthError
from starpayne.grid import DONE, FAILED, MISSING, Failure, Grid, Split

# -- what is written comes back ---------------------------------------------------------------------------------------


def test_a_grid_comes_back_as_it_was_written(finished_grid: Grid) -> None:
    labels = toy.labels()
    grid = Grid.open(finished_grid.path)
    assert grid.space == toy.SPACE
    np.testing.assert_array_equal(grid.labels, labels)
    np.testing.assert_array_equal(grid.wavelength, toy.WAVELENGTH)  # float64, to the last bit
    assert (grid.labels.dtype, grid.wavelength.dtype) == (np.float64, np.float64)
    np.testing.assert_array_equal(grid.flux(), toy.spectra(labels))
    np.testing.assert_array_equal(grid.continuum(), toy.continua(labels))
    assert grid.flux().dtype == np.float32
    assert (grid.medium, grid.split, grid.resolution, grid.sampling) == ("air", toy.SPLIT, None, None)
    assert grid.physics == toy.PHYSICS
    assert grid.provenance["engine"] == "toy"
    assert set(grid.status) == {DONE}


def test_rows_come_in_the_order_asked_for_and_more_than_once(finished_grid: Grid) -> None:
    everything = finished_grid.flux()
    for rows in ([3, 1, 1, 59, 0], list(range(59, -1, -1)) * 2, [], 7):
        np.testing.assert_array_equal(finished_grid.flux(rows), everything[np.atleast_1d(np.array(rows, int))])


def test_xarray_opens_the_grid_lazily_with_its_label_names(finished_grid: Grid) -> None:
    dataset = finished_grid.dataset
    assert isinstance(dataset, xarray.Dataset)
    assert dataset["flux"].dims == ("spectrum", "wavelength")
    assert dataset["labels"].sel(label="teff").values.tolist() == toy.labels()[:, 0].tolist()
    assert dataset["wavelength"].attrs["units"] == "Angstrom"
    assert dataset["flux"].sel(wavelength=5003, method="nearest").shape == (60,)
    assert not dataset["flux"]._in_memory
    np.testing.assert_array_equal(dataset["flux"].values, finished_grid.flux())
    # Without starpayne too, as anybody else would.
    with xarray.open_zarr(str(finished_grid.path), consolidated=False, chunks=None) as plain:
        assert plain.attrs["medium"] == "air"
        assert set(plain["status"].values) == {DONE}


def test_intensities_are_in_the_schema(tmp_path: Path) -> None:
    mu = [0.2, 0.6, 1.0]
    grid = toy.empty_grid(tmp_path / "g", mu=mu)
    intensity = np.random.default_rng(0).random((3, 40)).astype(np.float32)
    grid.write(5, flux=np.ones(40), continuum=np.ones(40), intensity=intensity)
    np.testing.assert_array_equal(Grid.open(tmp_path / "g").intensity([5]), intensity[None])
    assert Grid.open(tmp_path / "g").dataset["intensity"].dims == ("spectrum", "mu", "wavelength")
    assert Grid.open(tmp_path / "g").dataset["mu"].values.tolist() == mu


def test_a_grid_without_continuum_or_intensities_says_so(tmp_path: Path) -> None:
    grid = toy.empty_grid(tmp_path / "g", continuum=False)
    grid.write(0, flux=np.ones(40), continuum=np.ones(40))  # what the grid has no room for is left out
    assert not grid.has_continuum
    with pytest.raises(GridError, match=r"stores no continuum flux"):
        grid.continuum([0])
    with pytest.raises(GridError, match=r"stores no intensities"):
        grid.intensity([0])


def test_chunks_hold_at_most_sixteen_spectra_and_all_wavelengths(tmp_path: Path, finished_grid: Grid) -> None:
    assert finished_grid.chunk == 16
    assert len([p for p in (finished_grid.path / "flux" / "c").rglob("*") if p.is_file()]) == 4
    assert toy.empty_grid(tmp_path / "g", chunk=3).chunk == 3
    for chunk in (0, 17):
        with pytest.raises(GridError, match=rf"chunk = {chunk} is outside the range 1 to 16"):
            toy.empty_grid(tmp_path / "h", chunk=chunk)
    assert not (tmp_path / "h").exists()


def test_the_fingerprint_knows_the_same_grid_elsewhere_and_another_one(grid_copy: Path, tmp_path: Path) -> None:
    one = Grid.open(grid_copy).fingerprint
    assert one == toy.empty_grid(tmp_path / "again").fingerprint
    assert one != toy.empty_grid(tmp_path / "other", provenance={"engine": "another"}).fingerprint
    assert one != toy.empty_grid(tmp_path / "fewer", labels=toy.labels(seed=6)).fingerprint


# -- the life of a row ------------------------------------------------------------------------------------------------


def test_rows_are_missing_then_done_or_failed(tmp_path: Path) -> None:
    grid = toy.empty_grid(tmp_path / "g")
    assert set(grid.status) == {MISSING}
    flux, continuum = toy.spectra(grid.labels), toy.continua(grid.labels)
    for row in (2, 17, 4):
        grid.write(row, flux=flux[row], continuum=continuum[row])
    grid.fail([Failure(7, {"teff": 4000.0}, "the equation of state did not converge")])
    grid.fail([Failure(3, {"teff": 4100.0}, "killed after 60 s")])
    again = Grid.open(tmp_path / "g")
    assert np.flatnonzero(again.status == DONE).tolist() == [2, 4, 17]
    assert np.flatnonzero(again.status == FAILED).tolist() == [3, 7]
    assert [(f.row, f.reason) for f in again.failures] == [
        (3, "killed after 60 s"),
        (7, "the equation of state did not converge"),
    ]
    assert again.failures[0].labels == {"teff": 4100.0}
    assert again.usable([17, 3, 2, 0]).tolist() == [17, 2]
    np.testing.assert_array_equal(again.flux([17, 2]), flux[[17, 2]])


def test_a_block_of_spectra_is_done_but_for_its_rows_with_nan(tmp_path: Path) -> None:
    grid = toy.empty_grid(tmp_path / "g")
    flux, continuum = toy.spectra(grid.labels)[16:40], toy.continua(grid.labels)[16:40].copy()
    continuum[3, 5] = np.nan
    grid.write_block(16, flux, continuum)
    done = np.setdiff1d(np.arange(16, 40), [19])
    np.testing.assert_array_equal(np.flatnonzero(grid.status == DONE), done)
    np.testing.assert_array_equal(grid.flux(done), toy.spectra(grid.labels)[done])


def test_a_row_that_was_not_synthesized_is_refused_with_what_to_do(tmp_path: Path) -> None:
    grid = toy.empty_grid(tmp_path / "g")
    grid.write(0, flux=np.ones(40), continuum=np.ones(40))
    with pytest.raises(
        GridError,
        match=r"2 of the 3 rows asked for were not synthesized \(first: row 5\); run `starpayne synthesize` again",
    ):
        grid.flux([0, 5, 6])


@pytest.mark.parametrize(("rows", "named"), [([60], 60), ([-1, 3], -1)])
def test_a_row_that_does_not_exist_is_named(finished_grid: Grid, rows: list[int], named: int) -> None:
    with pytest.raises(GridError, match=rf"row {named} of 60 spectra does not exist"):
        finished_grid.flux(rows)


@pytest.mark.parametrize(
    ("row", "changes", "text"),
    [
        (0, {"flux": np.ones(39)}, r"row 0: flux has shape \(39,\), this grid needs \(40,\)"),
        (0, {"continuum": np.ones((1, 40))}, r"row 0: continuum has shape \(1, 40\), this grid needs \(40,\)"),
        (0, {"flux": np.full(40, np.nan)}, r"row 0: flux is not finite everywhere"),
        (0, {"continuum": None}, r"row 0: this grid stores the continuum, and none was given"),
        (60, {}, r"row 60 of 60 spectra does not exist"),
    ],
)
def test_a_bad_spectrum_is_refused_and_its_row_stays_missing(tmp_path: Path, row: int, changes, text: str) -> None:
    grid = toy.empty_grid(tmp_path / "g")
    with pytest.raises(GridError, match=text):
        grid.write(row, **{"flux": np.ones(40), "continuum": np.ones(40), **changes})
    assert set(grid.status) == {MISSING}


def test_a_grid_opened_for_reading_cannot_be_changed(grid_copy: Path) -> None:
    with pytest.raises(ValueError, match=r"read.?only"):
        Grid.open(grid_copy).write(0, flux=np.zeros(40), continuum=np.zeros(40))
    assert Grid.open(grid_copy).flux([0]).max() > 0


# -- making one -------------------------------------------------------------------------------------------------------


def test_an_existing_path_is_refused_naming_overwrite(grid_copy: Path) -> None:
    with pytest.raises(OutputExistsError, match=r"exists; give another path, or --overwrite to replace it"):
        toy.empty_grid(grid_copy)
    assert set(Grid.open(grid_copy).status) == {DONE}
    assert set(toy.empty_grid(grid_copy, overwrite=True).status) == {MISSING}


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"labels": np.empty((0, 5))}, GridError, r"a grid needs at least one spectrum; labels have shape \(0, 5\)"),
        ({"labels": toy.labels()[:, :4]}, LabelError, r"labels must have 5 values in the last dimension"),
        ({"labels": toy.labels() + 9000}, LabelError, r"row 0: teff = .* K is outside the range 4000 to 7000"),
        ({"wavelength": toy.WAVELENGTH[::-1]}, WavelengthError, r"wavelengths must increase"),
        ({"medium": "water"}, WavelengthError, r"medium 'water' is not known"),
        ({"split": Split((0, 60), (), ())}, GridError, r"the split names row 60 of 60 spectra"),
        ({"split": Split((0,), (-1,), ())}, GridError, r"the split names row -1 of 60 spectra"),
        ({"split": Split((0, 1), (1,), ())}, GridError, r"the split names a row twice: train, validation and test"),
    ],
)
def test_an_impossible_grid_is_refused_before_anything_is_written(tmp_path: Path, changes, error, text: str) -> None:
    with pytest.raises(error, match=text):
        toy.empty_grid(tmp_path / "g", **changes)
    assert not any(tmp_path.iterdir())


def test_the_usual_split_takes_the_last_rows_and_covers_every_row_once() -> None:
    split = Split.last_rows(10, 2, 3)
    assert split == Split((0, 1, 2, 3, 4), (5, 6), (7, 8, 9))
    with pytest.raises(GridError, match=r"5 validation and 5 test spectra leaves none of 10 to train on"):
        Split.last_rows(10, 5, 5)


# -- damage -----------------------------------------------------------------------------------------------------------


def halve(name: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        data = (path / name).read_bytes()
        (path / name).write_bytes(data[: len(data) // 2])

    return damage


def delete(name: str) -> Callable[[Path], None]:
    return lambda path: (path / name).unlink()


def attributes(**changes) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        file = path / "zarr.json"
        document = json.loads(file.read_text())
        kept = {**document["attributes"], **changes}
        document["attributes"] = {name: value for name, value in kept.items() if value != "left out"}
        file.write_text(json.dumps(document))

    return damage


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (shutil.rmtree, r"no grid at"),
        (halve("zarr.json"), r"is not a readable Zarr store \(JSONDecodeError"),
        (delete("zarr.json"), r"is not a starpayne grid; `starpayne import` makes one"),
        (halve("flux/zarr.json"), r"is damaged: its description cannot be used"),
        (delete("flux/zarr.json"), r"is damaged: the variable 'flux' is missing"),
        (halve("flux/c/1/0"), r"is damaged: flux cannot be read"),
        (
            delete("flux/c/1/0"),
            r"is damaged: flux of finished rows is not finite, a file may be missing; `starpayne synthesize`",
        ),
        (halve("labels/c/0/0"), r"is damaged: labels cannot be read"),
        (delete("labels/c/0/0"), r"is damaged: .*row 0: teff = nan is not a finite number"),
        (halve("wavelength/c/0"), r"is damaged: wavelength cannot be read"),
        (delete("wavelength/c/0"), r"is damaged: .*wavelength\[0\] = nan is not a finite number"),
        (halve("status/c/0"), r"is damaged: status cannot be read"),
        (delete("status/c/2"), r"16 of the 60 rows asked for were not synthesized \(first: row 32\)"),
        (attributes(schema=2), r"has grid schema 2; this starpayne reads up to 1: install a newer starpayne"),
        (attributes(schema="one"), r"has grid schema one; this starpayne reads up to 1"),
        (attributes(kind="other"), r"is not a starpayne grid; `starpayne import` makes one"),
        (attributes(split="left out"), r"is damaged: its description cannot be used \('split'\)"),
        (attributes(split={"train": [0], "validation": [0], "test": []}), r"the split names a row twice"),
        (attributes(label_space="left out"), r"is damaged: its description cannot be used \('label_space'\)"),
        (attributes(label_space={"labels": []}), r"is damaged: .*a label space needs at least one label"),
        (attributes(medium="water"), r"is damaged: .*medium 'water' is not known"),
        (attributes(provenance=3), r"is damaged: its description cannot be used"),
        (attributes(failures=[{"row": 1}]), r"is damaged: its description cannot be used"),
    ],
)
def test_a_damaged_grid_is_one_clear_error(grid_copy: Path, damage, text: str) -> None:
    damage(grid_copy)
    with pytest.raises(GridError, match=text):
        Grid.open(grid_copy).flux()


def test_labels_and_flux_of_different_length_are_damage(grid_copy: Path, tmp_path: Path) -> None:
    other = toy.empty_grid(tmp_path / "other", labels=toy.labels(20), split=Split.last_rows(20, 2, 2))
    shutil.rmtree(grid_copy / "flux")
    shutil.copytree(other.path / "flux", grid_copy / "flux")
    with pytest.raises(
        GridError, match=r"is damaged: flux has shape \(20, 40\), labels and wavelengths say \(60, 40\)"
    ):
        Grid.open(grid_copy)


def test_an_empty_grid_is_refused(grid_copy: Path) -> None:
    document = json.loads((grid_copy / "status" / "zarr.json").read_text())
    document["shape"] = [0]
    (grid_copy / "status" / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(GridError, match=r"is empty: it has no spectra"):
        Grid.open(grid_copy)


def test_someone_elses_folder_and_file_are_not_grids(tmp_path: Path, write_folder) -> None:
    source = write_folder()
    for path in (source, source / "flux.npy"):
        with pytest.raises(GridError, match=r"is not a starpayne grid; `starpayne import` makes one"):
            Grid.open(path)


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_lost_spectra_are_found_and_forgotten(grid_copy: Path, damage: str) -> None:
    chunk = grid_copy / "flux" / "c" / "1" / "0"
    if damage == "missing":
        chunk.unlink()
    else:
        chunk.write_bytes(chunk.read_bytes()[:20])
    grid = Grid.open(grid_copy, writable=True)
    rows = list(range(grid.chunk, 2 * grid.chunk))
    assert grid.forget_damaged() == len(rows)
    assert np.flatnonzero(grid.status == MISSING).tolist() == rows
    for row in rows:
        grid.write(row, flux=toy.spectra(toy.labels())[row], continuum=toy.continua(toy.labels())[row])
    assert np.array_equal(Grid.open(grid_copy).flux(), toy.spectra(toy.labels()))
    assert grid.forget_damaged() == 0
