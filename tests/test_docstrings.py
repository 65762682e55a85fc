"""The examples in docstrings run."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest


@pytest.mark.parametrize("module", ["labels", "training.recipe"])
def test_the_examples_run(module: str) -> None:
    result = doctest.testmod(import_module(f"starpayne.{module}"))
    assert result.attempted > 0
    assert result.failed == 0
