"""The demo: the whole chain, interrupted and continued. Tiny sizes; CI runs ``starpayne demo --quick`` as well."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import toy

from starpayne import demo
from starpayne.grid import Grid
from starpayne.training import Recipe

# Farm and training are each tested for Ctrl-C, and CI runs the quick demo.
pytestmark = [pytest.mark.synthesis, pytest.mark.thorough]


class Stages:
    """Progress bars that press Ctrl-C at a chosen place."""

    def __init__(self, stop: str = "") -> None:
        self.stop, self.seen = stop, []

    @contextmanager
    def __call__(self, title: str) -> Iterator:
        self.seen.append(title)

        def update(done: int, total: int, note: str = "") -> None:
            if title == self.stop and 0 < done < total:
                raise KeyboardInterrupt

        yield update


def test_the_demo_goes_on_after_ctrl_c_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "QUICK", demo.Size(16, 3, 3, payne_steps=100, transformer_steps=50))
    # The networks of the presets compile for longer than all the rest takes; CI's quick demo has them.
    preset = Recipe.preset
    monkeypatch.setattr(Recipe, "preset", lambda name: preset(name).replace(architecture=toy.SIZES[name]))
    with pytest.raises(KeyboardInterrupt):
        demo.run_demo(tmp_path, Stages("synthesis"), quick=True, workers=1)
    done = int((Grid.open(tmp_path / "grid.zarr").status == 1).sum())
    assert 0 < done < 16
    with pytest.raises(KeyboardInterrupt):
        demo.run_demo(tmp_path, Stages("training payne"), quick=True, workers=1)
    flux = Grid.open(tmp_path / "grid.zarr").flux()
    assert (tmp_path / "payne.model" / "checkpoint" / "state.json").exists()
    summary = demo.run_demo(tmp_path, Stages(), quick=True, workers=1)
    assert (Grid.open(tmp_path / "grid.zarr").flux() == flux).all()
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert set(summary["evaluation"]) == {"payne", "transformer"}
    assert {"value", "error", "raw_error", "truth"} == set(summary["fit"]["labels"]["teff"])
    assert summary["fit"]["labels"]["teff"]["truth"] == demo.STAR["teff"]
    assert (tmp_path / "report.html").read_text().count("data:image/png;base64,") == 6
