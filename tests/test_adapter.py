"""A low-rank update on disk: it makes of its base what it made before, and says clearly what is wrong if it cannot."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from safetensors.numpy import load as parse
from safetensors.numpy import save as serialise

from starpayne import bundle
from starpayne.bundle import ADAPTER, Model, Residuals, load, load_adapter, save, save_adapter
from starpayne.bundle.adapter import ARRAYS
from starpayne.emulators import (
    CHANNELS,
    LowRank,
    SpectralDomain,
    Target,
    TransformerPayne,
    adapted,
    fresh_low_rank,
    merged,
)
from starpayne.errors import BundleError, OutputExistsError
from starpayne.labels import Label, LabelSpace, mapped_space
from starpayne.training import AdditiveArchitecture, PayneArchitecture, TransformerArchitecture
from starpayne.training.build import output_scaling
from starpayne.training.optimizer import trainable

RECIPES = {
    "payne": toy.recipe("payne", architecture=PayneArchitecture((128, 128))),
    "additive": toy.recipe("additive", architecture=AdditiveArchitecture((64, 64), latents=2)),
    "transformer": toy.recipe("transformer", architecture=TransformerArchitecture(32, 2, 4, 8)),
}
SHORTER = toy.WAVELENGTH[5:30]
LONGER = toy.log_grid(5001.0, 5013.0, 25000.0)
MORE = LabelSpace((*toy.SPACE.labels, Label("na_fe", -0.3, 0.6)))
OTHER = mapped_space(toy.SPACE, LabelSpace((Label("feh", -2, 0), *toy.SPACE.labels[:3])), {"mg_fe": 0.1, "vmic": 1.2})


@dataclasses.dataclass
class Made:
    """An update that was made, and everything it was made of."""

    tuned: Model
    update: LowRank
    target: Target
    base: Model

    def save(self, folder: Path, **options) -> Path:
        """Write base and update beside each other."""
        if not (folder / "base.model").exists():
            save(self.base, folder / "base.model")
        return save_adapter(
            self.tuned, self.update, self.target, self.base, folder / "base.model", folder / "new.lora", **options
        )


def made(
    name: str,
    space: LabelSpace = toy.SPACE,
    wavelength: np.ndarray = toy.WAVELENGTH,
    channels: tuple[str, ...] = ("flux",),
) -> Made:
    base = Model(toy.network(RECIPES[name]), None, {"note": "base"}, {"mae": 0.02})
    values = toy.labels()
    spectra = np.stack([toy.spectra(values, wavelength), np.log10(toy.continua(values, wavelength))], axis=1)
    targets = base.emulator.network_targets(spectra[:, : len(channels)])
    center, width = (x.astype(np.float32) for x in output_scaling(targets, RECIPES[name]))
    domain = SpectralDomain(float(wavelength[0]), float(wavelength[-1]), "air", 20000.0, physics=toy.PHYSICS)
    target = Target(space, domain, wavelength, channels, center, width)
    start = adapted(base.emulator, target)
    random = np.random.default_rng(1)
    update = jax.tree_util.tree_map(
        lambda x: x + jnp.asarray(random.normal(0, 0.02, x.shape), jnp.float32),
        fresh_low_rank(start, trainable(start), 2, jax.random.key(0)),
    )
    residuals = Residuals.from_validation(wavelength, random.normal(0, 0.01, (6, len(wavelength))))
    tuned = Model(merged(start, update), residuals, {"note": "tuned", "split": {"train": [1, 2]}}, {"mae": 0.01})
    return Made(tuned, update, target, base)


def labels(space: LabelSpace) -> np.ndarray:
    return space.sobol(6, 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An update of a Payne that has other labels and pixels and one channel more, beside its base."""
    return made("payne", MORE, SHORTER, CHANNELS).save(tmp_path)


# -- what is saved comes back -----------------------------------------------------------------------------------------

