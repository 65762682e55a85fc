"""Arrays of several lanes are stacked where XLA takes them as they lie."""

from __future__ import annotations

import threading

import numpy as np

from starpayne.fitting.lanes import ALIGNED, together_at


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
