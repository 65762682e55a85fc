"""The model that comes with the package: small, whole, and good for a first prediction and a first fit."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import shell
import toy

import starpayne as sp
from starpayne import bundle

FILES = ("README.md", "emulator.json", "weights.safetensors")


@pytest.fixture(scope="module")
def mgb() -> bundle.Model:
    return sp.load()


def spectra_of(folder: Path, out: Path, flags: str = "") -> np.ndarray:
    """Spectra of a model in a process whose XLA runs with these flags and nothing of this one's."""
    script = f"""
    import numpy
    from starpayne import bundle

    emulator = bundle.load({str(folder)!r}).emulator
    numpy.save({str(out)!r}, emulator.predict(emulator.space.sobol(20, seed=1)).flux)
    """
    toy.python(script, environment={"XLA_FLAGS": flags, "JAX_COMPILATION_CACHE_DIR": str(out.parent / "compiled")})
    return np.load(out)


@pytest.fixture(scope="module")
def in_another_process(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """Spectra of the model as a user computes them."""
    return spectra_of(bundle.locate(), tmp_path_factory.mktemp("spectra") / "default.npy")


@pytest.mark.parametrize(("name", "megabytes"), [("mgb", 1.5), ("mgb_128", 8.0), ("mgb_fast", 6.5)])
def test_each_is_small_and_whole_and_says_what_it_is(name: str, megabytes: float) -> None:
    found = {path.name: path.stat().st_size for path in bundle.locate(name).iterdir()}
    assert sorted(found) == sorted(FILES)
    assert sum(found.values()) <= megabytes * 1e6
    assert bundle.verify(name).reproduced
    facts = shell.run("info", name)
    assert "5160.00 to 5209.98 Å, air" in facts
    assert "licence      MIT" in facts
    assert "A&A 671, A171 (PySME)" in facts


@pytest.mark.data
@pytest.mark.parametrize(("name", "most"), [("mgb", 0.0012), ("mgb_128", 0.00072), ("mgb_fast", 0.0014)])
def test_each_is_as_near_to_the_code_as_its_card_says(data_folder: Path, name: str, most: float) -> None:
    rows = slice(10_500, 11_000, 40)
    labels = np.load(data_folder / "mgb_reference" / "labels.npy")[rows]
    with np.load(data_folder / "mgb_reference" / "flux.npz") as stored:
        flux = stored["flux_u16"][rows] / 50_000
    missed = np.abs(sp.load(name).emulator.predict(labels).flux - flux).mean(axis=1)
    # The mean of 13 of the 500 test spectra: three standard errors of it from the card's figure.
    assert missed.mean() < most + 3 * missed.std() / 13**0.5
    assert missed.mean() > most / 4


def test_a_name_a_folder_and_nothing_mean_the_same_model(mgb: bundle.Model, tmp_path: Path, monkeypatch) -> None:
    same = {bundle.digest(bundle.load(where).emulator) for where in (None, "mgb", bundle.locate())}
    assert same == {bundle.digest(mgb.emulator)}
    monkeypatch.chdir(tmp_path)
    Path("mgb").mkdir()
    assert bundle.locate("mgb") == Path("mgb")


def test_the_sun_from_four_words(tmp_path: Path) -> None:
    words = ["predict", "--teff", "5772", "--logg", "4.44", "--feh", "0", "--rest", "solar-scaled"]
    printed = shell.run(*words)
    rows = [line for line in printed.splitlines() if line[:1].isdigit()]
    wavelength, flux = np.array([row.split(",") for row in rows], float).T
    assert len(rows) == 1929
    # The core of Mg b2, and continuum beside it.
    assert flux[np.abs(wavelength - 5172.68) < 0.05].max() < 0.2
    assert flux.max() > 0.97


@pytest.mark.data
@pytest.mark.slow
def test_the_sun_is_fitted_right_after_installation(data_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "sun.csv"
    shell.run(
        "fit", data_folder / "real_stars" / "Sun_HARPS.fits", "--resolution", "99000", "--medium", "air",
        "--fix", "solar-scaled", "--out", out,
    )  # fmt: skip
    lines = [line for line in out.read_text().splitlines() if not line.startswith("#")]
    row = next(csv.DictReader(lines))
    assert abs(float(row["teff"]) - 5772) < 200
    assert abs(float(row["logg"]) - 4.44) < 0.3
    assert abs(float(row["feh"])) < 0.15


def test_another_instruction_set_moves_no_flux_by_1e_5(in_another_process: np.ndarray, tmp_path: Path) -> None:
    narrow = spectra_of(bundle.locate(), tmp_path / "avx2.npy", "--xla_cpu_max_isa=AVX2")
    assert np.abs(in_another_process - narrow).max() <= 1e-5


def test_a_copy_predicts_the_same_bits_in_another_process(
    mgb: bundle.Model, in_another_process: np.ndarray, tmp_path: Path
) -> None:
    copy = bundle.save(mgb, tmp_path / "copy")
    np.testing.assert_array_equal(in_another_process, spectra_of(copy, tmp_path / "copy.npy"))


@pytest.fixture(scope="module")
def in_float32(mgb: bundle.Model) -> np.ndarray:
    """Spectra of forty stars."""
    return mgb.emulator.predict(mgb.emulator.space.sobol(40, seed=1)).flux


@pytest.mark.parametrize("way", ["weights", "products"])
def test_bfloat16_costs_a_thousandth_in_the_mean_and_a_hundredth_at_most(
    mgb: bundle.Model, in_float32: np.ndarray, way: str, tmp_path: Path
) -> None:
    if way == "weights":
        rounded = bundle.load(bundle.save(mgb, tmp_path / "half", precision="bfloat16")).emulator
    else:
        rounded = mgb.emulator.with_products("bfloat16")
    labels = mgb.emulator.space.sobol(40, seed=1)
    difference = np.abs(rounded.predict(labels).flux - in_float32)
    assert difference.mean() <= 1e-3
    assert difference.max() <= 1e-2
    assert difference.max() > 1e-5


def test_its_validation_error_is_the_one_on_its_card(mgb: bundle.Model) -> None:
    assert mgb.validation["mae"] < 0.0013
    card = (bundle.locate() / "README.md").read_text()
    assert f"{sum(x.size for x in bundle.named_arrays(mgb.emulator).values()) - 2:,} weights" in card
    assert json.loads((bundle.locate() / "emulator.json").read_text())["training"]["licence"] == "MIT"
