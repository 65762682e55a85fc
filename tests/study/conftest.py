"""What the tests of the study share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tiny import PLAN, measure_for_a_moment


@pytest.fixture(autouse=True, scope="session")
def short_measurements() -> Iterator[None]:
    """Measure speeds for a moment only."""
    with pytest.MonkeyPatch.context() as patch:
        measure_for_a_moment(patch.setattr)
        yield


@pytest.fixture
def plan() -> dict[str, Any]:
    """The tiny study, to change."""
    return {**PLAN, "emulators": dict(PLAN["emulators"])}
