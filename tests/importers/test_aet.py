"""Bundles of astro-emulators-toolkit: what its networks compute, and whatever is wrong with a folder as one sentence.

Folders that AET itself has written are compared by ``benchmarks/import_aet.py``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_networks import (
    HIGH,
    LABELS,
    LOW,
    NAMES,
    TRANSFORMER,
    WAVE,
    mlp_output,
    mlp_weights,
    sign,
    transformer_output,
    transformer_weights,
    write_bundle,
)
from safetensors.numpy import load_file, save_file

from starpayne import bundle
from starpayne.errors import BundleError
from starpayne.importers import aet
from starpayne.labels import Label, LabelSpace

UNIT = (LABELS - LOW) / (HIGH - LOW)
MLP = {"hidden_sizes": [10, 8], "activation": "gelu"}
MIDDLE = {"parameters": np.full((1, 3), 0.5)}
ANGSTROM = {"wavelength_scale": "linear"}
TABLE = LabelSpace(tuple(Label(n, float(a), float(b)) for n, a, b in zip(NAMES, LOW, HIGH, strict=True)))
NO_SCALING: dict[str, Any] = {"reference_scaling_inputs": None}


def mlp(path: Path, **changes: Any) -> Path:
    weights = changes.pop("weights", mlp_weights())
    return write_bundle(path, "mlp", weights, changes.pop("params", MLP), **changes)


def transformer(path: Path, **changes: Any) -> Path:
    params = TRANSFORMER | changes.pop("params", {})
    return write_bundle(path, "transformer_payne", transformer_weights(), params, **changes)


# -- what it predicts -------------------------------------------------------------------------------------------------


def test_an_mlp_predicts_what_it_did(tmp_path: Path) -> None:
    stored = MIDDLE, mlp_output(mlp_weights(), MIDDLE["parameters"])
    model = aet.read(mlp(tmp_path / "b", fingerprint=stored), medium="air")
    expected = 0.9 + 0.1 * mlp_output(mlp_weights(), UNIT)
    np.testing.assert_allclose(model.emulator.predict(LABELS).flux, expected, rtol=0, atol=1e-6)
    assert np.std(expected) > 0.01
    assert model.training["imported"]["fingerprint_difference"] < 1e-6
    assert (model.emulator.space.names, model.residuals) == (NAMES, None)
    np.testing.assert_array_equal(model.emulator.native_wavelength, WAVE)
    loaded = bundle.load(bundle.save(model, tmp_path / "m"))
    np.testing.assert_array_equal(loaded.emulator.predict(LABELS).flux, model.emulator.predict(LABELS).flux)


def test_a_part_of_the_pixels_is_compared_with_its_part_of_the_fingerprint(tmp_path: Path) -> None:
    stored = MIDDLE, mlp_output(mlp_weights(), MIDDLE["parameters"])
    low, high = np.full(41, 0.9).tolist(), np.linspace(0.95, 1.0, 41).tolist()
    scaling = {"min_tree": {"flux": low}, "max_tree": {"flux": high}}
    path = mlp(tmp_path / "b", fingerprint=stored, reference_scaling_outputs=scaling)
    model = aet.read(path, medium="air", low=5002.0, high=5005.0)
    assert model.training["imported"]["fingerprint_difference"] < 1e-6
    expected = np.array(low) + (np.array(high) - low) * mlp_output(mlp_weights(), UNIT)
    kept = (WAVE >= 5002) & (WAVE <= 5005)
    np.testing.assert_allclose(model.emulator.predict(LABELS).flux, expected[:, kept], rtol=0, atol=1e-6)


def test_a_transformer_of_wavelengths_in_angstrom_predicts_what_it_did(tmp_path: Path) -> None:
    asked = np.array([[5003.217, 5001.0, 5009.9]])
    stored = {**MIDDLE, "wavelengths": asked}, transformer_output(transformer_weights(), np.full((1, 3), 0.5), asked[0])
    units = {"parameters": None, "wavelengths": "Angstrom"}
    described = {"structure_tree": {}, "channel_names_tree": {"parameters": list(NAMES)}, "leaf_units_tree": units}
    model = aet.read(transformer(tmp_path / "b", fingerprint=stored, inputs=described), medium="air")
    emulator = model.emulator
    expected = 0.9 + 0.1 * transformer_output(transformer_weights(), UNIT, WAVE)
    np.testing.assert_allclose(emulator.predict(LABELS, WAVE).flux, expected, rtol=0, atol=2e-6)
    assert np.std(expected) > 0.01
    assert model.training["imported"]["fingerprint_difference"] < 2e-6
    assert (emulator.domain.low, emulator.domain.high) == (5000, 5010)
    saved = bundle.save(model, tmp_path / "m")
    again = bundle.load(saved, check_fingerprint=False).emulator
    np.testing.assert_array_equal(again.predict(LABELS, WAVE).flux, emulator.predict(LABELS, WAVE).flux)
    assert json.loads((saved / bundle.MANIFEST).read_text())["config"]["coordinate"]["scale"] == "linear"


@pytest.mark.parametrize("scale", ["log10", "scaled"])
def test_other_meanings_of_wavelength_are_found_out(scale: str, tmp_path: Path) -> None:
    def limits(low: float, high: float) -> dict[str, Any]:
        sides = (("min_tree", LOW, low), ("max_tree", HIGH, high))
        return {side: {"parameters": labels.tolist(), "wavelengths": end} for side, labels, end in sides}

    ends = (np.log10(4990.0), np.log10(5020.0)) if scale == "scaled" else (0.0, 1.0)
    domain = limits(np.log10(4999.0), np.log10(5011.0))
    path = transformer(tmp_path / "b", reference_scaling_inputs=limits(*ends), input_domain=domain, wavelength=None)
    emulator = aet.read(path, medium="vacuum", sampling=40_000.0).emulator
    assert emulator.domain.low == pytest.approx(4999)
    coordinate = (np.log10(WAVE) - ends[0]) / (ends[1] - ends[0])
    expected = 0.9 + 0.1 * transformer_output(transformer_weights(), UNIT, coordinate)
    np.testing.assert_allclose(emulator.predict(LABELS, WAVE).flux, expected, rtol=0, atol=2e-6)


def test_labels_that_the_folder_does_not_scale_are_scaled_by_the_table_given(tmp_path: Path) -> None:
    path = mlp(tmp_path / "b", **NO_SCALING)
    model = aet.read(path, medium="air", labels=TABLE)
    expected = 0.9 + 0.1 * mlp_output(mlp_weights(), UNIT)
    np.testing.assert_allclose(model.emulator.predict(LABELS).flux, expected, rtol=0, atol=1e-6)


def test_the_domain_bounds_the_labels_and_the_scaling_scales_them(tmp_path: Path) -> None:
    domain = {"min_tree": {"parameters": [4500, 2, -1]}, "max_tree": {"parameters": [6000, 4, 0]}}
    space = aet.read(mlp(tmp_path / "b", input_domain=domain), medium="air").emulator.space
    assert (space.low.tolist(), space["teff"].ends) == ([4500, 2, -1], (4000, 7000))


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "changes", "said", "text"),
    [
        (mlp, {}, {"medium": None}, "does not say whether its wavelengths are in air or in vacuum"),
        (mlp, NO_SCALING, {}, r"does not record how its labels are scaled \(reference_scaling_inputs\); give"),
        (mlp, {"inputs": {}}, {}, "does not name its 3 labels"),
        (mlp, {}, {"names": ("teff", "logg")}, "2 label names were given, and the network has 3 labels"),
        (mlp, {"wavelength": None}, {}, "does not state the wavelengths of its pixels; give them in Å"),
        (mlp, {"wavelength": WAVE[1:]}, {}, "the network has 41 outputs and 40 wavelengths were given"),
        (mlp, {"params": {**MLP, "activation": "sine"}}, {}, "activation 'sine' with output_activation 'linear'"),
        (mlp, {"params": {"hidden_sizes": [10, 9]}}, {}, r"layers/1/kernel has shape \(10, 8\), its settings need"),
        (mlp, {"params": {"hidden_sizes": "x"}}, {}, "its settings cannot be used"),
        (mlp, {"reference_scaling_outputs": None, "weights": {n: 9 * w for n, w in mlp_weights().items()}}, {},
         "how outputs are scaled has to be recorded"),
        (mlp, {"fingerprint": (MIDDLE, np.ones((1, 41)))}, {}, "does not reproduce its fingerprint: the flux differs"),
        (mlp, {"fingerprint": (MIDDLE, np.ones((1, 40)))}, {}, "its fingerprint does not fit its description"),
        (transformer, {}, {}, "does not say whether its network takes wavelengths in Å or their log10"),
        (transformer, {}, {"wavelength_scale": "nm"}, "wavelength_scale = 'nm' is not known"),
        (transformer, {"wavelength": None}, ANGSTROM, "does not state the range of its wavelengths"),
        (transformer, {"wavelength": None}, ANGSTROM | {"low": 5000.0, "high": 5010.0}, "the sampling"),
        (transformer, {}, ANGSTROM | {"low": 4000.0}, "4000 to 5010 Å is no part of the 5000.00 to"),
        (transformer, {"params": {"bias_dense": True}}, ANGSTROM, r"with biases \(bias_dense\)"),
        (transformer, {"params": {"channels": 2}}, ANGSTROM, "channels = 2; networks of one"),
        (transformer, {"params": {"dim": 16}}, ANGSTROM, r"its settings need \(16, 80\)"),
        (transformer, {"params": {"dim_head": 3}}, ANGSTROM, "must be a multiple of the head width"),
        (transformer, {"params": {"no_layers": 10**9}}, ANGSTROM, "1 to 1000 can be imported"),
        (transformer, {"params": {"dim": 10**9}}, ANGSTROM, "at most 16384"),
    ],
)  # fmt: skip
def test_what_cannot_be_or_must_be_said_is_one_sentence(
    make: Any, changes: dict[str, Any], said: dict[str, Any], text: str, tmp_path: Path
) -> None:
    path = make(tmp_path / "b", **changes)
    with pytest.raises(BundleError, match=text):
        aet.read(path, **{"medium": "air", **said})


def test_damaged_and_foreign_folders_are_refused(tmp_path: Path) -> None:
    path = mlp(tmp_path / "b")
    assert (aet.recognises(path), aet.recognises(tmp_path), aet.recognises(path / "metadata.json")) == (
        True,
        False,
        False,
    )
    weights = path / "weights" / "weights.safetensors"
    whole, metadata = weights.read_bytes(), (path / "metadata.json").read_text()
    files = ["metadata.json", "weights/weights.safetensors", "extras/wavelength_angstrom.safetensors"]

    def refused(text: str) -> None:
        with pytest.raises(BundleError, match=text):
            aet.read(path, medium="air")

    weights.write_bytes(whole[:-1])
    refused("does not match the checksum in bundle_integrity.json: it is damaged or was changed later")
    sign(path, files)
    refused("is not a safetensors file")
    arrays = load_file(mlp(tmp_path / "c") / "weights" / "weights.safetensors")
    arrays["params/params/core_model/layers/0/bias"][0] = np.nan
    save_file(arrays, weights)
    sign(path, files)
    refused("layers/0/bias holds values that are not finite")
    weights.write_bytes(whole)
    (path / "metadata.json").write_text(metadata.replace('"bundle_format_version": 1', '"bundle_format_version": 2'))
    sign(path, files)
    refused("bundle_format_version is 2; 1 can be imported")
    (path / "metadata.json").write_text(metadata.replace('"mlp"', '"cannon"'))
    sign(path, files)
    refused("holds a model of the kind 'cannon'; those that can be imported are mlp, transformer_payne")
    (path / "metadata.json").write_text(metadata.replace("extras/wavelength_angstrom.safetensors", "../secret"))
    sign(path, files)
    refused(r"'\.\./secret' is no file within the folder")
    (path / "bundle_integrity.json").write_text('{"tree": [{"path": "/etc/passwd", "sha256": "0"}]}')
    refused("'/etc/passwd' is no file within the folder")
    (path / "bundle_integrity.json").unlink()
    refused("is no folder of astro-emulators-toolkit: bundle_integrity.json is missing")