CASES = [
    ("payne", toy.SPACE, toy.WAVELENGTH, ("flux",)),
    ("payne", MORE, toy.WAVELENGTH, ("flux",)),
    ("payne", toy.SPACE, SHORTER, ("flux",)),
    ("payne", OTHER, LONGER, CHANNELS),
    ("additive", OTHER, LONGER, CHANNELS),
    ("additive", MORE, toy.WAVELENGTH, ("flux",)),
    ("transformer", toy.SPACE, toy.WAVELENGTH, ("flux",)),
    ("transformer", OTHER, LONGER, CHANNELS),
]


@pytest.mark.parametrize(("name", "space", "wavelength", "channels"), CASES)
def test_a_loaded_update_is_the_tuned_model_bit_for_bit(name, space, wavelength, channels, tmp_path: Path) -> None:
    one = made(name, space, wavelength, channels)
    again = load(one.save(tmp_path))
    assert toy.same_weights(again, one.tuned)
    assert not toy.same_weights(again, Model(adapted(one.base.emulator, one.target)))
    assert again.emulator.space == space
    assert again.emulator.channels == channels
    assert (again.training, again.validation) == (one.tuned.training, one.tuned.validation)
    assert again.residuals is not None
    assert one.tuned.residuals is not None
    np.testing.assert_array_equal(again.residuals.modes, one.tuned.residuals.modes)
    np.testing.assert_array_equal(again.residuals.wavelength, wavelength)
    predictions = [m.emulator.predict(labels(space), wavelength) for m in (again, one.tuned)]
    np.testing.assert_array_equal(predictions[0].flux, predictions[1].flux)
    if "log10_continuum" in channels:
        np.testing.assert_array_equal(predictions[0].continuum, predictions[1].continuum)


@pytest.mark.parametrize("name", RECIPES)
def test_merging_into_a_model_folder_changes_no_prediction(name: str, tmp_path: Path) -> None:
    one = made(name, OTHER, LONGER)
    whole = load(save(load(one.save(tmp_path)), tmp_path / "whole.model"))
    assert toy.same_weights(whole, one.tuned)
    assert whole.emulator.space == OTHER
    rows = labels(OTHER)
    np.testing.assert_array_equal(whole.emulator.predict(rows).flux, one.tuned.emulator.predict(rows).flux)


@pytest.mark.parametrize("name", RECIPES)
def test_an_update_is_a_fifth_of_its_base_or_less(name: str, tmp_path: Path) -> None:
    one = made(name)
    path = save_adapter(
        dataclasses.replace(one.tuned, residuals=None), one.update, one.target, one.base,
        save(one.base, tmp_path / "base.model"), tmp_path / "new.lora",
    )  # fmt: skip
    sizes = [sum(f.stat().st_size for f in p.glob("*.safetensors")) for p in (path, tmp_path / "base.model")]
    assert sizes[0] < sizes[1] / 5


def test_bounds_that_were_written_as_whole_numbers_are_recognised(tmp_path: Path) -> None:
    # In a file 4000 becomes 4000.0: the same model, and so the same digest.
    space = LabelSpace(tuple(dataclasses.replace(x, low=int(x.low) - 1, high=int(x.high) + 1) for x in MORE.labels[:2]))
    emulator = dataclasses.replace(toy.network(RECIPES["transformer"]), domain=SpectralDomain(5000, 5010, "air", 20000))
    assert isinstance(emulator, TransformerPayne)
    emulator = dataclasses.replace(emulator, embed=(emulator.embed[0][:2], emulator.embed[1]), space=space)
    base = Model(emulator)
    assert bundle.digest(load(save(base, tmp_path / "base.model")).emulator) == bundle.digest(emulator)


def test_the_digest_knows_every_weight_and_setting() -> None:
    emulator = toy.network(RECIPES["payne"])
    found = {
        bundle.digest(emulator),
        bundle.digest(dataclasses.replace(emulator, center=emulator.center.at[0, 3].add(1e-6))),
        bundle.digest(dataclasses.replace(emulator, activation="leaky_relu")),
        bundle.digest(dataclasses.replace(emulator, domain=dataclasses.replace(emulator.domain, medium="vacuum"))),
    }
    assert len(found) == 4


