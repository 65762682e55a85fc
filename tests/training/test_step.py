"""A batch in pieces: the same steps, in equal parts."""

from __future__ import annotations

import numpy as np
import pytest
import toy

from starpayne.emulators import transformer
from starpayne.training import loop
from starpayne.training.build import build
from starpayne.training.step import pieces_of


def test_a_batch_in_pieces_takes_the_steps_of_the_whole_batch(monkeypatch) -> None:
    data, recipe = toy.data(), toy.recipe("transformer")

    def losses() -> list[float]:
        run = loop.Run.whole(data, recipe, build(data, recipe))
        state, values = run.initial, []
        for step in range(4):
            state, value = run.advance(state, step, step + 1)
            values.append(value)
        return values

    whole = losses()
    row = recipe.architecture.width * recipe.batch_wavelengths
    monkeypatch.setattr(transformer, "CPU_PIECE", 2 * row)
    monkeypatch.setattr(transformer, "GPU_PIECE", 2 * row)
    np.testing.assert_allclose(losses(), whole, rtol=1e-4)


@pytest.mark.parametrize(
    ("batch", "most", "pieces"),
    [(32, None, 1), (32, 32, 1), (32, 33, 1), (32, 16, 2), (32, 15, 4), (30, 8, 5), (31, 16, 1), (7, 1, 7), (1, 1, 1)],
)
def test_a_batch_is_cut_into_equal_pieces_and_a_prime_one_is_left_whole(batch, most, pieces) -> None:
    assert pieces_of(batch, most) == pieces
