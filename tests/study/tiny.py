"""A study of tiny emulators on the toy grid."""

from collections.abc import Callable
from typing import Any

from starpayne.study import cost

PLAN: dict[str, Any] = {
    "name": "tiny",
    "n_train": [20, 30],
    "seeds": [0, 1],
    "recovery": {"n_spectra": 4, "resolution": 9000, "snr": 100},
    "emulators": {
        "line": {"recipe": "polynomial2", "architecture": {"degree": 1}},
        "payne": {
            "recipe": "payne", "steps": 60, "validate_every": 30, "batch_spectra": 16,
            "architecture": {"hidden": [8, 8]},
        },
        "cubic": {"recipe": "polynomial2", "architecture": {"degree": 3}, "n_train": [30]},
    },
}  # fmt: skip
"""The cubic has more terms (56) than there are spectra: it must fail, and only it."""


def measure_for_a_moment(change: Callable[[Any, str, Any], None]) -> None:
    """Measure speeds for a moment only (``change`` sets an attribute): of tiny models they mean nothing."""
    change(cost, "SIDE", 256)
    change(cost, "SECONDS", 0.05)