def test_an_existing_path_is_refused_naming_overwrite(folder: Path, tmp_path: Path) -> None:
    one = made("payne", MORE, SHORTER, CHANNELS)
    with pytest.raises(OutputExistsError, match=r"exists; give another path, or --overwrite to replace it"):
        one.save(tmp_path)
    assert load(one.save(tmp_path, overwrite=True)).training["note"] == "tuned"


def test_an_update_that_is_not_finite_is_not_saved(tmp_path: Path) -> None:
    one = made("payne")
    broken = dataclasses.replace(one.update, full={**one.update.full, "biases.0": jnp.full(128, jnp.nan)})
    with pytest.raises(BundleError, match=r"weight full\.biases\.0 holds values that are not finite"):
        dataclasses.replace(one, update=broken).save(tmp_path)
    assert not (tmp_path / "new.lora").exists()


# -- where the base is ------------------------------------------------------------------------------------------------


def test_base_and_update_can_be_moved_together(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder.parent, tmp_path.with_name(tmp_path.name + "-moved"))
    moved = tmp_path.with_name(tmp_path.name + "-moved") / folder.name
    assert load(moved).training["note"] == "tuned"
    shutil.rmtree(moved.parent)


def test_a_base_that_is_gone_is_asked_for(folder: Path, tmp_path: Path) -> None:
    shutil.move(tmp_path / "base.model", tmp_path / "elsewhere.model")
    with pytest.raises(BundleError, match=r"is an update of a base model that is not at .*base\.model; put it there"):
        load(folder)
    given = load_adapter(folder, load(tmp_path / "elsewhere.model"))
    assert given.training["note"] == "tuned"


def test_an_update_of_another_base_is_refused_with_both_digests(folder: Path) -> None:
    own = made("payne").base
    other = Model(dataclasses.replace(own.emulator, center=own.emulator.center + 0.01))
    digests = [bundle.digest(m.emulator) for m in (own, other)]
    text = rf"is an update of another base model: its digest is {digests[0]}, that of the one given is {digests[1]}"
    with pytest.raises(BundleError, match=text):
        load_adapter(folder, other)


# -- damage -----------------------------------------------------------------------------------------------------------


def manifest(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        document = json.loads((path / ADAPTER).read_text())
        change(document)
        (path / ADAPTER).write_text(json.dumps(document))

    return damage


def tensors(change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Path], None]:
    """Damage that edits the arrays and states their new size and checksum, as a careful forger would."""

    def damage(path: Path) -> None:
        arrays = {name: array.copy() for name, array in parse((path / ARRAYS).read_bytes()).items()}
        change(arrays)
        data = serialise(arrays)
        (path / ARRAYS).write_bytes(data)
        stated = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        manifest(lambda m: m.update(weights=stated))(path)

    return damage


def shortened(path: Path) -> None:
    (path / ARRAYS).write_bytes((path / ARRAYS).read_bytes()[:-10])


def flipped(path: Path) -> None:
    data = bytearray((path / ARRAYS).read_bytes())
    data[-100] ^= 1
    (path / ARRAYS).write_bytes(bytes(data))


def nan_in(name: str) -> Callable[[Path], None]:
    return tensors(lambda t: t[name].__setitem__(..., np.nan))


