"""Memory for logits, and for gradients of the layer that makes them, that is used again and again.

A step's logits take more memory than many a model. Fresh memory of that size comes from the system
page by page, each filled with zeros first, which takes as long as computing the logits.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

# As many as are lent at a time: a model's logits, those of its baseline, what is made of both, and
# a gradient.
_MOST_KEPT = 5
# Rows begin at multiples of so many values, 64 bytes of float32. A vocabulary of 50,257 entries
# otherwise lets each begin elsewhere in a line of a processor's cache, and MKL writes products half
# as fast.
_ROW = 16

_kept: list[Tensor] = []
# By where a tensor's values are: memory for its gradients, unless that is lent.
_reserved: dict[int, list[Tensor]] = {}


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
            _keep(memory)


def lasting(like: Tensor) -> Tensor:
    """A tensor with anything in it that may be kept; what has held it is used again afterwards.

    The C library, too, keeps what is given back, but cuts some bytes off its ends, so that it does
    not do for the next tensor of the size.

    Args:
        like: A tensor of the same shape and type on the same device.
    """
    if like.device.type != "cpu" or like.dtype != torch.float32:
        return torch.empty_like(like)
    n = like.numel()
    reserved = _reserved.get(like.data_ptr())
    if reserved:
        memory, give_back = reserved.pop(), reserved.append
    else:
        memory, give_back = _take(n, like), _keep
    # A view of a tensor is none to which autograd would add in place, but that of an array is. It
    # ends with the last tensor that is in this memory.
    lent = memory.numpy()[:n].reshape(like.shape)
    weakref.finalize(lent, give_back, memory).atexit = False
    return torch.from_numpy(lent)


def reserve(like: Tensor, memory: Tensor | None) -> None:
    """Let `lasting` lend some memory for gradients of a tensor before any other.

    Args:
        like: The tensor, which stays where it is.
        memory: As many values of its type; None for no such memory any more.
    """
    _reserved.pop(like.data_ptr(), None)
    if memory is not None:
        _reserved[like.data_ptr()] = [memory]


def release() -> None:
    """Give the memory that is not lent back to the system."""
    _kept.clear()


def _keep(memory: Tensor) -> None:
    _kept.append(memory)
    _kept.sort(key=len, reverse=True)
    del _kept[_MOST_KEPT:]


def _take(n: int, like: Tensor) -> Tensor:
    # The smallest that is large enough, so that the largest stays for what needs it.
    for i in reversed(range(len(_kept))):
        kept = _kept[i]
        if (kept.dtype, kept.device) == (like.dtype, like.device) and len(kept) >= n:
            return _kept.pop(i)
    return torch.empty(n, dtype=like.dtype, device=like.device)
