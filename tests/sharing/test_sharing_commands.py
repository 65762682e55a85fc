"""``push`` and ``pull``, and ``hf://OWNER/NAME`` wherever a command asks for a model."""

from __future__ import annotations

import json
import re
from pathlib import Path

import hub_standin
import pytest
import toy
from hub_standin import WRITER
from shell import refuse

from starpayne import bundle
from starpayne.bundle import Model
from starpayne.errors import SharingError

REPO = "ada/sun-emulator"


def test_the_commands_on_the_card_run(payne_model: Model, tmp_path: Path) -> None:
    folder = bundle.save(payne_model, tmp_path / "payne.model")
    script = """
        import json, re, shlex, sys
        from pathlib import Path
        from shell import run

        folder, here = sys.argv[1], Path(sys.argv[2])
        said = {"push": run("push", folder, "ada/sun-emulator", "--licence", "MIT", "--author", "Ada")}
        out = here / "back.model"
        said["pull"] = run("pull", "ada/sun-emulator", "--out", out, "--json", here / "pull.json")
        lines = re.search("```sh\\n(.*?)```", (out / "README.md").read_text(), re.S)[1].splitlines()
        predict = shlex.split(next(line for line in lines if " predict " in line))[1:]
        said["predict"] = run(*predict[:-1], here / "star.csv")
        said["info"] = run("info", "hf://ada/sun-emulator")
        said["verify"] = run("verify", "hf://ada/sun-emulator")
        said["offline"] = run("pull", "ada/sun-emulator", "--offline")
        print(json.dumps(said))
    """
    with hub_standin.serving() as hub:
        environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": WRITER}
        output = toy.python(script, folder, tmp_path, environment=environment)
    said = json.loads(output.splitlines()[-1])
    commit = hub.repositories[REPO].refs["main"]
    assert f"{REPO}: commit {commit}, digest {bundle.digest(payne_model.emulator)}\n" in said["push"]
    assert f"to get exactly this model: starpayne pull {REPO}@{commit} --out MODEL\n" in said["push"]
    assert "no licence is stated" not in said["push"]
    assert f"{tmp_path / 'back.model'}: verified\n" in said["pull"]
    assert json.loads((tmp_path / "pull.json").read_text())["commit"] == commit
    assert "40 wavelengths" in said["predict"]
    assert (tmp_path / "star.csv").exists()
    pin = f"{REPO} is now {commit}; write hf://{REPO}@{commit} to get the same model always"
    assert pin in said["pull"] + said["predict"]
    assert "payne, " in said["info"]
    assert "stored spectrum reproduced" in said["verify"]
    assert f"in the cache: use it as --model hf://{REPO}@{commit}" in said["offline"]
    assert WRITER not in output


COMMANDS = (
    "predict --model MODEL --out s.csv --teff 5777",
    "fit s.txt --model MODEL --resolution 47000 --out s.ecsv",
    "mask learn --spectrum s.txt --model MODEL --resolution 47000 --labels teff=5772 --out s.json",
    "evaluate MODEL GRID",
    "finetune MODEL GRID --out new.model",
    "info MODEL",
    "verify MODEL",
    "merge update --base MODEL --out new.model",
)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.split()[0])
def test_every_command_takes_a_model_from_a_hub(command: str, monkeypatch, capsys, tmp_path) -> None:
    def pull(address: str) -> None:
        raise SharingError(f"asked for {address}")

    monkeypatch.setattr("starpayne.sharing.pull", pull)
    monkeypatch.chdir(tmp_path)
    Path("update").mkdir()
    Path("update", bundle.ADAPTER).write_text("{}")
    words = command.replace("MODEL", f"hf://{REPO}@v1").split()
    assert f"asked for {REPO}@v1" in refuse(monkeypatch, capsys, *words)


def test_an_update_needs_its_base_beside_it(monkeypatch, capsys, tmp_path: Path) -> None:
    words = ["finetune", f"hf://{REPO}", "GRID", "--moves", "lora", "--out", tmp_path / "u"]
    assert "an update stands beside its base: make a folder of it first" in refuse(monkeypatch, capsys, *words)


def test_a_sentence_and_status_2(monkeypatch, capsys, tmp_path: Path) -> None:
    assert "'../x' is no name of a repository" in refuse(monkeypatch, capsys, "pull", "../x")
    assert "'hf' is no name" in refuse(
        monkeypatch, capsys, "predict", "--model", "hf://hf", "--out", tmp_path / "s.csv"
    )
    assert re.search(r"no model folder at \S+none", refuse(monkeypatch, capsys, "push", tmp_path / "none", REPO))
