"""What the tests of the study share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tiny import PLAN

from starpayne.study import cost


@pytest.fixture(autouse=True, scope="session")
def short_measurements() -> Iterator[None]:
    """Measure speeds for a moment only: of tiny models they mean nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "SIDE", 256)
        patch.setattr(cost, "SECONDS", 0.05)
        yield


@pytest.fixture
def plan() -> dict[str, Any]:
    """The tiny study, to change."""
    return {**PLAN, "emulators": dict(PLAN["emulators"])}
