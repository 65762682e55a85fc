"""Steps fitted to given seconds."""

from __future__ import annotations

import pytest
import toy

from starpayne.training import speed


def test_steps_are_those_that_fit_into_the_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "steps_per_second", lambda data, recipe: 33.0)
    recipe = speed.fitted_to(60.0, toy.data(), toy.recipe("payne"))
    assert (recipe.steps, recipe.validate_every) == (1950, 150)
    assert speed.fitted_to(0.1, toy.data(), toy.recipe("payne")).steps == speed.ROUND


def test_a_wider_network_trains_more_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "SECONDS", 0.3)
    small, large = (
        speed.steps_per_second(toy.data(), toy.recipe("payne", architecture=toy.PayneArchitecture((width, width))))
        for width in (16, 512)
    )
    assert small > 2 * large > 0
