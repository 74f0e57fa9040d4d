"""Finding words among tokens, wherever they stand as words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from finetune_lm.data_preprocessing._selection import maskable
from finetune_lm.models.spelling import Spelling
from finetune_lm.models.vocabulary import BoolArray, IntArray, Vocabulary

if TYPE_CHECKING:
    from torch import Tensor


def with_capitalized(words: Iterable[str], also_capitalized: bool) -> list[str]:
    """Words, and if asked the same with a capital letter first."""
    listed = list(words)
    if also_capitalized:
        listed += [word[:1].upper() + word[1:] for word in listed]
    return list(dict.fromkeys(listed))


def find(
    inputs: dict[str, Tensor], patterns: Iterable[Spelling], vocabulary: Vocabulary
) -> tuple[Tensor, Tensor]:
    """Where words stand among tokens: the longest first, then from left to right.

    A word stands where it is not part of a longer one: no letter or digit goes on without a space
    on either side. No token is found twice.

    Args:
        inputs: ``input_ids`` and ``attention_mask``, (n, length).
        patterns: Sequences of tokens that spell words, the longest first.
        vocabulary: The tokenizer's entries.

    Returns:
        Which tokens are of a word found, and which of these are the first of one; (n, length) each.
    """
    import torch

    ids: IntArray = inputs["input_ids"].cpu().numpy()
    free: BoolArray = maskable(inputs, vocabulary).cpu().numpy()
    n, width = ids.shape
    # Whether a word cannot begin here, for lack of anything between it and the token before.
    goes_on = np.zeros((n, width + 1), dtype=bool)
    goes_on[:, :width] = vocabulary.continues(ids)
    goes_on[:, :width] &= free
    found, begins = np.zeros((n, width), dtype=bool), np.zeros((n, width), dtype=bool)
    for pattern in patterns:
        size = len(pattern)
        if size > width:
            continue
        starts = width - size + 1
        here = ~goes_on[:, :starts] & ~goes_on[:, size : size + starts]
        for offset, token in enumerate(pattern):
            here &= (ids == token)[:, offset : offset + starts]
            here &= free[:, offset : offset + starts]
        here = _apart(here, size)
        begins[:, :starts] |= here
        for offset in range(size):
            found[:, offset : offset + starts] |= here
            free[:, offset : offset + starts] &= ~here
    device = inputs["input_ids"].device
    return torch.from_numpy(found).to(device), torch.from_numpy(begins).to(device)


def _apart(starts: BoolArray, size: int) -> BoolArray:
    """Of places closer to one another than ``size``, those that come first from the left."""
    left, taken = starts.copy(), np.zeros_like(starts)
    while size > 1 and left.any():
        near = np.zeros_like(left)
        for distance in range(1, min(size, left.shape[1])):
            near[:, distance:] |= left[:, :-distance]
        first = left & ~near
        taken |= first
        left &= ~first
        for distance in range(1, min(size, left.shape[1])):
            left[:, distance:] &= ~first[:, :-distance]
    return taken if size > 1 else starts
