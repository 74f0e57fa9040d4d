"""Memory that several processes of one machine see, in which they add up numbers.

A message to another process of the machine goes through the kernel, and takes several times as long
as to read what is there already.
"""

from __future__ import annotations

import mmap
import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_PAGE = 4096
_N_SIGN = 16


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
            self._rooms = []
            made = self._made(room * self._size)
            self._is_possible = all(self._tell(made is not None))
            if self._is_possible and made is not None:
                import torch

                self._rooms = list(torch.split(torch.frombuffer(made, dtype=torch.uint8), room))
        return self._is_possible

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Put the sums over all processes into tensors of one type, for which there is room.

        They are added in the order of the processes, so that all have the same sums to the bit. All
        must have told each other something since the last time, of which some may still be reading.
        """
        import torch

        n = sum(tensor.numel() for tensor in tensors)
        numbers = [
            room[: n * tensors[0].element_size()].view(tensors[0].dtype) for room in self._rooms
        ]
        torch._foreach_copy_(_parts(numbers[self._rank], tensors), list(tensors))
        self._tell(None)
        # Each adds up a part of them, in the room of the first.
        share = -(-n // self._size)
        first, *others = (each[self._rank * share : (self._rank + 1) * share] for each in numbers)
        for other in others:
            first.add_(other)
        self._tell(None)
        torch._foreach_copy_(list(tensors), _parts(numbers[0], tensors))

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


def _parts(numbers: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Numbers one after another, in the shapes of tensors."""
    import torch

    parts = torch.split(numbers, [tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
