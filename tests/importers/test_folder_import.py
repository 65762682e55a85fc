"""Other people's grids: both shared ones come in whole, and a bad folder is refused before anything is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import toy

from starpayne.errors import GridError, LabelError, OutputExistsError, StarpayneError, WavelengthError
from starpayne.grid import DONE, Split
from starpayne.importers import import_folder
from starpayne.labels import Constraint

# -- the shared grids -------------------------------------------------------------------------------------------------


def test_korg_flux_comes_in_with_its_split_and_medium(data_folder: Path, tmp_path: Path) -> None:
    source = data_folder / "korg_flux"
    grid = import_folder(source, tmp_path / "korg.zarr")
    np.testing.assert_array_equal(grid.flux(), np.load(source / "normalized_flux.npy").astype(np.float32))
    np.testing.assert_array_equal(grid.labels, np.load(source / "parameters.npy"))
    np.testing.assert_array_equal(grid.wavelength, np.load(source / "wavelength.npy"))
    assert (grid.medium, grid.space.names, grid.has_continuum) == ("vacuum", ("teff", "logg", "feh"), False)
    # The fixed split of every figure quoted (shared/data/README.md).
    order = np.random.default_rng(7).permutation(1000)
    assert (list(grid.split.train), grid.split.validation) == (order[200:].tolist(), ())
    assert list(grid.split.test) == order[:200].tolist()
    assert set(grid.status) == {DONE}


def test_mgb_reference_comes_in_with_continuum_constraints_and_physics(data_folder: Path, tmp_path: Path) -> None:
    source = data_folder / "mgb_reference"
    grid = import_folder(source, tmp_path / "mgb.zarr")
    rows = [0, 5000, 10999]
    stored = np.load(source / "flux.npz")["flux_u16"][rows]
    np.testing.assert_allclose(grid.flux(rows), stored / 50000, rtol=0, atol=1e-7)
    ends = np.load(source / "continuum_ends.npy")[rows]
    np.testing.assert_allclose(grid.continuum(rows)[:, [0, -1]], ends, rtol=1e-6)
    np.testing.assert_array_equal(grid.labels, np.load(source / "labels.npy"))
    assert grid.medium == "air"
    assert grid.sampling == pytest.approx(200000, rel=1e-6)
    assert grid.physics == ("no_molecules", "lte", "plane_parallel")
    assert grid.space.constraints[0] == Constraint({"mg_fe": 1.0, "alpha_fe": -1.0}, -0.4, 0.4)
    assert [len(x) for x in (grid.split.train, grid.split.validation, grid.split.test)] == [10000, 500, 500]


# -- what a folder may say --------------------------------------------------------------------------------------------


def test_a_folder_comes_in_as_it_is(write_folder, tmp_path: Path) -> None:
    grid = import_folder(write_folder(), tmp_path / "g")
    np.testing.assert_array_equal(grid.flux(), toy.spectra(toy.labels()))
    assert (grid.space, grid.split, grid.medium) == (toy.SPACE, toy.SPLIT, "air")
    assert grid.physics == ("no_molecules", "lte", "plane_parallel")
    assert grid.sampling == pytest.approx(20000)
    assert grid.provenance["engine"] == "toy"


def test_nlte_is_not_taken_for_lte(write_folder, tmp_path: Path) -> None:
    grid = import_folder(write_folder(provenance={"physics": "1D NLTE"}), tmp_path / "g")
    assert grid.physics == ()


def test_physics_flags_stated_as_a_list_are_taken_as_they_are(write_folder, tmp_path: Path) -> None:
    grid = import_folder(write_folder(provenance={"physics": ["no_molecules"]}), tmp_path / "g")
    assert grid.physics == ("no_molecules",)


def test_without_a_split_a_tenth_validates_and_a_tenth_tests(write_folder, tmp_path: Path) -> None:
    assert import_folder(write_folder(split=None), tmp_path / "g").split == Split.last_rows(60, 6, 6)


def test_scaled_integers_in_an_npz_become_flux(write_folder, tmp_path: Path) -> None:
    source = write_folder(flux=None)
    counts = np.round(toy.spectra(toy.labels()) * 50000).astype(np.uint16)
    np.savez_compressed(source / "flux.npz", other=np.zeros(2), u16=counts)
    facts = json.loads((source / "grid.json").read_text()) | {"flux": {"key": "u16", "scale": 2e-5}}
    (source / "grid.json").write_text(json.dumps(facts))
    np.testing.assert_allclose(import_folder(source, tmp_path / "g").flux(), counts / 50000, atol=1e-7)


@pytest.mark.parametrize("shape", ["whole", "ends"])
def test_a_continuum_may_be_whole_or_given_at_both_ends(write_folder, tmp_path: Path, shape: str) -> None:
    source = write_folder(continuum={"file": "c.npy"})
    ends = np.stack([np.arange(1.0, 61.0), np.arange(2.0, 62.0)], axis=1)
    line = ends[:, :1] + (toy.WAVELENGTH - toy.WAVELENGTH[0]) / (toy.WAVELENGTH[-1] - toy.WAVELENGTH[0])
    np.save(source / "c.npy", line if shape == "whole" else ends)
    np.testing.assert_allclose(import_folder(source, tmp_path / "g").continuum(), line, rtol=1e-6)


# -- what is refused --------------------------------------------------------------------------------------------------

SPECTRA = toy.spectra(toy.labels())


def with_nan() -> np.ndarray:
    flux = SPECTRA.copy()
    flux[17, 3] = np.nan
    return flux


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"flux": None}, GridError, r"flux\.npy is missing"),
        ({"labels": None}, GridError, r"labels\.npy is missing"),
        ({"wavelength": None}, GridError, r"wavelength\.npy is missing"),
        ({"medium": None}, GridError, r"grid\.json does not say 'medium'"),
        ({"medium": "water"}, WavelengthError, r"medium 'water' is not known; say 'air' or 'vacuum'"),
        ({"flux": SPECTRA[:, :39]}, GridError, r"flux has shape \(60, 39\) and labels \(60, 5\); 5 labels and 40 wav"),
        ({"flux": SPECTRA[:59]}, GridError, r"flux has shape \(59, 40\) and labels \(60, 5\)"),
        ({"flux": SPECTRA[0]}, GridError, r"flux has shape \(40,\)"),
        ({"labels": toy.labels()[:, :4]}, GridError, r"labels \(60, 4\); 5 labels and 40 wavelengths are described"),
        ({"labels": np.empty((0, 5)), "flux": SPECTRA[:0]}, GridError, r"holds an empty grid: labels have shape"),
        (
            {"labels": toy.labels() + np.array([0, 9, 0, 0, 0])},
            LabelError,
            r"row 0: logg = .* is outside the range 1 to 5",
        ),
        ({"flux": with_nan()}, GridError, r"the flux of spectrum 17 is not finite"),
        ({"flux": SPECTRA * 1e6}, GridError, r"the flux is not normalised \(its median maximum is"),
        ({"flux": SPECTRA * 1e-13}, GridError, r"the flux is not normalised \(its median maximum is"),
        ({"wavelength": toy.WAVELENGTH[::-1]}, WavelengthError, r"wavelengths must increase"),
        ({"wavelength": toy.WAVELENGTH / 1e4}, WavelengthError, r"wavelengths start at 0.5: starpayne expects Å"),
        ({"wavelength_unit": "nm"}, GridError, r"wavelength_unit = 'nm'; only 'Angstrom' can be imported"),
        ({"split": {"train": [0, 60]}}, GridError, r"the split names row 60 of 60 spectra"),
        ({"split": {"train": ["a"]}}, GridError, r"grid\.json cannot be used"),
        ({"split": [1, 2]}, GridError, r"grid\.json cannot be used"),
        ({"labels_file": "../labels.npy", "labels": None}, GridError, r"source/labels\.npy is missing"),
        ({"constraints": ["mg_fe < 3"]}, LabelError, r"write it as 'low <= label - label <= high'"),
        ({"continuum": {"file": "missing.npy"}}, GridError, r"missing\.npy is missing"),
        ({"continuum": {"meaning": "?"}}, GridError, r"grid\.json cannot be used \(KeyError: 'file'\)"),
        ({"continuum": {"file": "wavelength.npy"}}, GridError, r"continuum has shape \(40,\), not \(60, 40\) or"),
    ],
)
def test_a_bad_folder_is_refused_and_leaves_nothing(write_folder, tmp_path: Path, changes, error, text: str) -> None:
    source = write_folder(**changes)
    with pytest.raises(error, match=text):
        import_folder(source, tmp_path / "g")
    assert not (tmp_path / "g").exists()


@pytest.mark.parametrize("fact", [{"file": "flux.npy", "kind": "intensity"}, {"scale": "big"}, "flux.npy", 3])
def test_flux_that_is_described_as_something_else_is_refused(write_folder, tmp_path: Path, fact) -> None:
    source = write_folder()
    facts = json.loads((source / "grid.json").read_text()) | {"flux": fact}
    (source / "grid.json").write_text(json.dumps(facts))
    with pytest.raises(GridError, match=r"only 'normalised' flux can be imported|grid\.json cannot be used"):
        import_folder(source, tmp_path / "g")


def test_a_missing_folder_or_description_is_refused(write_folder, tmp_path: Path) -> None:
    with pytest.raises(GridError, match=r"no folder at .*nowhere"):
        import_folder(tmp_path / "nowhere", tmp_path / "g")
    source = write_folder()
    (source / "grid.json").unlink()
    with pytest.raises(GridError, match=r"grid\.json is missing"):
        import_folder(source, tmp_path / "g")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", r"grid\.json cannot be read as JSON"),
        ("[1]", r"grid\.json holds a list, not a JSON object"),
        ('{"medium": "air", "medium": "vacuum"}', r"the key 'medium' appears twice"),
        ('{"resolution": NaN}', r"NaN is not a number that JSON knows"),
        ("[" * 100000, r"grid\.json cannot be read as JSON"),
        ("{}", r"label table cannot be read"),
        (b"\xff\xfe", r"grid\.json cannot be read as JSON"),
    ],
)
def test_an_odd_description_is_one_clear_error(write_folder, tmp_path: Path, text: str | bytes, said: str) -> None:
    source = write_folder()
    (source / "grid.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(StarpayneError, match=said):
        import_folder(source, tmp_path / "g")


@pytest.mark.parametrize("name", ["flux.npy", "labels.npy", "wavelength.npy"])
def test_a_truncated_array_is_named(write_folder, tmp_path: Path, name: str) -> None:
    source = write_folder()
    for size in (0, 60, (source / name).stat().st_size - 8):
        (source / name).write_bytes((source / name).read_bytes()[:size])
        with pytest.raises(GridError, match=rf"{name} cannot be read"):
            import_folder(source, tmp_path / "g")


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_npz_is_named(write_folder, tmp_path: Path, damage: str) -> None:
    source = write_folder(flux=None)
    np.savez_compressed(source / "flux.npz", flux=SPECTRA)
    data = bytearray((source / "flux.npz").read_bytes())
    if damage == "truncated":
        data = data[: len(data) // 2]
    else:
        data[len(data) // 2] ^= 0xFF
    (source / "flux.npz").write_bytes(data)
    with pytest.raises(GridError, match=r"flux\.npz cannot be read"):
        import_folder(source, tmp_path / "g")


def test_pickled_objects_are_never_loaded(write_folder, tmp_path: Path) -> None:
    source = write_folder()
    np.save(source / "labels.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(GridError, match=r"labels\.npy cannot be read: Object arrays cannot be loaded"):
        import_folder(source, tmp_path / "g")


def test_an_existing_output_is_refused_naming_overwrite(write_folder, grid_copy: Path) -> None:
    source = write_folder(medium="vacuum")
    with pytest.raises(OutputExistsError, match=r"exists; give another path, or --overwrite to replace it"):
        import_folder(source, grid_copy)
    assert import_folder(source, grid_copy, overwrite=True).medium == "vacuum"
