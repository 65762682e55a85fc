"""Networks of The Payne: the published formula is reproduced, and whatever is wrong with a file is one sentence."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_networks import HIGH, LABELS, LOW, NAMES, WAVE, payne_arrays, payne_flux
from shell import run

from starpayne import bundle
from starpayne.errors import BundleError, LabelError, StarpayneError, WavelengthError
from starpayne.fitting import FitOptions, fit
from starpayne.importers import payne_network
from starpayne.importers.payne_network import APOGEE_LABELS, read
from starpayne.importers.safe_npz import read_arrays
from starpayne.spectra import ObservedSpectrum


def leaky_relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0) + 0.01 * np.minimum(x, 0)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def write(path: Path, **changes: Any) -> Path:
    """A network's file with some arrays replaced, or (None) left out."""
    arrays = {**payne_arrays(), **changes}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return write(tmp_path / "NN.npz")


def imported(path: Path, **changes: Any) -> bundle.Model:
    return read(path, **{"wavelength": WAVE, "medium": "vacuum", "names": NAMES, **changes})


# -- what it predicts -------------------------------------------------------------------------------------------------


def test_the_published_formula_is_reproduced(network: Path) -> None:
    model = imported(network)
    expected = payne_flux(payne_arrays(), LABELS, leaky_relu)
    np.testing.assert_allclose(model.emulator.predict(LABELS).flux, expected, rtol=0, atol=1e-6)
    assert np.std(expected) > 0.01
    space = model.emulator.space
    assert (space.names, space.low.tolist(), space.high.tolist()) == (NAMES, LOW.tolist(), HIGH.tolist())
    assert model.residuals is None


def test_an_older_network_with_a_sigmoid_is_told_by_its_spectrum(tmp_path: Path) -> None:
    arrays = payne_arrays()
    # Outputs that are spectra only if the hidden layer stays below one.
    arrays["b_array_1"] = np.full(12, 60.0)
    arrays["w_array_2"] = np.abs(arrays["w_array_2"])
    path = write(tmp_path / "old.npz", **arrays)
    model = imported(path)
    assert (model.emulator.activation, model.training["imported"]["activation_stated"]) == ("sigmoid", False)
    expected = payne_flux(arrays, LABELS, sigmoid)
    np.testing.assert_allclose(model.emulator.predict(LABELS).flux, expected, rtol=0, atol=1e-6)
    with pytest.raises(BundleError, match=r"median of .*, and a normalised flux lies between 0.1 and 1.5; with the "):
        imported(path, activation="leaky_relu")


def test_temperatures_in_thousands_of_kelvin_become_kelvin(tmp_path: Path) -> None:
    thousands = np.array([1e-3, 1, 1])
    path = write(tmp_path / "NN.npz", x_min=LOW * thousands, x_max=HIGH * thousands)
    model = imported(path)
    assert model.emulator.space["teff"].high == pytest.approx(7000)
    expected = payne_flux(payne_arrays(), LABELS, leaky_relu)
    np.testing.assert_allclose(model.emulator.predict(LABELS).flux, expected, rtol=0, atol=1e-6)


def test_a_logarithmic_temperature_is_a_temperature(tmp_path: Path) -> None:
    low, high = (np.array([np.log10(x[0]), *x[1:]]) for x in (LOW, HIGH))
    path = write(tmp_path / "NN.npz", x_min=low, x_max=high)
    model = imported(path, names=("log10_teff", "logg", "[Fe/H]"))
    assert (model.emulator.space["teff"].transform, model.emulator.space.names) == ("log10", NAMES)
    given = np.column_stack([np.log10(LABELS[:, 0]), LABELS[:, 1:]])
    expected = payne_flux({**payne_arrays(), "x_min": low, "x_max": high}, given, leaky_relu)
    np.testing.assert_allclose(model.emulator.predict(LABELS).flux, expected, rtol=0, atol=1e-6)


