"""Memory for logits that is used again and again.

A step's logits take more memory than many a model. Fresh memory of that size comes from the system
page by page, each filled with zeros first, which takes as long as computing the logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

# As many as are lent at a time: a model's logits, those of its baseline, and what is made of both.
_MOST_KEPT = 4
# Rows begin at multiples of so many values, 64 bytes of float32. A vocabulary of 50,257 entries
# otherwise lets each begin elsewhere in a line of a processor's cache, and MKL writes products half
# as fast.
_ROW = 16

_kept: list[Tensor] = []


@contextmanager
def borrowed(shape: Sequence[int], like: Tensor) -> Iterator[Tensor]:
    """A tensor with anything in it, for as long as the context lasts. Nothing of it may be kept.

    Args:
        shape: Rows and columns. There may be something between the rows.
        like: A tensor of the same type on the same device.
    """
    n_rows, n_columns = shape
    stride = -(-n_columns // _ROW) * _ROW
    memory = _take(n_rows * stride, like)
    try:
        yield memory[: n_rows * stride].view(n_rows, stride)[:, :n_columns]
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
