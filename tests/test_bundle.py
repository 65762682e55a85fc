"""A model on disk: it comes back bit for bit, damage of any kind is one clear sentence, and nothing is executed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from safetensors.numpy import load as parse
from safetensors.numpy import save as serialise

from starpayne import bundle
from starpayne.bundle import MANIFEST, WEIGHTS, Model, Residuals, load, save
from starpayne.bundle import folder as folder_module
from starpayne.emulators import Payne
from starpayne.errors import BundleError, OutputExistsError


@pytest.fixture
def folder(model: Model, tmp_path: Path) -> Path:
    return save(model, tmp_path / "some.model")


@pytest.fixture
def payne_folder(payne_model: Model, tmp_path: Path) -> Path:
    return save(payne_model, tmp_path / "some.model")


# -- what is saved comes back -----------------------------------------------------------------------------------------


def test_a_loaded_model_predicts_the_same_bits(model: Model, folder: Path) -> None:
    again = load(folder)
    assert toy.same_weights(model, again)
    assert type(again.emulator) is type(model.emulator)
    labels, wavelength = toy.labels(5), np.linspace(5001.0, 5009.0, 33)
    for where in (None, wavelength):
        one, other = model.emulator.predict(labels, where), again.emulator.predict(labels, where)
        np.testing.assert_array_equal(one.flux, other.flux)
        np.testing.assert_array_equal(one.wavelength, other.wavelength)


def test_everything_known_about_a_model_comes_back(model: Model, folder: Path) -> None:
    again = load(folder)
    assert again.emulator.space == toy.SPACE
    assert again.emulator.domain == toy.domain()
    assert again.emulator.channels == ("flux",)
    assert again.validation == model.validation
    assert again.training == model.training
    assert model.residuals is not None
    assert again.residuals is not None
    for name in ("wavelength", "modes", "noise"):
        one, other = getattr(model.residuals, name), getattr(again.residuals, name)
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype


def test_a_saved_loaded_saved_model_is_the_same_file(folder: Path, tmp_path: Path) -> None:
    again = save(load(folder), tmp_path / "again.model")
    for name in (WEIGHTS, MANIFEST):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_float64_wavelengths_survive_to_the_last_bit(tmp_path: Path) -> None:
    # Neighbours in float64, which float32, or seventeen digits cut to nine, would merge.
    wavelength = 5000 + np.cumsum(np.random.default_rng(0).random(40) / 7)
    wavelength[1] = np.nextafter(wavelength[0], np.inf)
    key = jax.random.key(0)
    emulator = Payne.initialise(toy.SPACE, toy.domain(), ("flux",), wavelength, hidden=(4,), activation="gelu", key=key)
    residuals = Residuals(wavelength, np.zeros((1, 40), np.float32), np.zeros(40, np.float32))
    again = load(save(Model(emulator, residuals), tmp_path / "m"))
    np.testing.assert_array_equal(again.emulator.native_wavelength, wavelength)
    assert again.residuals is not None
    np.testing.assert_array_equal(again.residuals.wavelength, wavelength)


def test_a_model_that_was_never_validated_has_no_residuals(payne_model: Model, tmp_path: Path) -> None:
    assert load(save(Model(payne_model.emulator), tmp_path / "m")).residuals is None


def test_the_folder_holds_json_and_safetensors_and_no_pickle(folder: Path) -> None:
    assert sorted(p.name for p in folder.iterdir()) == sorted([MANIFEST, WEIGHTS])
    data = (folder / WEIGHTS).read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert all(entry["dtype"] in ("F32", "F64") for name, entry in header.items() if name != "__metadata__")
    assert json.loads((folder / MANIFEST).read_text())["schema"] == 1
    assert b"pickle" not in data
    source = Path(bundle.__file__).read_text()
    assert "import pickle" not in source
    assert "eval(" not in source.replace("filter_eval_shape(", "")


# -- writing ----------------------------------------------------------------------------------------------------------


def test_an_existing_path_is_refused_naming_overwrite(model: Model, folder: Path) -> None:
    before = (folder / MANIFEST).read_bytes()
    with pytest.raises(OutputExistsError, match=r"exists; give another path, or --overwrite to replace it"):
        save(model, folder)
    assert (folder / MANIFEST).read_bytes() == before
    (folder / "stale.txt").write_text("left from another time")
    assert sorted(p.name for p in save(model, folder, overwrite=True).iterdir()) == sorted([MANIFEST, WEIGHTS])
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_a_failed_save_leaves_the_old_model_whole(payne_model: Model, payne_folder: Path, monkeypatch) -> None:
    def full_disk(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(folder_module, "write_json", full_disk)
    with pytest.raises(OSError, match=r"no space left"):
        save(payne_model, payne_folder, overwrite=True)
    assert toy.same_weights(load(payne_folder), payne_model)


def test_weights_that_are_not_finite_are_not_saved(payne_model: Model, tmp_path: Path) -> None:
    broken = eqx.tree_at(lambda e: e.biases[0], payne_model.emulator, jnp.full(16, jnp.nan))
    with pytest.raises(
        BundleError, match=r"weight biases\.0 holds values that are not finite; such a model is not sav"
    ):
        save(Model(broken), tmp_path / "m")
    assert not (tmp_path / "m").exists()


# -- damage -----------------------------------------------------------------------------------------------------------


def manifest(change: Callable[[dict], object]) -> Callable[[Path], None]:
    """Damage that edits the manifest."""

    def damage(path: Path) -> None:
        document = json.loads((path / MANIFEST).read_text())
        change(document)
        (path / MANIFEST).write_text(json.dumps(document))

    return damage


def tensors(change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Path], None]:
    """Damage that edits the weights and states their new size and checksum, as a careful forger would."""

    def damage(path: Path) -> None:
        arrays = {name: array.copy() for name, array in parse((path / WEIGHTS).read_bytes()).items()}
        change(arrays)
        restate(path, serialise(arrays))

    return damage


def restate(path: Path, data: bytes) -> None:
    (path / WEIGHTS).write_bytes(data)
    stated = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest(lambda m: m.update(weights=stated))(path)


def rewrite(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda path: (path / name).write_bytes(change((path / name).read_bytes()))


def flip_a_bit(data: bytes) -> bytes:
    flipped = bytearray(data)
    flipped[-100] ^= 1
    return bytes(flipped)


def set_value(name: str, value: float) -> Callable[[dict[str, np.ndarray]], None]:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays[name][...] = value

    return change


def link(path: Path) -> None:
    (path / WEIGHTS).rename(path / "elsewhere")
    (path / WEIGHTS).symlink_to(path / "elsewhere")


DAMAGE = {
    "no folder": (shutil.rmtree, r"no model folder at"),
    "no manifest": (lambda p: (p / MANIFEST).unlink(), r"emulator\.json is missing"),
    "no weights": (lambda p: (p / WEIGHTS).unlink(), r"weights\.safetensors is missing, or not a plain file"),
    "weights are a link": (link, r"weights\.safetensors is missing, or not a plain file"),
    "truncated weights": (
        rewrite(WEIGHTS, lambda b: b[:-10]),
        r"has \d+ bytes, emulator\.json says \d+: the file is truncated or replaced",
    ),
    "empty weights": (rewrite(WEIGHTS, lambda _: b""), r"has 0 bytes, emulator\.json says \d+"),
    "a bit flipped": (rewrite(WEIGHTS, flip_a_bit), r"does not match its checksum: the file is damaged; get a fresh"),
    "not safetensors": (lambda p: restate(p, b"PK" + bytes(200)), r"is not a safetensors file"),
    "truncated manifest": (rewrite(MANIFEST, lambda b: b[: len(b) // 2]), r"emulator\.json cannot be read as JSON"),
    "not JSON": (rewrite(MANIFEST, lambda _: b"\x80\x04N."), r"emulator\.json cannot be read as JSON"),
    "not an object": (rewrite(MANIFEST, lambda _: b"[1]"), r"emulator\.json holds a list, not a JSON object"),
    "a key twice": (
        rewrite(MANIFEST, lambda b: b.replace(b'{\n "schema"', b'{"kind": "x", "schema"', 1)),
        r"cannot be read as JSON: the key 'kind' appears twice",
    ),
    "NaN in the manifest": (
        rewrite(MANIFEST, lambda b: b.replace(b'"low": 5000.0', b'"low": NaN')),
        r"NaN is not a number that JSON knows",
    ),
    "newer schema": (
        manifest(lambda m: m.update(schema=2)),
        r"has model schema 2; this starpayne reads up to 1: install a newer starpayne",
    ),
    "schema in words": (manifest(lambda m: m.update(schema="1")), r"has model schema 1; this starpayne reads up to 1"),
    "another kind": (manifest(lambda m: m.update(kind="gan")), r"does not describe a starpayne emulator"),
    "another architecture": (
        manifest(lambda m: m.update(architecture="cnn")),
        r"unknown architecture 'cnn'; this starpayne knows payne, transformer",
    ),
    "other channels": (manifest(lambda m: m.update(channels=["log10_continuum"])), r"channels .* are not known"),
    "a missing entry": (manifest(lambda m: m.pop("domain")), r"emulator\.json is inconsistent: KeyError: 'domain'"),
    "an impossible domain": (
        manifest(lambda m: m["domain"].update(low=9e9)),
        r"a spectral domain needs 0 < low < high",
    ),
    "a domain in words": (
        manifest(lambda m: m["domain"].update(low="blue")),
        r"emulator\.json is inconsistent: ValueError",
    ),
    "a domain with more": (manifest(lambda m: m["domain"].update(colour=1)), r"is inconsistent: TypeError"),
    "labels reversed": (
        manifest(lambda m: m["label_space"]["labels"][0].update(low=7000.0, high=4000.0)),
        r"label teff: bounds must be finite and increasing",
    ),
    "a label fewer": (
        manifest(lambda m: (m["label_space"]["labels"].pop(1), m["label_space"].update(constraints=[]))),
        r"weight \S+ is float32 \(\d+, \d+\), the architecture needs float32 \(\d+, \d+\)",
    ),
    "a weight missing": (
        tensors(lambda t: t.pop("center")),
        r"weights do not fit the architecture; missing \['center'\]",
    ),
    "a weight too many": (
        tensors(lambda t: t.update(extra=np.zeros(3, np.float32))),
        r"weights do not fit the architecture; missing \[\], not expected \['extra'\]",
    ),
    "a wrong shape": (
        tensors(lambda t: t.update(center=t["center"][:, :-1])),
        r"weight center is float32 \(1, \d+\), the architecture needs float32 \(1, \d+\)",
    ),
    "a wrong kind of number": (
        tensors(lambda t: t.update(center=t["center"].astype(np.float64))),
        r"weight center is float64 .*, the architecture needs float32",
    ),
    "a NaN": (tensors(set_value("center", np.nan)), r"weight center holds values that are not finite"),
    "a changed weight": (
        tensors(set_value("center", 0.5)),
        r"does not reproduce its fingerprint spectrum: the flux differs by \d\.\de-\d\d \(allowed [15]e-04; made on",
    ),
    "no fingerprint": (manifest(lambda m: m.pop("fingerprint")), r"is inconsistent: KeyError: 'fingerprint'"),
    "half a fingerprint": (manifest(lambda m: m["fingerprint"].pop("flux")), r"the fingerprint cannot be recomputed"),
    "residuals incomplete": (
        tensors(lambda t: t.pop("residuals.noise")),
        r"residual covariance needs wavelength, modes and noise, found \['modes', 'size', 'wavelength'\]",
    ),
    "residuals of different length": (
        tensors(lambda t: t.update({"residuals.noise": t["residuals.noise"][:-1]})),
        r"arrays of the residual covariance have different lengths",
    ),
    "residuals not finite": (
        tensors(set_value("residuals.modes", np.inf)),
        r"residual covariance holds values that are not finite",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_refused_with_one_clear_sentence(folder: Path, name: str) -> None:
    damage, text = DAMAGE[name]
    damage(folder)
    with pytest.raises(BundleError, match=text) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("hidden", 16), ("hidden", [16.5, 16]), ("hidden", [10**9, 10**9]), ("activation", "system"), ("wavelength", [1])],
)
def test_a_payne_of_impossible_size_is_refused(payne_folder: Path, setting: str, value: object) -> None:
    manifest(lambda m: m["config"].update({setting: value}))(payne_folder)
    with pytest.raises(BundleError, match=r"inconsistent|is not known|the architecture needs|expects Å"):
        load(payne_folder)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("width", "8"),
        ("width", 4 * 10**9),
        ("depth", 10**9),
        ("tokens", 10**12),
        ("head_width", 0),
        ("periods", [1, 2, 3]),
    ],
)
def test_a_transformer_of_impossible_size_is_refused_before_memory_is_taken(
    transformer_model: Model, tmp_path: Path, setting: str, value: object
) -> None:
    path = save(transformer_model, tmp_path / "m")
    manifest(lambda m: m["config"].update({setting: value}))(path)
    with pytest.raises(BundleError, match=r"inconsistent|must be a multiple|the architecture needs|periods must be"):
        load(path)


# -- the covariance of the residuals ----------------------------------------------------------------------------------


def test_residual_modes_and_noise_add_up_to_the_variance(random: np.random.Generator) -> None:
    residuals = random.normal(0, [[0.01]], (30, 12)) + 0.02  # a bias counts as error
    found = Residuals.from_validation(np.linspace(5000, 5010, 12), residuals, rank=3)
    assert found.modes.shape == (3, 12)
    variance = np.sum(found.modes.astype(float) ** 2, axis=0) + found.noise.astype(float) ** 2
    np.testing.assert_allclose(variance, np.mean(residuals**2, axis=0), rtol=1e-5)
    # The first mode carries the common bias.
    np.testing.assert_allclose(np.abs(found.modes[0]), 0.02, rtol=0.5)


def test_few_validation_spectra_leave_at_least_half_of_them_as_noise() -> None:
    residuals = np.random.default_rng(0).normal(size=(4, 12))
    assert Residuals.from_validation(np.linspace(5000, 5010, 12), residuals).modes.shape == (2, 12)
    assert Residuals.from_validation(np.linspace(5000, 5010, 12), residuals[:1]).modes.shape == (1, 12)


def test_the_size_of_residuals_follows_the_labels(random: np.random.Generator, tmp_path: Path) -> None:
    labels = toy.labels(200)
    u = toy.SPACE.scale(labels)[:, 0]
    true = np.exp(1.5 * (u - u.mean()))
    residuals = true[:, None] * random.normal(0, 0.01, (200, 40))
    wavelength = np.linspace(5000, 5010, 40)
    found = Residuals.from_validation(wavelength, residuals, space=toy.SPACE, labels=labels)
    size = found.size_at(toy.SPACE, labels)
    np.testing.assert_allclose(size / np.exp(np.mean(np.log(size))), true / np.exp(np.mean(np.log(true))), rtol=0.2)
    # Times the size, the covariance is still that of the residuals.
    variance = np.sum(found.modes.astype(float) ** 2, axis=0) + found.noise.astype(float) ** 2
    assert np.mean(size**2) * variance.mean() == pytest.approx(np.mean(residuals**2), rel=0.05)
    assert found.size_at(toy.SPACE, labels[3]).shape == ()
    plain = Residuals.from_validation(wavelength, residuals[:50], space=toy.SPACE, labels=labels[:50])
    np.testing.assert_array_equal(plain.size_at(toy.SPACE, labels), 1.0)


def test_a_size_that_does_not_fit_the_labels_is_refused(payne_model: Model, tmp_path: Path) -> None:
    assert payne_model.residuals is not None
    wrong = replace(payne_model.residuals, size=np.zeros(3, np.float32))
    folder = save(replace(payne_model, residuals=wrong), tmp_path / "m")
    with pytest.raises(BundleError, match="the size of the residuals does not fit the labels"):
        load(folder)
