"""Exported models: what other programs compute from them is what the model computes."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from starpayne import bundle
from starpayne.bundle import Model
from starpayne.emulators import CHANNELS, Payne, SpectralDomain, TransformerPayne
from starpayne.errors import BundleError, OutputExistsError
from starpayne.exporting import export
from starpayne.labels import Constraint, Label, LabelSpace
from starpayne.wavelengths import Coordinate


def reader_at(path: Path) -> ModuleType:
    """The reader that stands beside an export, imported as its user would."""
    spec = importlib.util.spec_from_file_location("the_reader", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_reader_of_numpy_alone_gives_the_spectra_of_each_architecture(model, tmp_path: Path) -> None:
    written = export(model, tmp_path / "m.npz", "npz")
    reader = reader_at(tmp_path / "m_reader.py")
    labels = model.emulator.space.sobol(3, seed=5)
    found = [reader.spectrum(reader.load(tmp_path / "m.npz"), row)[0] for row in labels]
    assert written.files == (tmp_path / "m.npz", tmp_path / "m_reader.py")
    allowed = 5e-4 if model.emulator.architecture == "gaussian_process" else 1e-5
    np.testing.assert_allclose(found, model.emulator.predict(labels).flux, atol=allowed)
    assert written.largest <= allowed


def test_readers_are_thirty_lines_that_import_numpy_alone(model, tmp_path: Path) -> None:
    export(model, tmp_path / "m.npz", "npz")
    lines = [line for line in (tmp_path / "m_reader.py").read_text().splitlines() if line.strip()]
    assert len(lines) <= 30
    assert [line for line in lines if "import" in line] == ["import numpy as np"]


def test_transformed_held_and_residual_are_in_the_file(tmp_path: Path) -> None:
    space = LabelSpace(
        (Label("teff", 4000, 7000, transform="inverse"), Label("vmic", 0.5, 3, transform="log10")),
        held=((Label("feh", -2, 0.5), -0.7),),
    )
    wavelength = np.linspace(5160, 5170, 30)
    domain = SpectralDomain(5160, 5170, "vacuum", 15_000, None, ())
    emulator = Payne.initialise(
        space, domain, CHANNELS, wavelength, hidden=(8, 8), activation="silu", residual=True, key=jax.random.key(0)
    )
    assert export(Model(emulator), tmp_path / "m.npz", "npz").largest < 1e-5


def test_wavelengths_of_ones_own_go_to_the_reader_of_a_transformer(transformer_model, tmp_path: Path) -> None:
    export(transformer_model, tmp_path / "m.npz", "npz")
    reader, emulator = reader_at(tmp_path / "m_reader.py"), transformer_model.emulator
    wavelength = np.linspace(emulator.domain.low, emulator.domain.high, 17)
    labels = emulator.space.sobol(1, seed=2)[0]
    found = reader.spectrum(reader.load(tmp_path / "m.npz"), labels, wavelength)
    np.testing.assert_allclose(found[0], emulator.predict(labels, wavelength).flux, atol=1e-5)


def test_what_only_imported_networks_have_is_in_the_file(transformer_model, tmp_path: Path) -> None:
    emulator = dataclasses.replace(
        transformer_model.emulator, activation="squared_relu", coordinate=Coordinate("linear", 4990.0, 20.0)
    )
    assert export(Model(emulator), tmp_path / "m.npz", "npz").largest < 1e-5


def test_constraints_and_curvature_are_in_the_file_of_a_polynomial(tmp_path: Path) -> None:
    from starpayne.emulators import Polynomial

    space = LabelSpace(
        (Label("teff", 4000, 7000), Label("alpha_fe", -0.1, 0.5), Label("mg_fe", -0.5, 0.9)),
        (Constraint.parse("-0.4 <= mg_fe - alpha_fe <= 0.4"), Constraint.parse("-9 <= alpha_fe - 2 mg_fe <= 9")),
    )
    domain = SpectralDomain(5160, 5170, "air", 15_000, None, ())
    empty = Polynomial.initialise(space, domain, ("flux",), np.linspace(5160, 5170, 30), degree=4)
    random = np.random.default_rng(0).normal(size=empty.coefficients.shape) / 50
    emulator = dataclasses.replace(empty, coefficients=jnp.asarray(random, jnp.float32))
    assert export(Model(emulator), tmp_path / "m.npz", "npz").largest < 1e-5


def test_onnx_gives_the_spectra_of_each_architecture(model, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    import onnxruntime

    export(model, tmp_path / "m.onnx", "onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    labels = model.emulator.space.sobol(5, seed=5).astype(np.float32)
    spectra, wavelength = session.run(["spectra", "wavelength"], {"labels": labels})
    allowed = 5e-4 if model.emulator.architecture == "gaussian_process" else 1e-5
    np.testing.assert_allclose(spectra[:, 0], model.emulator.predict(labels).flux, atol=allowed)
    np.testing.assert_array_equal(wavelength, model.emulator.native_wavelength)
    facts = {p.key: json.loads(p.value) for p in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert [x["name"] for x in facts["labels"]] == list(model.emulator.space.names)
    assert facts["medium"] == model.emulator.domain.medium


def test_onnx_of_a_transformer_on_more_wavelengths_than_go_through_at_once(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    domain = SpectralDomain(5000, 5300, "air", 100_000, None, ())
    space = toy.SPACE
    emulator = TransformerPayne.initialise(space, domain, ("flux",), width=64, depth=1, tokens=2, key=jax.random.key(0))
    assert len(emulator.native_wavelength) > 4096
    assert export(Model(emulator), tmp_path / "m.onnx", "onnx").largest < 1e-5


def test_bfloat16_halves_a_folder_that_loads_like_any_other(payne_model, tmp_path: Path) -> None:
    whole = bundle.save(payne_model, tmp_path / "whole") / bundle.WEIGHTS
    bare = Model(payne_model.emulator)
    written = export(bare, tmp_path / "half", "bfloat16")
    loaded = bundle.load(tmp_path / "half")
    size = (tmp_path / "half" / bundle.WEIGHTS).stat().st_size
    assert size < 0.6 * whole.stat().st_size
    assert bundle.verify(tmp_path / "half").reproduced
    assert 0 < written.mean < 1e-3
    assert written.largest < 1e-2
    assert all(leaf.dtype == jnp.float32 for leaf in bundle.named_arrays(loaded.emulator).values())


def test_an_export_that_computes_something_else_is_not_kept(payne_model, tmp_path: Path, monkeypatch) -> None:
    def wrong(emulator: Any, path: Path) -> Any:
        path.write_bytes(b"weights")
        return lambda labels: np.full((len(emulator.channels), len(emulator.native_wavelength)), 0.5)

    monkeypatch.setattr("starpayne.exporting.writing.write_onnx", wrong)
    (tmp_path / "m.onnx").write_text("the good one of yesterday")
    with pytest.raises(BundleError, match=r"exported as onnx, this payne emulator is off by .* nothing was kept"):
        export(payne_model, tmp_path / "m.onnx", "onnx", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    assert (tmp_path / "m.onnx").read_text() == "the good one of yesterday"


def test_a_folder_that_holds_no_model_is_not_replaced_by_one(payne_model, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("mine")
    for act in (
        lambda path: export(payne_model, path, "bfloat16", overwrite=True),
        lambda path: bundle.save(payne_model, path, overwrite=True),
    ):
        with pytest.raises(OutputExistsError, match=r"home holds .*emulator\.json.*, so it is no earlier output"):
            act(tmp_path / "home")
    assert (tmp_path / "home" / "thesis.tex").read_text() == "mine"


def test_kinds_and_places_are_checked_before_anything_is_written(payne_model, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="'onx' is not known; did you mean 'onnx'"):
        export(payne_model, tmp_path / "m", "onx")
    (tmp_path / "m_reader.py").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"m_reader\.py exists"):
        export(payne_model, tmp_path / "m.npz", "npz")
    with pytest.raises(BundleError, match="precision 'half' is not known; weights are saved as float32 or bfloat16"):
        bundle.save(payne_model, tmp_path / "x", precision="half")
    assert [p.name for p in tmp_path.iterdir()] == ["m_reader.py"]
