"""The recipe of a training: everything that decides the outcome, apart from the grid. Frozen, and readable as TOML."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

from starpayne.emulators import CHANNELS
from starpayne.errors import RecipeError, did_you_mean
from starpayne.training.architectures import (
    ARCHITECTURE_SETTINGS,
    Architecture,
    ClosedFormArchitecture,
    PayneArchitecture,
    check_number,
)

Optimizer = Literal["adamw", "radam", "muon"]
Schedule = Literal["cosine", "constant", "linear", "stable_decay"]
Quantity = Literal["flux", "intensity"]
Precision = Literal["float32", "bfloat16"]
Loss = Literal["l1", "l2", "huber"]
Output = Literal["raw", "standardised"]

CLOSED_FORM_SETTINGS = ("architecture", "channels", "quantity", "output", "seed")
"""The settings that an emulator in closed form has; all others belong to training by gradients."""


@dataclass(frozen=True)
class Recipe:
    """How to train one emulator.

    An emulator in closed form (polynomial, Gaussian process) takes ``architecture``, ``channels``, ``quantity``,
    ``output`` and ``seed`` only; the other settings must be left at their defaults.

    Args:
        architecture: sizes of the network; its class names the emulator.
        channels: ("flux",), or ("flux", "log10_continuum").
        quantity: what the first channel is: "flux", or "intensity" (π I / F_c, with the viewing angle ``mu`` as a
            label).
        output: "raw" (the network gives the flux itself, as published) or "standardised" (it gives the deviation
            from the mean training spectrum).
        loss: "l1", "l2" or "huber" (quadratic below 1e-3 in flux), on the flux.
        optimizer: "adamw", "radam", or "muon" (hidden matrices orthogonalised, AdamW for the rest).
        learning_rate: peak value.
        schedule: what follows the warm-up: "cosine" or "linear" to zero, "constant", or "stable_decay" (constant, then
            linear to zero: warmup-stable-decay, arXiv:2404.06395).
        warmup: fraction of the steps over which the rate rises from zero.
        decay: fraction of the steps over which "stable_decay" falls to zero at the end.
        reference_width: width at which the learning rate was found; at another width the rates of hidden matrices and
            of the readout, and the readout's first weights, are scaled as μP wants (arXiv:2203.03466), so that the same
            learning rate serves. 0: no scaling.
        weight_decay: decoupled, as a fraction of the learning rate.
        clip: largest global norm of the gradient; 0 for none.
        ema: decay of the exponential moving average of the weights that is validated and kept; 0 for none. Early steps
            are averaged over fewer, so that the first weights are forgotten.
        precision: of a transformer's matrix products in training, "float32", or "bfloat16" for GPUs; weights, sums,
            norms, softmax and loss are float32 in either case, and so are the model's predictions where nothing else is
            asked for. In a distillation it is that of the teacher's spectra too.
        steps: updates.
        batch_spectra: spectra per step, at most the training set.
        batch_wavelengths: random wavelengths per step; 0 for all. Fixed-pixel networks take all.
        validate_every: steps between validations; the best weights are kept.
        seed: of everything random.

    Example:
        >>> Recipe.preset("payne").replace(steps=100).steps
        100
    """

    architecture: Architecture = field(default_factory=PayneArchitecture)
    channels: tuple[str, ...] = ("flux",)
    quantity: Quantity = "flux"
    output: Output = "standardised"
    loss: Loss = "l1"
    optimizer: Optimizer = "adamw"
    learning_rate: float = 1e-3
    schedule: Schedule = "cosine"
    warmup: float = 0.05
    decay: float = 0.2
    reference_width: int = 0
    weight_decay: float = 0.0
    clip: float = 1.0
    ema: float = 0.0
    precision: Precision = "float32"
    steps: int = 5000
    batch_spectra: int = 64
    batch_wavelengths: int = 0
    validate_every: int = 250
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        self._check()

    def _check(self) -> None:
        for name, allowed in (
            ("quantity", get_args(Quantity)),
            ("output", get_args(Output)),
            ("loss", get_args(Loss)),
            ("optimizer", get_args(Optimizer)),
            ("schedule", get_args(Schedule)),
            ("precision", get_args(Precision)),
        ):
            if getattr(self, name) not in allowed:
                raise RecipeError(f"{name} = {getattr(self, name)!r} is not known; choose one of {', '.join(allowed)}")
        for name, low, high in (
            ("learning_rate", 0.0, 10.0), ("warmup", 0.0, 1.0), ("decay", 0.0, 1.0),
            ("reference_width", 0, 10**6), ("weight_decay", 0.0, 10.0), ("clip", 0.0, 1e9),
            ("ema", 0.0, 0.999999), ("steps", 1, 10**9), ("batch_spectra", 1, 10**6),
            ("batch_wavelengths", 0, 10**7), ("validate_every", 1, 10**9), ("seed", 0, 2**31 - 1),
        ):  # fmt: skip
            check_number(name, getattr(self, name), low, high, whole=isinstance(getattr(Recipe, name), int))
        if self.channels not in (("flux",), CHANNELS):
            raise RecipeError(f"channels = {self.channels}: choose ['flux'] or ['flux', 'log10_continuum']")
        if self.closed_form:
            for setting in dataclasses.fields(self):
                if setting.name not in CLOSED_FORM_SETTINGS and getattr(self, setting.name) != setting.default:
                    raise RecipeError(
                        f"{setting.name} does not apply to a {self.emulator}, which is solved in closed form; "
                        f"its settings are {', '.join(CLOSED_FORM_SETTINGS)}"
                    )

    @property
    def emulator(self) -> str:
        """Name of the architecture, as in ``ARCHITECTURE_SETTINGS``."""
        return next(n for n, cls in ARCHITECTURE_SETTINGS.items() if type(self.architecture) is cls)

    @property
    def closed_form(self) -> bool:
        """Whether the emulator is solved for, rather than trained step by step."""
        return isinstance(self.architecture, ClosedFormArchitecture)

    def replace(self, **changes: Any) -> Recipe:
        """Return a copy with other values; ``architecture`` may be given as a mapping of changes."""
        if isinstance(changes.get("architecture"), Mapping):
            changed = dict(changes["architecture"])
            _refuse_unknown(changed, type(self.architecture), "architecture")
            changes["architecture"] = dataclasses.replace(self.architecture, **_tuples(changed))
        _refuse_unknown(changes, Recipe, "recipe")
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data; ``from_dict`` reads it back."""
        data = _lists(asdict(self))
        architecture = {k: v for k, v in _lists(data.pop("architecture")).items() if v is not None}
        if self.closed_form:
            data = {k: v for k, v in data.items() if k in CLOSED_FORM_SETTINGS}
        if self.quantity == "flux":
            # Left out, so that the trainings of older versions are recognised as the same.
            del data["quantity"]
        return {"emulator": self.emulator, **data, "architecture": architecture}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """Read the data of :meth:`to_dict` or of a TOML file.

        Raises:
            RecipeError: for an unknown emulator, an unknown setting, or a value of the wrong kind.
        """
        data = dict(data)
        name = data.pop("emulator", "payne")
        if name not in ARCHITECTURE_SETTINGS:
            raise RecipeError(f"emulator = {name!r} is not known; choose one of {', '.join(ARCHITECTURE_SETTINGS)}")
        settings = data.pop("architecture", {})
        if not isinstance(settings, Mapping):
            raise RecipeError(f"architecture = {settings!r} is not a table of settings")
        architecture = ARCHITECTURE_SETTINGS[name]
        _refuse_unknown(settings, architecture, "architecture")
        _refuse_unknown(data, cls, "recipe")
        try:
            return cls(architecture=architecture(**_tuples(settings)), **_tuples(data))
        except TypeError as error:
            raise RecipeError(f"a setting of the recipe has the wrong kind: {error}") from error

    @classmethod
    def from_toml(cls, path: str | Path) -> Recipe:
        """Read a TOML file: the settings, ``emulator = "payne"``, and an ``[architecture]`` table."""
        try:
            return cls.from_dict(tomllib.loads(Path(path).read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise RecipeError(f"no recipe at {path}{_ships(str(path))}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise RecipeError(f"{path} is not readable TOML: {error}") from error

    @classmethod
    def preset(cls, name: str) -> Recipe:
        """Return a recipe that ships with the package: see :func:`presets`."""
        if name not in presets():
            raise RecipeError(f"no recipe is called {name!r}{_ships(name)}")
        text = (resources.files("starpayne.training") / "recipes" / f"{name}.toml").read_text(encoding="utf-8")
        return cls.from_dict(tomllib.loads(text))


def presets() -> list[str]:
    """Return the names of the recipes that ship with the package."""
    folder = resources.files("starpayne.training") / "recipes"
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml"))


def _ships(name: str) -> str:
    return f"{did_you_mean(name, presets()) or ';'} there are {', '.join(presets())}"


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def _lists(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def _refuse_unknown(values: Mapping[str, Any], cls: type, what: str) -> None:
    known = [f.name for f in dataclasses.fields(cls)]
    for name in values:
        if name not in known:
            raise RecipeError(
                f"unknown {what} setting {name!r}{did_you_mean(name, known)} (settings: {', '.join(known)})"
            )