DAMAGE = {
    "no manifest": (lambda p: (p / ADAPTER).write_text("{"), r"adapter\.json cannot be read as JSON"),
    "another kind": (manifest(lambda m: m.update(kind="gan")), r"does not describe a starpayne adapter"),
    "newer schema": (
        manifest(lambda m: m.update(schema=2)),
        r"has model schema 2; this starpayne reads up to 1: install a newer starpayne",
    ),
    "no arrays": (lambda p: (p / ARRAYS).unlink(), r"adapter\.safetensors is missing, or not a plain file"),
    "truncated": (shortened, r"has \d+ bytes, adapter\.json says \d+: the file is truncated or replaced"),
    "a bit flipped": (flipped, r"does not match its checksum: the file is damaged; get a fresh copy"),
    "a missing entry": (manifest(lambda m: m.pop("domain")), r"adapter\.json is inconsistent: KeyError: 'domain'"),
    "no fingerprint": (manifest(lambda m: m.pop("fingerprint")), r"is inconsistent: KeyError: 'fingerprint'"),
    "base in words": (manifest(lambda m: m.update(base="x")), r"adapter\.json is inconsistent: ValueError"),
    "labels reversed": (
        manifest(lambda m: m["label_space"]["labels"][0].update(low=7000.0, high=4000.0)),
        r"adapter\.json: label teff: bounds must be finite and increasing",
    ),
    "half a scale": (
        manifest(lambda m: m["label_space"]["labels"][0].update(scale=[1.0])),
        r"adapter\.json: label table cannot be read",
    ),
    "a label more": (
        manifest(lambda m: m["label_space"]["labels"].append({"name": "age", "low": 1, "high": 9})),
        r"full\.weights\.0 of shape \(6, 128\) does not fit the weight weights\.0 \(7, 128\)",
    ),
    "wavelengths reversed": (
        manifest(lambda m: m["wavelength"].reverse()),
        r"adapter\.json: wavelengths must increase",
    ),
    "wavelengths in words": (manifest(lambda m: m.update(wavelength="red")), r"adapter\.json is inconsistent"),
    "a pixel fewer": (manifest(lambda m: m["wavelength"].pop()), r"the scaling .* does not fit 24 pixels"),
    "other channels": (manifest(lambda m: m.update(channels=["x"])), r"channels .* are not known"),
    "no scaling": (tensors(lambda t: t.pop("target.center")), r"the scaling .* does not fit 25 pixels"),
    "scaling not finite": (nan_in("target.width"), r"the scaling holds values that are not finite"),
    "no width": (
        tensors(lambda t: t["target.width"].__setitem__(..., 0)),
        r"the scaling holds .* widths that are not positive",
    ),
    "NaN in a factor": (nan_in("first.weights.1"), r"first\.weights\.1 is no finite float32 update of a weight"),
    "NaN in an array": (nan_in("full.biases.0"), r"full\.biases\.0 is no finite float32 update of a weight"),
    "float64": (
        tensors(lambda t: t.update({"full.biases.0": t["full.biases.0"].astype(float)})),
        r"full\.biases\.0 is no finite float32 update",
    ),
    "a factor of another rank": (
        tensors(lambda t: t.update({"first.weights.1": t["first.weights.1"][:, :, :1]})),
        r"weights\.1 of shape .* does not fit the weight weights\.1 \(128, 128\)",
    ),
    "a flat factor": (
        tensors(lambda t: t.update({"second.weights.1": t["second.weights.1"][0]})),
        r"weights\.1 of shape .* does not fit the weight weights\.1 \(128, 128\)",
    ),
    "half of a pair": (
        tensors(lambda t: t.pop("second.weights.1")),
        r"first\.weights\.1 of shape .* does not fit the weight weights\.1",
    ),
    "a wrong shape": (
        tensors(lambda t: t.update({"full.biases.0": t["full.biases.0"][1:]})),
        r"full\.biases\.0 of shape \(127,\) does not fit the weight biases\.0 \(128,\)",
    ),
    "factors of a vector": (
        tensors(lambda t: t.update({"first.biases.0": t["first.weights.1"]})),
        r"first\.biases\.0 of shape .* does not fit the weight biases\.0",
    ),
    "an unknown weight": (
        tensors(lambda t: t.update({"full.weights.9": t["full.biases.0"]})),
        r"full\.weights\.9 is no finite float32 update of a weight of the base model",
    ),
    "a foreign array": (
        tensors(lambda t: t.update(extra=np.zeros(3, np.float32))),
        r"extra is no finite float32 update of a weight of the base model",
    ),
    "residuals incomplete": (tensors(lambda t: t.pop("residuals.noise")), r"residual covariance needs wavelength"),
    "a changed weight": (
        tensors(lambda t: t["full.biases.0"].__iadd__(1)),
        r"does not reproduce its fingerprint spectrum: the flux differs by",
    ),
    "an update missing": (
        tensors(lambda t: t.pop("full.biases.2")),
        r"does not reproduce its fingerprint spectrum: the flux differs by",
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
