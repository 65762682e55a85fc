"""A toy problem that is quick to train: five labels, forty wavelengths, three smooth lines. No physics in it."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from starpayne import bundle
from starpayne.emulators import Emulator, SpectralDomain
from starpayne.grid import Grid, Split
from starpayne.labels import Constraint, Label, LabelSpace
from starpayne.training import (
    AdditiveArchitecture,
    ConvolutionalArchitecture,
    FineTuning,
    GaussianProcessArchitecture,
    PayneArchitecture,
    PolynomialArchitecture,
    Recipe,
    TrainingData,
    TransformerArchitecture,
    train,
)
from starpayne.training.build import build, output_scaling
from starpayne.wavelengths import log_grid

SPACE = LabelSpace(
    (
        Label("teff", 4000.0, 7000.0, transform="inverse"),
        Label("logg", 1.0, 5.0),
        Label("alpha_fe", -0.1, 0.5),
        Label("vmic", 0.5, 3.0, transform="log10"),
        Label("mg_fe", -0.5, 0.9),
    ),
    (Constraint({"mg_fe": 1.0, "alpha_fe": -1.0}, -0.4, 0.4),),
)
WAVELENGTH = log_grid(5000.0, 5010.0, 20000.0)
PHYSICS = ("no_molecules", "plane_parallel")
SPLIT = Split.last_rows(60, 10, 10)
SIZES = {
    "payne": PayneArchitecture((16, 16)),
    "additive": AdditiveArchitecture((16, 16), latents=2),
    "transformer": TransformerArchitecture(8, 1, 4, 4),
    "convolutional": ConvolutionalArchitecture((16, 16), 8, "gelu"),
    "polynomial": PolynomialArchitecture(2),
    # With less noise the weights of forty spectra of so smooth a toy cancel to more digits than float32 has.
    "gaussian_process": GaussianProcessArchitecture(least_noise=1e-2),
}


def unchecked(function: Callable) -> Callable:
    """A function without the tests' type checker around it: what a user who passes the wrong kind of thing meets."""
    return inspect.unwrap(function)


def python(script: str, *arguments: object, killed: bool = False, environment: Mapping[str, str] | None = None) -> str:
    """Run a script in a Python of its own, with this folder importable, and return what it printed."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n" + textwrap.dedent(script)
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **(environment or {})},
    )
    assert done.returncode == (-9 if killed else 0), done.stderr
    return done.stdout


def labels(n: int = 60, seed: int = 5) -> np.ndarray:
    """Random labels (n, 5) that fill the allowed region."""
    return SPACE.from_cube(np.random.default_rng(seed).random((n, len(SPACE))))


def spectra(values: np.ndarray, wavelength: np.ndarray = WAVELENGTH) -> np.ndarray:
    """Normalised flux (n, n_wavelength) float32 of three lines whose depths and widths follow the labels."""
    u = SPACE.scale(values)[..., None]
    x = wavelength[None, :]
    depth = (
        (0.3 + 0.4 * u[:, 0]) * np.exp(-(((x - 5003) / 0.5) ** 2))
        + 0.3 * (u[:, 4] + u[:, 1] ** 2) / 2 * np.exp(-(((x - 5006) / (0.4 + 0.6 * u[:, 3])) ** 2))
        + 0.2 * u[:, 2] * np.exp(-(((x - 5008.5) / 0.4) ** 2))
    )
    return (1 - depth).astype(np.float32)


def continua(values: np.ndarray, wavelength: np.ndarray = WAVELENGTH) -> np.ndarray:
    """Continuum flux (n, n_wavelength) float32 that rises as Teff⁴ and falls with wavelength."""
    return (1e7 * (values[:, :1] / 5772) ** 4 * (5000 / wavelength)).astype(np.float32)


@cache
def domain() -> SpectralDomain:
    return SpectralDomain(float(WAVELENGTH[0]), float(WAVELENGTH[-1]), "air", 20000.0, physics=PHYSICS)


def empty_grid(path: Path, **changes: Any) -> Grid:
    """A toy grid that is laid out, with nothing synthesized yet."""
    settings = {"medium": "air", "split": SPLIT, "provenance": {"engine": "toy", "physics": list(PHYSICS)}}
    given = {"space": SPACE, "labels": labels(), "wavelength": WAVELENGTH, **settings, **changes}
    return Grid.create(path, given.pop("space"), given.pop("labels"), given.pop("wavelength"), **given)


def write_grid(path: Path, **changes: Any) -> Grid:
    """A complete toy grid."""
    grid = empty_grid(path, **changes)
    grid.write_all(spectra(grid.labels), continua(grid.labels))
    return Grid.open(path)


def deeper_spectra(values: np.ndarray, wavelength: np.ndarray = WAVELENGTH) -> np.ndarray:
    """The toy's lines, a third deeper: another grid, to fine-tune on."""
    return 1 - 1.3 * (1 - spectra(values, wavelength))