def test_the_published_apogee_network_needs_nothing_but_its_wavelengths(tmp_path: Path) -> None:
    path = tmp_path / "NN_normalized_spectra.npz"
    np.savez(path, **payne_arrays(n_labels=25, n_pixels=7214))
    detectors = np.concatenate([np.geomspace(*ends, n) for ends, n in
                                (((15170, 15795), 2903), ((15875, 16420), 2406), ((16490, 16940), 1905))])  # fmt: skip
    np.savez(tmp_path / "apogee_wavelength.npz", wavelength=detectors)
    model = read(path)
    emulator = model.emulator
    assert emulator.space.names == APOGEE_LABELS
    assert (emulator.domain.medium, emulator.domain.resolution) == ("vacuum", 22500)
    assert emulator.space["c_h"].unit == "dex"
    # Between the detectors the flux is 1, in steps like those of the pixels; the pixels themselves are untouched.
    assert model.training["imported"]["gaps"] == [[15795.0, 15875.0], [16420.0, 16490.0]]
    assert emulator.domain.sampling > 60_000
    labels = emulator.space.from_cube(np.random.default_rng(2).random(25))
    flux = emulator.predict(labels)
    inside = (flux.wavelength > 15795.1) & (flux.wavelength < 15874.9)
    assert inside.sum() > 300
    np.testing.assert_array_equal(flux.flux[inside], 1.0)
    own = np.isin(flux.wavelength, detectors)
    assert (emulator.space["teff"].low, emulator.space["teff"].high) == (3000, 8000)
    labels[0] /= 1000
    expected = payne_flux(payne_arrays(n_labels=25, n_pixels=7214), labels, leaky_relu)
    np.testing.assert_allclose(flux.flux[own], expected, rtol=0, atol=1e-5)


def test_a_part_of_the_pixels_can_be_taken(network: Path) -> None:
    part = imported(network, low=5002.0, high=5008.0).emulator
    assert (part.domain.low, part.domain.high, len(part.native_wavelength)) == (5002.0, 5008.0, 25)
    whole = imported(network).emulator.predict(LABELS, part.native_wavelength).flux
    np.testing.assert_allclose(part.predict(LABELS).flux, whole, atol=1e-6)


# -- as a model -------------------------------------------------------------------------------------------------------


def test_the_model_passes_through_the_command_line(network: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "wave.npy", WAVE)
    path = bundle.save(imported(network, wavelength=tmp_path / "wave.npy"), tmp_path / "m.model")
    assert "stored spectrum reproduced" in run("verify", path)
    told = run("info", path)
    assert "imported     from NN.npz, network of The Payne (npz), SHA-256 " in told
    assert "error        not known: it came without validation spectra" in told
    run("predict", "--model", path, "--teff", "5000", "--logg", "3", "--feh", "-1", "--out", tmp_path / "f.csv")
    assert (tmp_path / "f.csv").stat().st_size > 0


def test_a_fit_says_that_the_error_of_the_network_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "NN.npz"
    np.savez(path, **payne_arrays(n_pixels=401))
    model = imported(path, wavelength=np.linspace(5000.0, 5100.0, 401))
    wave = np.linspace(5010.0, 5090.0, 200)
    flux = model.emulator.predict({"teff": 5600.0, "logg": 3.0, "feh": -0.5}, wave).flux
    spectrum = ObservedSpectrum(wave, flux, np.full(200, 1e-2), medium="vacuum")
    options = FitOptions(fix={"logg": 3.0, "feh": -0.5}, rv=0.0, vsini=0.0, n_search=8)
    result = fit(spectrum, model, 8000.0, options)
    assert "emulator_error_unknown" in result.flags
    assert np.isfinite(result.labels["teff"])


# -- what is refused --------------------------------------------------------------------------------------------------


