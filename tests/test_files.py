"""Files appear whole or not at all, and JSON is strict."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from starpayne import files
from starpayne.errors import GridError, OutputExistsError
from starpayne.files import read_json, remove, remove_output, replace_folder, write_bytes, write_json


def test_json_comes_back(tmp_path: Path) -> None:
    data = {"name": "Å", "values": [1, 2.5, None], "deep": {"a": True}, "exact": 0.1 + 0.2}
    write_json(tmp_path / "a.json", data)
    assert read_json(tmp_path / "a.json", GridError) == data
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_nan_is_neither_written_nor_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert not any(tmp_path.iterdir())
    (tmp_path / "a.json").write_text('{"a": Infinity}')
    with pytest.raises(GridError, match=r"a\.json cannot be read as JSON: Infinity is not a number that JSON knows"):
        read_json(tmp_path / "a.json", GridError)


def test_a_file_too_large_to_be_one_of_ours_is_not_read(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "a.json").write_text("{}")
    monkeypatch.setattr(files, "MAX_JSON", 1)
    with pytest.raises(GridError, match=r"a\.json is larger than 0 MB, which no such file needs"):
        read_json(tmp_path / "a.json", GridError)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch) -> None:
    write_bytes(tmp_path / "a", b"old")

    def full_disk(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match=r"no space left"):
        write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"


def test_a_folder_is_replaced_whole_or_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "folder"
    replace_folder(path, lambda draft: (draft / "one").write_text("1"))

    def fails(draft: Path) -> None:
        (draft / "two").write_text("2")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_folder(path, fails)
    assert [p.name for p in path.iterdir()] == ["one"]
    replace_folder(path, lambda draft: (draft / "three").write_text("3"))
    assert [p.name for p in path.iterdir()] == ["three"]
    assert [p.name for p in path.parent.iterdir()] == ["folder"]


def test_removing_a_link_leaves_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    remove(tmp_path / "link")
    remove(tmp_path / "never there")
    assert [p.name for p in tmp_path.iterdir()] == ["precious"]


def test_overwriting_deletes_only_an_earlier_output(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("years of work")
    with pytest.raises(
        OutputExistsError, match=r"holds neither zarr.json nor emulator.json, so it is no earlier output"
    ):
        remove_output(home, "zarr.json", "emulator.json")
    assert (home / "thesis.tex").exists()
    (home / "zarr.json").write_text("{}")
    remove_output(home, "zarr.json", "emulator.json")
    assert not home.exists()
