"""Large arrays whose memory is used again: never while anybody can see it."""

from __future__ import annotations

import gc
import pickle
import threading

import numpy as np
import pytest

from keypatch.formats.store.recycled import LARGE_BYTES, Recycler

LARGE = (LARGE_BYTES // 4,)
FLOAT = np.dtype(np.float32)


def address(array):
    return array.__array_interface__["data"][0]


def test_memory_comes_back_when_the_last_view_is_gone():
    memory = Recycler()
    first = memory.empty(LARGE, FLOAT)
    first[:] = 1
    where, view = address(first), first[10:20].reshape(2, 5)[::-1]
    del first
    gc.collect()
    other = memory.empty(LARGE, FLOAT)
    other[:] = 2
    assert address(other) != where
    assert (view == 1).all()
    del view
    gc.collect()
    assert address(memory.empty(LARGE, FLOAT)) == where


@pytest.mark.parametrize(
    "hold", [memoryview, lambda array: np.asarray(array).ravel(), lambda array: array.T, np.atleast_3d]
)
def test_whatever_refers_to_an_array_holds_its_memory(hold):
    memory = Recycler()
    held = hold(memory.empty(LARGE, FLOAT))
    np.asarray(held)[...] = 3
    for value in range(4):
        memory.empty(LARGE, FLOAT)[:] = value
    assert (np.asarray(held) == 3).all()


def test_arrays_are_like_those_of_numpy_empty():
    memory = Recycler()
    for shape, dtype in ((LARGE, FLOAT), ((0, 3), FLOAT), ((2, LARGE_BYTES // 4, 2), np.dtype(np.int16)), ((), FLOAT)):
        array = memory.empty(shape, dtype)
        assert (type(array), array.shape, array.dtype) == (np.ndarray, shape, dtype)
        assert array.flags.c_contiguous
        assert array.flags.writeable
    array[...] = 5
    assert (pickle.loads(pickle.dumps(array)) == 5).all()


def test_few_blocks_wait_and_only_of_the_size_that_is_asked_for():
    memory = Recycler(keep=2)
    arrays = [memory.empty(LARGE, FLOAT) for _ in range(5)]
    arrays.clear()
    gc.collect()
    assert len(memory._free) == 2
    memory.empty((LARGE_BYTES // 4 + 1,), FLOAT)
    gc.collect()
    assert [block.nbytes for block in memory._free] == [LARGE_BYTES + 4]


def test_threads_never_share_an_array():
    memory, wrong = Recycler(), []

    def work(value):
        for _ in range(20):
            array = memory.empty((LARGE_BYTES,), np.dtype(np.uint8))
            array[:: 2**16] = value
            if not (array[:: 2**16] == value).all():
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(value,)) for value in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