def write_deeper_grid(path: Path, **changes: Any) -> Grid:
    """A complete grid of deeper lines; labels that are given must be the toy's."""
    grid = empty_grid(path, **changes)
    grid.write_all(deeper_spectra(grid.labels), continua(grid.labels))
    return Grid.open(path)


def data(channels: tuple[str, ...] = ("flux",), **changes: Any) -> TrainingData:
    """Training data of the toy grid without a file: 40 spectra to train on, 10 to validate."""
    values, train_rows, held = labels(), list(SPLIT.train), list(SPLIT.validation)
    parts = {"flux": spectra(values), "log10_continuum": np.log10(continua(values))}
    targets = np.stack([parts[c] for c in channels], axis=1)
    given = {
        "space": SPACE, "domain": domain(), "wavelength": WAVELENGTH, "channels": channels,
        "labels": values[train_rows], "targets": targets[train_rows],
        "validation_labels": values[held], "validation_targets": targets[held],
        "split": {"train": train_rows, "validation": held, "test": list(SPLIT.test)},
        "source": {"grid": "toy", "fingerprint": "toy", "provenance": {}},
        **changes,
    }  # fmt: skip
    return TrainingData(**given)


def recipe(emulator: str, **changes: Any) -> Recipe:
    """A recipe that takes a second: calls of 30 steps, a validation after every second one; or a closed form."""
    if emulator in ("polynomial", "gaussian_process"):
        return Recipe(architecture=SIZES[emulator], **changes)
    settings: dict[str, Any] = {
        "steps": 180, "validate_every": 60, "batch_spectra": 16, "learning_rate": 5e-3, "ema": 0.9,
        "batch_wavelengths": 24, **changes,
    }  # fmt: skip
    return Recipe(**{"architecture": SIZES[emulator], **settings})


def fine_tuning(**changes: Any) -> FineTuning:
    """Settings of a fine-tuning that takes a second or two."""
    settings = {"steps": 80, "learning_rate": 5e-3, "batch_spectra": 16, "ema": 0.9, "rank": 2, **changes}
    return FineTuning(**settings)


def train_model(emulator: str, path: Path) -> bundle.Model:
    return train(data(), recipe(emulator), path)


def fresh(initialise: Callable[..., Emulator], *arguments: Any, key: jax.Array, **settings: Any) -> Emulator:
    """What ``initialise`` returns, drawn in one compiled function, where each shape of weights would be several."""
    return eqx.filter_jit(lambda key: initialise(*arguments, key=key, **settings))(key)


@cache
def network(settings: Recipe) -> Emulator:
    """A network that is not trained: every weight and bias is random, none is zero. The output is scaled to the toy."""
    random = np.random.default_rng(0)
    shapes = eqx.filter_eval_shape(lambda: build(data(settings.channels), settings))
    drawn = jax.tree_util.tree_map(lambda x: jnp.asarray(random.normal(0, 0.3, x.shape), jnp.float32), shapes)
    targets = drawn.network_targets(data(settings.channels).targets)
    scaling = output_scaling(targets, settings, per_pixel=drawn.center.shape[1] > 1)
    return eqx.tree_at(lambda e: (e.center, e.width), drawn, tuple(jnp.asarray(x, jnp.float32) for x in scaling))


def same_weights(one: bundle.Model, other: bundle.Model) -> bool:
    """Whether two models agree in every bit of every array."""
    a, b = bundle.named_arrays(one.emulator), bundle.named_arrays(other.emulator)
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def write_folder(path: Path, **changes: Any) -> Path:
    """Write the files that ``import_folder`` reads: ``flux``, ``labels``, ``wavelength`` arrays, other names facts."""
    values = labels()
    facts: dict[str, Any] = {
        **SPACE.to_dict(),
        "medium": "air",
        "split": {"train_order": list(SPLIT.train), "validation": list(SPLIT.validation), "test": list(SPLIT.test)},
        "provenance": {"engine": "toy", "physics": "1D LTE plane-parallel, no molecules"},
    }
    arrays: dict[str, Any] = {"flux": spectra(values), "labels": values, "wavelength": WAVELENGTH}
    path.mkdir(parents=True, exist_ok=True)
    for name, value in {**arrays, **{k: v for k, v in changes.items() if k in arrays}}.items():
        if value is not None:
            np.save(path / f"{name}.npy", value)
    facts |= {k: v for k, v in changes.items() if k not in arrays}
    (path / "grid.json").write_text(json.dumps({k: v for k, v in facts.items() if v is not None}))
    return path
