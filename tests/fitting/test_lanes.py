"""Arrays of several lanes are stacked where XLA takes them as they lie."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from starpayne.bundle import Model
from starpayne.fitting.lanes import ALIGNED, CPU_SIZES, lanes, together_at


def test_stacked_arrays_lie_where_they_need_no_copy_and_in_the_same_place(random: np.random.Generator) -> None:
    for kind in (np.float32, np.int32):
        for shape in ((3,), (7, 5), ()):
            parts = [np.asarray(100 * random.normal(size=shape), kind) for _ in range(4)]
            found = together_at("a", parts)
            assert np.array_equal(found, np.stack(parts))
            assert found.dtype == kind
            assert found.ctypes.data % ALIGNED == 0
            assert np.shares_memory(found, together_at("a", parts[::-1]))
            assert np.array_equal(found, np.stack(parts[::-1]))


def test_neither_other_names_nor_other_threads_write_there() -> None:
    first = together_at("a", [np.zeros(8), np.zeros(8)])
    together_at("b", [np.ones(8), np.ones(8)])
    other = threading.Thread(target=together_at, args=("a", [np.ones(8), np.ones(8)]))
    other.start()
    other.join()
    assert not first.any()


@pytest.mark.parametrize(("waiting", "taken"), [(0, 1), (1, 1), (11, 1), (12, 16), (16, 16), (100, 16)])
def test_a_call_is_taken_whole_where_single_ones_would_be_no_cheaper(
    star_model: Model, waiting: int, taken: int
) -> None:
    assert CPU_SIZES == (1, 16)
    assert lanes(star_model.emulator.on(), 8, waiting) == taken
