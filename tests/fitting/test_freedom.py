"""Fixed labels: what they leave of the table, its constraints and the unit cube."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_star import SPACE

from starpayne.errors import LabelError
from starpayne.fitting.freedom import FreeLabels


@given(st.sets(st.sampled_from(SPACE.names)), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_the_cube_of_the_free_labels_fills_only_the_allowed_region(names: set[str], seed: int) -> None:
    centre = dict(zip(SPACE.names, SPACE.from_cube(np.full(len(SPACE), 0.5)), strict=True))
    fixed = {name: centre[name] for name in names}
    free = FreeLabels.of(SPACE, fixed)
    assert len(free) == len(SPACE) - len(fixed)
    vectors = free.from_cube(np.random.default_rng(seed).random((50, len(free))))
    # A label that depends on a later one may leave no room for it: that corner of the cube is the constraint's.
    assert SPACE.inside(vectors).mean() > 0.7
    for name, value in fixed.items():
        assert np.all(vectors[:, SPACE.names.index(name)] == value)


def test_a_fixed_label_narrows_its_partner() -> None:
    free = FreeLabels.of(SPACE, {"mg_fe": -0.3})
    assert free.free is not None
    assert free.free["alpha_fe"].high == pytest.approx(0.1)
    assert free.free.constraints == ()


@pytest.mark.parametrize(
    ("fixed", "text"),
    [
        ({"tef": 5000.0}, "fixed labels: unknown label 'tef'; did you mean 'teff'"),
        ({"teff": 9000.0}, "fixed label teff = 9000 K is outside the range 4500 to 7000"),
        ({"alpha_fe": 0.0, "mg_fe": 0.6}, "the fixed labels break -0.4 <= mg_fe - alpha_fe <= 0.4"),
        ({"mg_fe": np.nan}, "fixed label mg_fe = nan dex is outside"),
    ],
)
def test_fixed_labels_that_cannot_be(fixed: dict[str, float], text: str) -> None:
    with pytest.raises(LabelError, match=text):
        FreeLabels.of(SPACE, fixed)
