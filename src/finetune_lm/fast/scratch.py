"""Memory for logits that is used again and again.

A step's logits take more memory than many a model. Fresh memory of that size comes from the system
page by page, each filled with zeros first, which takes as long as computing the logits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod

import torch
from torch import Tensor

# As many as are lent at a time: a model's logits and those of its baseline.
_MOST_KEPT = 2

_kept: list[Tensor] = []


@contextmanager
def borrowed(shape: tuple[int, ...], like: Tensor) -> Iterator[Tensor]:
    """A tensor with anything in it, for as long as the context lasts. Nothing of it may be kept.

    Args:
        shape: Its shape.
        like: A tensor of the same type on the same device.
    """
    n = prod(shape)
    memory = _take(n, like)
    try:
        yield memory[:n].view(shape)
    finally:
        if memory.device.type == "cpu":
            _kept.append(memory)
            _kept.sort(key=len, reverse=True)
            del _kept[_MOST_KEPT:]


def release() -> None:
    """Give the memory that is not lent back to the system."""
    _kept.clear()


def _take(n: int, like: Tensor) -> Tensor:
    # The smallest that is large enough, so that the largest stays for what needs it.
    for i in reversed(range(len(_kept))):
        if _kept[i].dtype == like.dtype and len(_kept[i]) >= n:
            return _kept.pop(i)
    return torch.empty(n, dtype=like.dtype, device=like.device)
