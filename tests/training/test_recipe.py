"""Recipes: they survive TOML and JSON, and a wrong setting is named with what it may be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import toy

from starpayne.errors import RecipeError
from starpayne.training import (
    ConvolutionalArchitecture,
    GaussianProcessArchitecture,
    PayneArchitecture,
    PolynomialArchitecture,
    Recipe,
    TransformerArchitecture,
    presets,
)

TRANSFORMER = Recipe(
    architecture=TransformerArchitecture(32, 2, 8, 16, (1e-6, 10.0)),
    channels=("flux", "log10_continuum"),
    output="raw", loss="huber", optimizer="muon", learning_rate=2e-3, schedule="stable_decay", warmup=0.1, decay=0.3,
    reference_width=16, weight_decay=0.01, precision="bfloat16", clip=0.5, ema=0.999, steps=77, batch_spectra=8,
    batch_wavelengths=16, validate_every=7, seed=3,
)  # fmt: skip


def to_toml(recipe: Recipe) -> str:
    """The recipe as a user would write it down; JSON's numbers, strings and lists are TOML's."""
    data = recipe.to_dict()
    architecture = data.pop("architecture")
    lines = [f"{name} = {json.dumps(value)}" for name, value in data.items()]
    return "\n".join([*lines, "[architecture]", *(f"{name} = {json.dumps(v)}" for name, v in architecture.items())])


@pytest.mark.parametrize(
    "recipe",
    [
        TRANSFORMER,
        Recipe(),
        Recipe(architecture=TransformerArchitecture()),
        Recipe(architecture=ConvolutionalArchitecture((8,), 4)),
        Recipe(architecture=PolynomialArchitecture(3, 0.5), output="raw", seed=2),
        Recipe(architecture=PolynomialArchitecture()),
        Recipe(architecture=PolynomialArchitecture(), quantity="intensity"),
        TRANSFORMER.replace(quantity="intensity"),
        Recipe(architecture=GaussianProcessArchitecture("squared_exponential", 1e-4)),
    ],
)
def test_a_recipe_survives_toml_and_json(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(to_toml(recipe))
    assert Recipe.from_toml(tmp_path / "r.toml") == recipe
    data = json.loads(json.dumps(recipe.to_dict()))
    assert data == recipe.to_dict()  # plain JSON already: nothing turns into something else on the way
    assert Recipe.from_dict(data) == recipe
    assert hash(Recipe.from_dict(data)) == hash(recipe)


def test_what_is_left_out_has_its_default() -> None:
    assert Recipe.from_dict({}) == Recipe()
    assert Recipe.from_dict({"emulator": "transformer"}).architecture == TransformerArchitecture()
    assert (Recipe().emulator, TRANSFORMER.emulator) == ("payne", "transformer")


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_a_recipe(name: str) -> None:
    recipe = Recipe.preset(name)
    assert name.startswith(recipe.emulator)
    assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_the_presets_that_the_documentation_names_are_there() -> None:
    assert {"payne", "payne_published", "transformer"} <= set(presets())
    published = Recipe.preset("payne_published")
    assert published.architecture == PayneArchitecture((300, 300), "leaky_relu")
    assert (published.output, published.optimizer, published.learning_rate) == ("raw", "radam", 1e-4)
    with pytest.raises(RecipeError, match=r"no recipe is called 'cannon'; there are .*payne"):
        Recipe.preset("cannon")


def test_a_recipe_in_closed_form_has_no_settings_of_an_optimizer() -> None:
    recipe = Recipe.preset("polynomial2")
    assert recipe.closed_form
    assert not TRANSFORMER.closed_form
    assert set(recipe.to_dict()) == {"emulator", "architecture", "channels", "output", "seed"}


def test_the_quantity_is_written_down_only_where_it_is_not_the_flux() -> None:
    # A training of a version without it must be recognised as the same.
    assert "quantity" not in Recipe().to_dict()
    assert Recipe(quantity="intensity").to_dict()["quantity"] == "intensity"
    assert Recipe.preset("transformer_intensity").quantity == "intensity"


def test_a_changed_copy_leaves_the_original_alone() -> None:
    changed = TRANSFORMER.replace(steps=5, architecture={"depth": 1, "periods": [1e-5, 1.0]})
    assert (changed.steps, changed.architecture.depth, changed.architecture.periods) == (5, 1, (1e-5, 1.0))
    assert changed.architecture.width == 32
    assert (TRANSFORMER.steps, TRANSFORMER.architecture.depth) == (77, 2)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (
            {"learning_rat": 1},
            r"^unknown recipe setting 'learning_rat'; did you mean 'learning_rate'\? \(settings: arch",
        ),
        ({"colour": 1}, r"^unknown recipe setting 'colour' \(settings: architecture, channels, quantity, output,"),
        (
            {"emulator": "transformer", "architecture": {"widht": 3}},
            r"^unknown architecture setting 'widht'; did you mean 'width'\? \(settings: width, depth, tokens,",
        ),
        (
            {"architecture": {"width": 3}},
            r"^unknown architecture setting 'width' \(settings: hidden, activation, residual\)$",
        ),
        (
            {"emulator": "cnn"},
            r"^emulator = 'cnn' is not known; choose one of payne, transformer, convolutional, additive, poly",
        ),
        (
            {"emulator": "polynomial", "steps": 10},
            r"^steps does not apply to a polynomial, which is solved in closed form; its settings are architecture, ch",
        ),
        ({"emulator": "polynomial", "architecture": {"degree": 0}}, r"^degree = 0 is outside the range 1 to 20$"),
        (
            {"emulator": "gaussian_process", "architecture": {"kernel": "rbf"}},
            r"^kernel = 'rbf' is not known; choose one of matern52, squared_exponential$",
        ),
        ({"steps": 0}, r"^steps = 0 is outside the range 1 to 1000000000$"),
        ({"warmup": 1.5}, r"^warmup = 1.5 is outside the range 0.0 to 1.0$"),
        ({"ema": 1.0}, r"^ema = 1.0 is outside the range 0.0 to 0.999999$"),
        ({"learning_rate": float("nan")}, r"^learning_rate = nan is outside the range 0.0 to 10.0$"),
        ({"clip": -1.0}, r"^clip = -1.0 is outside the range"),
        ({"batch_spectra": 0}, r"^batch_spectra = 0 is outside the range 1 to"),
        ({"seed": -1}, r"^seed = -1 is outside the range 0 to"),
        (
            {"channels": ["log10_continuum"]},
            r"^channels = \('log10_continuum',\): choose \['flux'\] or \['flux', 'log10",
        ),
    ],
)
def test_a_wrong_setting_is_named_with_what_it_may_be(data: dict, text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        Recipe.from_dict(data)


WRONG_KINDS = [
    ({"quantity": "colour"}, "quantity = 'colour' is not known; choose one of flux, intensity"),
    ({"optimizer": "sgd"}, "optimizer = 'sgd' is not known; choose one of adamw, radam, muon"),
    ({"loss": "mse"}, "loss = 'mse' is not known; choose one of l1, l2, huber"),
    ({"schedule": "step"}, "schedule = 'step' is not known; choose one of cosine, constant, linear, stable_decay"),
    ({"precision": "half"}, "precision = 'half' is not known; choose one of float32, bfloat16"),
    ({"output": "log"}, "output = 'log' is not known; choose one of raw, standardised"),
    ({"steps": "many"}, "steps = 'many' is not a whole number"),
    ({"steps": 10.5}, "steps = 10.5 is not a whole number"),
    ({"steps": True}, "steps = True is not a whole number"),
    ({"learning_rate": "fast"}, "learning_rate = 'fast' is not a number"),
    ({"channels": 3}, "a setting of the recipe has the wrong kind: 'int' object is not iterable"),
    ({"architecture": {"hidden": 300}}, "a setting of the recipe has the wrong kind: 'int' object is not iterable"),
    ({"architecture": {"hidden": [16, 2.5]}}, "hidden = 2.5 is not a whole number"),
    ({"architecture": "big"}, "architecture = 'big' is not a table of settings"),
    ({"emulator": "transformer", "architecture": {"width": 64.0}}, "width = 64.0 is not a whole number"),
    ({"emulator": "transformer", "architecture": {"depth": 0}}, "depth = 0 is outside the range 1 to 1024"),
    (
        {"emulator": "transformer", "architecture": {"periods": 1.0}},
        "a setting of the recipe has the wrong kind: 'float' object is not iterable",
    ),
]


def test_settings_of_the_wrong_kind_are_refused_by_name() -> None:
    # In a process of its own, because here the tests' type checker would refuse them first.
    output = toy.python(f"""
        from starpayne.errors import RecipeError
        from starpayne.training import Recipe

        for data in {[data for data, _ in WRONG_KINDS]}:
            try:
                print("accepted", Recipe.from_dict(data))
            except RecipeError as error:
                print(error)
    """)
    assert output.splitlines() == [text for _, text in WRONG_KINDS]


def test_changes_are_checked_too() -> None:
    with pytest.raises(RecipeError, match=r"unknown recipe setting 'stesp'; did you mean 'steps'\?"):
        TRANSFORMER.replace(stesp=1)
    with pytest.raises(RecipeError, match=r"unknown architecture setting 'hidden'"):
        TRANSFORMER.replace(architecture={"hidden": [3]})
    with pytest.raises(RecipeError, match=r"steps = -1 is outside the range"):
        TRANSFORMER.replace(steps=-1)


def test_a_missing_or_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no recipe at .*nowhere\.toml"):
        Recipe.from_toml(tmp_path / "nowhere.toml")
    for bad in (b"steps = ", b"\xff\xfe", b"steps = 1\nsteps = 2"):
        (tmp_path / "bad.toml").write_bytes(bad)
        with pytest.raises(RecipeError, match=r"bad\.toml is not readable TOML"):
            Recipe.from_toml(tmp_path / "bad.toml")
