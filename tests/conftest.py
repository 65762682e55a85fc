"""What all tests share: run-time type checks, a cache of compiled functions, the data folder, a toy grid and models."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import install_import_hook

# Every test run checks array shapes and types of the whole package; users do not pay for it.
install_import_hook("starpayne", "typechecking.check")

# Threads of the linear algebra spin while they wait, which takes time from the other processes of ``pytest -n``. It is
# read where NumPy is loaded: by those processes, and by all that tests start.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Many tests compile the same function again (a resumed training, a subprocess, the other processes of ``pytest -n``,
# which inherit the environment of the first): they find it here, this run only.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="starpayne-compiled-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

# Whatever a test does, it meets neither the real hub nor the user's cache or token.
_HUB = tempfile.mkdtemp(prefix="starpayne-hub-")
atexit.register(shutil.rmtree, _HUB, ignore_errors=True)
for _name in [name for name in os.environ if name.startswith(("HF_", "HUGGING"))]:
    del os.environ[_name]
os.environ |= {"HF_HOME": _HUB, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_DISABLE_XET": "1"}
os.environ |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"


def _flags() -> str:
    """Return flags with which XLA compiles in half the time: tiny models compile for longer than they run.

    Nothing is optimised, kernels are written in the older way, which sets up less for each function, and those of one
    function are compiled as one piece. An XLA that does not know a flag ends its process, so another one is asked first
    whether it does.
    """
    plain = "--xla_backend_optimization_level=0"
    piece = f"{plain} --xla_llvm_disable_expensive_passes=true --xla_cpu_parallel_codegen_split_count=1"
    for flags in (f"{piece} --xla_cpu_use_fusion_emitters=false", piece):
        environment = {**os.environ, "XLA_FLAGS": flags}
        asked = subprocess.run(
            [sys.executable, "-c", "import jax; jax.devices()"], env=environment, capture_output=True
        )
        if asked.returncode == 0:
            return flags
    return plain


if "XLA_FLAGS" not in os.environ:
    os.environ["XLA_FLAGS"] = _flags()

# They import starpayne, so they must come after the hook.
import toy  # noqa: E402

from starpayne.importers import import_folder  # noqa: E402
from starpayne.training import FineTuning, few_spectra, finetune  # noqa: E402


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the shared data, so that no test can forget to say so; put files with a slow test first.

    With ``pytest -n`` a process takes one file after the other: a long one that is begun last leaves the others idle.
    """
    for item in items:
        if "data_folder" in getattr(item, "fixturenames", ()):
            item.add_marker("data")
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """Keep what the imports have made out of the garbage collections, each of which would look at all of it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of shared grids and observed spectra that $STARPAYNE_DATA names."""
    named = os.environ.get("STARPAYNE_DATA", "")
    if not named:
        pytest.skip("STARPAYNE_DATA is not set: it names the folder with korg_flux, mgb_reference, sun_atlas")
    if not Path(named).is_dir():
        pytest.skip(f"STARPAYNE_DATA = {named} is not a folder")
    return Path(named)


@pytest.fixture(scope="session")
def korg_grid(data_folder: Path, tmp_path_factory: pytest.TempPathFactory):
    """The shared grid of real spectra that is quick to train on."""
    return import_folder(data_folder / "korg_flux", tmp_path_factory.mktemp("grid") / "korg.zarr")


@pytest.fixture(scope="session")
def finished_grid(tmp_path_factory: pytest.TempPathFactory):
    """A complete toy grid on disk; tests must not change it (see ``grid_copy``)."""
    return toy.write_grid(tmp_path_factory.mktemp("grid") / "toy.zarr")


@pytest.fixture(scope="session")
def deeper_grid(tmp_path_factory: pytest.TempPathFactory):
    """Another complete grid: the toy's labels and wavelengths, and deeper lines."""
    return toy.write_deeper_grid(tmp_path_factory.mktemp("grid") / "deeper.zarr")


@pytest.fixture
def grid_copy(finished_grid, tmp_path: Path) -> Path:
    """The path of a toy grid of one's own, to damage."""
    return Path(shutil.copytree(finished_grid.path, tmp_path / "toy.zarr"))


@pytest.fixture(scope="session")
def payne_model(tmp_path_factory: pytest.TempPathFactory):
    """A small Payne trained for a moment on the toy grid."""
    return toy.train_model("payne", tmp_path_factory.mktemp("models") / "payne.model")


@pytest.fixture(scope="session")
def transformer_model(tmp_path_factory: pytest.TempPathFactory):
    """A small TransformerPayne trained for a moment on the toy grid."""
    return toy.train_model("transformer", tmp_path_factory.mktemp("models") / "transformer.model")


@pytest.fixture(scope="session")
def convolutional_model(tmp_path_factory: pytest.TempPathFactory):
    """A small convolutional emulator trained for a moment on the toy grid."""
    return toy.train_model("convolutional", tmp_path_factory.mktemp("models") / "convolutional.model")


@pytest.fixture(scope="session")
def additive_model(tmp_path_factory: pytest.TempPathFactory):
    """A small additive Payne trained for a moment on the toy grid."""
    return toy.train_model("additive", tmp_path_factory.mktemp("models") / "additive.model")


@pytest.fixture(scope="session")
def polynomial_model(tmp_path_factory: pytest.TempPathFactory):
    """A quadratic polynomial fitted to the toy grid."""
    return toy.train_model("polynomial", tmp_path_factory.mktemp("models") / "polynomial.model")


@pytest.fixture(scope="session")
def gaussian_process_model(tmp_path_factory: pytest.TempPathFactory):
    """A Gaussian process on the toy grid."""
    return toy.train_model("gaussian_process", tmp_path_factory.mktemp("models") / "gaussian_process.model")


@pytest.fixture(scope="session")
def corrected_model(payne_model, deeper_grid):
    """The small Payne with a correction to deeper lines, from twenty spectra."""
    data = few_spectra(payne_model, deeper_grid, 20, name="deeper.zarr")
    return finetune(payne_model, data, FineTuning(moves="correction"), name="payne.model").model


@pytest.fixture(params=["payne", "transformer", "convolutional", "additive", "polynomial", "gaussian_process"])
def model(request: pytest.FixtureRequest):
    """Each of the trained toy models in turn."""
    return request.getfixturevalue(f"{request.param}_model")


@pytest.fixture
def write_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write a folder as ``starpayne import`` takes it; arguments replace or, if None, leave out a file or a fact."""
    return lambda **changes: toy.write_folder(tmp_path / "source", **changes)


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(20261123)
