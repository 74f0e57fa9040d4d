"""Memory that several processes of one machine see, in which they add up numbers.

A message to another process of the machine goes through the kernel, and takes several times as long
as to read what is there already.
"""

from __future__ import annotations

import mmap
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_PAGE = 4096
_N_SIGN = 16
_AT_ONCE = 2**18
"""How many numbers are added up at a time: as many of each process as a processor's cache has
room for."""


class CommonMemory:
    """Adds up numbers of several processes, each of which has room for its own.

    Args:
        rank: Which one this process is, from 0.
        size: How many there are.
        tell: Tells all of them something, and returns what each has told, in their order. Nobody
            comes back from it before all have come to it.

    Example:
        >>> alone = CommonMemory(0, 1, lambda value: [value])
        >>> alone.open(8)
        True
    """

    def __init__(self, rank: int, size: int, tell: Callable[[Any], list[Any]]) -> None:
        self._rank, self._size, self._tell = rank, size, tell
        self._rooms: list[Tensor] = []
        self._is_possible = True

    def open(self, n_bytes: int) -> bool:
        """Have room for so many bytes of each. All call it with the same number.

        Returns:
            Whether there is: not if they are on several machines, or the system has no such memory.
        """
        room = -(-n_bytes // _PAGE) * _PAGE
        if self._is_possible and (not self._rooms or len(self._rooms[0]) < room):
            import torch

            self._rooms = []
            made = self.new(room * self._size)
            self._rooms = [] if made is None else list(torch.split(made, room))
        return self._is_possible

    def new(self, n_bytes: int) -> Tensor | None:
        """More of it, which all see: (n_bytes,), zeros. All call it with the same number.

        Returns:
            None if there is none, see `open`.
        """
        import torch

        made = self._made(n_bytes) if self._is_possible else None
        self._is_possible = self._is_possible and all(self._tell(made is not None))
        if made is None or not self._is_possible:
            return None
        return torch.frombuffer(made, dtype=torch.uint8)

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Put the sums over all processes into tensors of one type, for which there is room.

        They are added in the order of the processes, so that all have the same sums to the bit. All
        must have told each other something since the last time, of which some may still be reading.

        Each process adds up a part of the numbers. So it puts down what the others add up, reads
        what they have of its own part, and puts down the sums of that, where nobody reads yet.
        """
        flat = [tensor.reshape(-1) for tensor in tensors]  # a copy if it is laid out otherwise
        n = sum(len(each) for each in flat)
        rooms = [room[: n * flat[0].element_size()].view(flat[0].dtype) for room in self._rooms]
        share = -(-n // self._size)
        parts = [slice(rank * share, (rank + 1) * share) for rank in range(self._size)]
        mine = rooms[self._rank]
        for rank in self._others():
            for here, place in _pieces(flat, parts[rank]):
                mine[place].copy_(here)
        self._tell(None)
        for here, place in _pieces(flat, parts[self._rank]):
            of_all = [room[place] for room in rooms]
            of_all[self._rank] = here
            add_up(of_all, mine[place])
            here.copy_(mine[place])
        self._tell(None)
        for rank in self._others():
            for here, place in _pieces(flat, parts[rank]):
                here.copy_(rooms[rank][place])
        for tensor, each in zip(tensors, flat, strict=True):
            if each.data_ptr() != tensor.data_ptr():
                tensor.copy_(each.view(tensor.shape))

    def _others(self) -> Iterator[int]:
        """The numbers of the other processes."""
        return (rank for rank in range(self._size) if rank != self._rank)

    def close(self) -> None:
        """Let go of it."""
        self._rooms = []

    def _made(self, n_bytes: int) -> mmap.mmap | None:
        """The memory, which goes with the last process that has it; None if there is none."""
        file = None
        sign = secrets.token_bytes(_N_SIGN)
        if self._rank == 0:
            with suppress(AttributeError, OSError):  # Linux has it
                file = os.memfd_create("finetune_lm")
                os.ftruncate(file, n_bytes)
                os.pwrite(file, sign, 0)
        try:
            path, sign = self._tell((f"/proc/{os.getpid()}/fd/{file}", sign))[0]
            if self._rank:
                with suppress(OSError):
                    file = os.open(path, os.O_RDWR)
            found = None
            with suppress(OSError, ValueError):
                # On another machine the same path may be anything.
                if file is not None and os.pread(file, _N_SIGN, 0) == sign:
                    found = mmap.mmap(file, n_bytes)
            self._tell(None)  # all have opened it
            return found
        finally:
            if file is not None:
                os.close(file)


def _pieces(flat: Sequence[Tensor], part: slice) -> Iterator[tuple[Tensor, slice]]:
    """What there is of a part of numbers that several tensors of one dimension have, end to end.

    Yields:
        A piece of a tensor, small enough for a processor's cache, and its place among the numbers.
    """
    begin = 0
    for tensor in flat:
        end = begin + len(tensor)
        for first in range(max(begin, part.start), min(end, part.stop), _AT_ONCE):
            place = slice(first, min(first + _AT_ONCE, end, part.stop))
            yield tensor[place.start - begin : place.stop - begin], place
        begin = end


def add_up(summands: Sequence[Tensor], total: Tensor) -> None:
    """Put sums into a tensor, which may be one of the summands, in the order of these."""
    import torch

    *before, last = summands
    if not before:
        total.copy_(last)
        return
    found = before[0]
    for each in before[1:]:
        found = found + each
    torch.add(found, last, out=total)
