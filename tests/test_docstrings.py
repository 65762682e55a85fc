"""The examples in docstrings run, as a user would run them: without the tests' type checker."""

from __future__ import annotations

from pathlib import Path

import toy

import starpayne

ROOT = Path(starpayne.__file__).parent


def test_every_example_runs() -> None:
    modules = [
        ".".join(("starpayne", *file.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
        for file in sorted(ROOT.rglob("*.py"))
        if ">>> " in file.read_text(encoding="utf-8")
    ]
    output = toy.python(f"""
        import doctest, importlib

        for name in {modules}:
            print(name, *doctest.testmod(importlib.import_module(name)))
    """)
    results = [line.split() for line in output.splitlines()]
    assert [name for name, *_ in results] == modules, output
    assert {failed for _, failed, _ in results} == {"0"}, output
    assert all(int(attempted) > 0 for _, _, attempted in results)
    assert len(modules) >= 3