def test_only_such_files_are_recognised(network: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    (tmp_path / "text.npz").write_text("no")
    found = [payne_network.recognises(tmp_path / name) for name in ("NN.npz", "other.npz", "text.npz", "none.npz")]
    assert found == [True, False, False, False]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"w_array_2": None}, "is no network of The Payne with two hidden layers: it lacks w_array_2"),
        ({"b_array_1": np.full(12, np.nan)}, "b_array_1 holds values that are not finite"),
        ({"b_array_1": np.full(12, 1e300)}, "b_array_1 holds values that are not finite"),
        ({"w_array_1": np.zeros((12, 11))}, r"shapes do not fit together: w_array_0 \(12, 3\), w_array_1 \(12, 11\)"),
        ({"w_array_0": np.zeros((41, 5, 3))}, "holds a small network for each pixel"),
        ({"x_min": HIGH, "x_max": LOW}, "the label teff runs from 7000 to 4000 .*bounds that increase"),
        ({"x_max": LOW}, "the label teff runs from 4000 to 4000"),
        ({"x_min": np.array([{}, {}, {}])}, "x_min holds object values, not numbers; Python objects are never read"),
        ({"x_min": np.array(["a", "b", "c"])}, "x_min holds str32 values, not numbers"),
        ({"b_array_2": np.full(41, 17.0)}, "the network gives a median of 17, and a normalised flux lies between"),
    ],
)
def test_a_network_that_cannot_be_is_refused(changes: dict[str, Any], text: str, tmp_path: Path) -> None:
    path = write(tmp_path / "NN.npz", **changes)
    with pytest.raises(BundleError, match=text):
        imported(path)


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        (
            {"medium": None},
            BundleError,
            "does not say whether its wavelengths are in air or in vacuum; give the medium",
        ),
        ({"names": None}, BundleError, "does not name its 3 labels; give their names in the order of its inputs"),
        ({"names": ("teff", "logg")}, BundleError, "2 label names were given, and the network has 3 labels"),
        ({"names": ("teff", "logg", "log g")}, BundleError, "the label logg is named twice"),
        ({"names": ("teff", "logg", "2 b")}, LabelError, "label name '2_b' is not an identifier"),
        ({"names": ("logteff", "logg", "feh")}, BundleError, "reaches 7000, which is no logarithm of a Teff"),
        ({"wavelength": None}, BundleError, "does not hold the wavelengths of its 41 pixels; give them"),
        ({"wavelength": WAVE[:-1]}, BundleError, "the network has 41 outputs and 40 wavelengths were given"),
        ({"wavelength": WAVE / 10}, WavelengthError, "starpayne expects Å"),
        ({"low": 6000.0}, BundleError, r"0 of its pixels, 5000.00 to 5010.00 Å, lie in 6000 to 5010 Å"),
        ({"activation": "cosine"}, StarpayneError, "activation 'cosine' is not known"),
    ],
)
def test_what_must_be_said_is_asked_for(changes: dict[str, Any], error: type, text: str, network: Path) -> None:
    with pytest.raises(error, match=text):
        imported(network, **changes)


def test_truncated_files_and_huge_shapes_are_refused(network: Path, tmp_path: Path) -> None:
    whole = network.read_bytes()
    for length in (0, 3, 100, len(whole) // 2, len(whole) - 30):
        (tmp_path / "cut.npz").write_bytes(whole[:length])
        with pytest.raises(BundleError, match=r"cut\.npz"):
            imported(tmp_path / "cut.npz")
    for shape, text in (((10**9, 10**9), "the largest read has"), ((1000, 1000), "the file is truncated or damaged")):
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
        with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive:
            archive.writestr("w_array_0.npy", header.getvalue())
        with pytest.raises(BundleError, match=text):
            read_arrays(tmp_path / "huge.npz")


def test_damaged_bytes_are_refused_or_read(network: Path, tmp_path: Path) -> None:
    whole, random = network.read_bytes(), np.random.default_rng(8)
    for _ in range(150):
        data = bytearray(whole)
        for place in random.integers(len(data), size=3):
            data[place] ^= int(random.integers(1, 256))
        (tmp_path / "bad.npz").write_bytes(bytes(data))
        with contextlib.suppress(BundleError):
            read_arrays(tmp_path / "bad.npz")


def test_what_is_known_of_the_file_is_stored(network: Path, tmp_path: Path) -> None:
    path = bundle.save(imported(network), tmp_path / "m.model")
    training = json.loads((path / bundle.MANIFEST).read_text())["training"]
    assert training["imported"]["file"] == "NN.npz"
    assert len(training["imported"]["sha256"]) == 64
    assert training["source"]["provenance"]["licence"] == "not stated by the file"
