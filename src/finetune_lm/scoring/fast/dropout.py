"""Dropout by a byte of chance for each value.

On a CPU, torch draws two numbers of 32 bits for each value, one after the other. That is a tenth of
a small model's training step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

_BYTES_AT_ONCE = 8


@contextmanager
def dropout_by_bytes() -> Iterator[None]:
    """Let models drop values out in this way, in modules and wherever they call the function."""
    usual = functional.dropout

    def dropout(
        input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        if not training or not 0.0 < p < 1.0 or input.device.type != "cpu":
            return usual(input, p, training, inplace)
        kept = torch.from_numpy(drawn(input.numel(), 1.0 - p).view(np.uint8))
        factors = kept.to(input.dtype).mul_(1.0 / (1.0 - p)).view(input.shape)
        return input.mul_(factors) if inplace else input * factors

    functional.dropout = dropout
    try:
        yield
    finally:
        functional.dropout = usual


def drawn(n: int, p: float) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Whether each of n values was drawn, by torch's generator.

    Args:
        n: How many values there are.
        p: The probability of each, at least 0 and less than 1.

    Returns:
        (n,).
    """
    words = torch.empty(-(-n // _BYTES_AT_ONCE), dtype=torch.int64).random_(-(2**63), None)
    numbers = words.numpy().view(np.uint8)[:n]
    whole, rest = int(256.0 * p), 256.0 * p % 1.0
    # With an integer: for a float, NumPy would turn all of them into such first.
    found = numbers < whole
    # One byte of 256 does not settle it: so often it is drawn as what is left of p demands.
    unsettled = np.flatnonzero(numbers == whole)
    found[unsettled] = torch.rand(len(unsettled)).numpy() < rest
    return found
