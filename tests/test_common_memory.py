"""What processes of one machine add up in common memory is what each would by itself."""

from __future__ import annotations

import os
import threading

import pytest
import torch

from finetune_lm.common_memory import CommonMemory


def together(size, do, *, is_elsewhere=False):
    """What a function returns in each of several threads, which stand for processes.

    Args:
        size: How many there are.
        do: Called with the number of each and its memory.
        is_elsewhere: Whether all but the first are on another machine.
    """
    barrier, told, found = threading.Barrier(size, timeout=300), [None] * size, [None] * size

    def be(rank):
        def tell(value):
            if is_elsewhere and rank == 0 and isinstance(value, tuple):
                value = ("/proc/self/stat", value[1])
            told[rank] = value
            barrier.wait()
            all_told = list(told)
            barrier.wait()
            return all_told

        found[rank] = do(rank, CommonMemory(rank, size, tell))

    threads = [threading.Thread(target=be, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="the system has no such memory")
@pytest.mark.parametrize("size", [2, 3])
def test_sums_are_those_in_the_order_of_the_processes(size):
    kinds = [torch.float32, torch.float64, torch.bfloat16]

    def numbers(rank, kind):
        made = torch.Generator().manual_seed(rank)
        # One is laid out in another order, one is empty, and their number is no multiple of `size`.
        shapes = [(5, 1201), (1,), (0, 3), (7, 2)]
        tensors = [torch.randn(shape, generator=made).to(kind) for shape in shapes]
        return [*tensors[:3], tensors[3].T.contiguous().T]

    def do(rank, memory):
        sums = []
        for kind in [*kinds, *kinds]:  # also in memory that was used before
            tensors = numbers(rank, kind)
            assert memory.open(sum(t.numel() * t.element_size() for t in tensors))
            memory.add_up(tensors)
            sums.append(tensors)
            memory._tell(None)
        return sums

    for found in together(size, do):
        for kind, tensors in zip([*kinds, *kinds], found, strict=True):
            expected = numbers(0, kind)
            for rank in range(1, size):
                for total, each in zip(expected, numbers(rank, kind), strict=True):
                    total.add_(each)
            for total, tensor in zip(expected, tensors, strict=True):
                assert torch.equal(total, tensor)


def test_processes_of_several_machines_have_no_common_memory():
    assert together(2, lambda _, memory: memory.open(10), is_elsewhere=True) == [False, False]
    # None of them has to ask again.
    assert not together(2, lambda _, m: m.open(10) or m.open(20), is_elsewhere=True)[0]
