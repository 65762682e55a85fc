"""What the tests of the study share."""

from __future__ import annotations

from typing import Any

import pytest
from tiny import PLAN


@pytest.fixture
def plan() -> dict[str, Any]:
    """The tiny study, to change."""
    return {**PLAN, "emulators": dict(PLAN["emulators"])}
