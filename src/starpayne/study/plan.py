"""The plan of a study: which emulators, training-set sizes and seeds; read from a TOML file."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from starpayne.errors import RecipeError, StudyError, did_you_mean
from starpayne.training import Recipe, presets

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*")
"""Names of emulators become names of folders."""

KEYS = ("name", "description", "n_train", "seeds", "recovery", "emulators")


@dataclass(frozen=True)
class RecoverySettings:
    """How labels are recovered from the test spectra.

    Args:
        n_spectra: test spectra that are fitted, evenly spaced; 0 for none.
        resolution: λ/FWHM.
        snr: signal to noise per pixel of a third of the FWHM.
        n_starts: results of the coarse search that a fit may follow, where the first does not lead to the noise.
        seed: of the noise, which is the same for all emulators.
    """

    n_spectra: int = 100
    resolution: float = 40_000.0
    snr: float = 100.0
    n_starts: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("n_spectra", 0, 10**6), ("resolution", 100, 10**7), ("snr", 1e-3, 1e9), ("n_starts", 1, 100),
            ("seed", 0, 2**31 - 1),
        ):  # fmt: skip
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
                raise StudyError(f"recovery: {name} = {value!r} is not a number from {low:g} to {high:g}")


@dataclass(frozen=True)
class Contender:
    """One emulator of a study: its name, its recipe, and the sizes it takes part in."""

    name: str
    recipe: Recipe
    n_train: tuple[int, ...]


@dataclass(frozen=True)
class Job:
    """One training of a study."""

    emulator: str
    recipe: Recipe
    n_train: int

    @property
    def seed(self) -> int:
        return self.recipe.seed

    @property
    def name(self) -> str:
        """What the job is called, on disk too."""
        return f"{self.emulator}-N{self.n_train}-s{self.seed}"


@dataclass(frozen=True)
class Study:
    """Which emulators are trained on how many spectra of one grid, and how they are compared.

    Args:
        name: of the study.
        contenders: the emulators.
        seeds: each training is repeated with each; an emulator in closed form takes the first one.
        recovery: how labels are recovered.
        description: for the report.

    Example:
        >>> study = Study.read("quick")
        >>> study.jobs()[0].n_train
        500
    """

    name: str
    contenders: tuple[Contender, ...]
    seeds: tuple[int, ...] = (0,)
    recovery: RecoverySettings = field(default_factory=RecoverySettings)
    description: str = ""

    def jobs(self) -> list[Job]:
        """Return the trainings, those on few spectra first: a study that is stopped early is a smaller study."""
        found = []
        for n in sorted({n for c in self.contenders for n in c.n_train}):
            for seed in self.seeds:
                for c in self.contenders:
                    if n in c.n_train and (seed == self.seeds[0] or not c.recipe.closed_form):
                        found.append(Job(c.name, c.recipe.replace(seed=seed), n))
        return found

    @classmethod
    def read(cls, source: str | Path) -> Study:
        """Read a study that ships, by its name (see :func:`studies`), or a TOML file.

        Raises:
            StudyError: no such study, unreadable TOML, an unknown key or recipe, or a value out of its range.
        """
        path = Path(source)
        if str(source) in studies():
            text, folder = (_folder() / f"{source}.toml").read_text(encoding="utf-8"), Path()
        elif path.is_file():
            text, folder = path.read_bytes(), path.parent
        else:
            raise StudyError(f"no study at {source}; give a TOML file, or one that ships: {', '.join(studies())}")
        try:
            data = tomllib.loads(text if isinstance(text, str) else text.decode())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise StudyError(f"{source} is not readable TOML: {error}") from error
        return cls.from_dict(data, folder, default_name=path.stem)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], folder: Path = Path(), default_name: str = "study") -> Study:
        """Read the data of a study file; recipes that are files are found relative to ``folder``."""
        _refuse_unknown(data, KEYS, "study")
        sizes = _whole_numbers(data.get("n_train"), "n_train", least=2)
        tables = data.get("emulators")
        if not isinstance(tables, Mapping) or not tables:
            raise StudyError('a study needs at least one [emulators.NAME] table with recipe = "…"')
        contenders = tuple(_contender(name, table, sizes, folder) for name, table in tables.items())
        recovery = data.get("recovery", {})
        if not isinstance(recovery, Mapping):
            raise StudyError(f"recovery = {recovery!r} is not a table of settings")
        _refuse_unknown(recovery, tuple(RecoverySettings.__dataclass_fields__), "recovery")
        return cls(
            name=str(data.get("name", default_name)),
            contenders=contenders,
            seeds=_whole_numbers(data.get("seeds", [0]), "seeds", least=0),
            recovery=RecoverySettings(**recovery),
            description=str(data.get("description", "")),
        )


def studies() -> list[str]:
    """Return the names of the studies that ship with the package."""
    return sorted(f.name.removesuffix(".toml") for f in _folder().iterdir() if f.name.endswith(".toml"))


def _folder() -> Any:
    return resources.files("starpayne.study") / "studies"


def _contender(name: str, table: Any, sizes: tuple[int, ...], folder: Path) -> Contender:
    if not NAME.fullmatch(name):
        raise StudyError(f"the emulator name {name!r} may hold letters, digits, and _ + - only")
    if not isinstance(table, Mapping) or not isinstance(table.get("recipe"), str):
        given = f" (it has {', '.join(table)})" if isinstance(table, Mapping) and table else ""
        ships = ", ".join(presets())
        raise StudyError(f"emulators.{name} needs a recipe{given}: the name of one that ships ({ships}), or a file")
    changes = dict(table)
    source = changes.pop("recipe")
    own_sizes = changes.pop("n_train", None)
    if "seed" in changes:
        raise StudyError(f"emulators.{name}: the seeds of a study are in its list `seeds`")
    try:
        recipe = Recipe.preset(source) if source in presets() else Recipe.from_toml(folder / source)
        recipe = recipe.replace(**changes)
    except RecipeError as error:
        raise StudyError(f"emulators.{name}: {error}") from error
    except TypeError as error:
        raise StudyError(f"emulators.{name}: a setting has the wrong kind: {error}") from error
    return Contender(name, recipe, _whole_numbers(own_sizes, f"emulators.{name}.n_train", 2) if own_sizes else sizes)


def _whole_numbers(value: Any, name: str, least: int) -> tuple[int, ...]:
    if value is None:
        raise StudyError(f"the study needs {name}, a list of whole numbers such as [500, 1000]")
    if not isinstance(value, list) or not value:
        raise StudyError(f"{name} = {value!r} must be a list of whole numbers, such as [500, 1000]")
    for number in value:
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise StudyError(f"{name} holds {number!r}: whole numbers of at least {least} are needed")
    return tuple(dict.fromkeys(value))


def _refuse_unknown(data: Mapping[str, Any], known: tuple[str, ...], what: str) -> None:
    for key in data:
        if key not in known:
            raise StudyError(f"unknown {what} key {key!r}{did_you_mean(key, known)} (keys: {', '.join(known)})")
