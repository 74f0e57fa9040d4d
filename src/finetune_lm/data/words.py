"""Which word of the text each token belongs to.

Words are what white space separates in the original text. Tokens are aligned to them by character
offsets of one tokenization of the whole text; no word is ever tokenized by itself, since that gives
other tokens.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from finetune_lm.data.ragged_arrays import IntArray

NO_WORD = -1
"""The word number of a token that belongs to no word: a start, end or separator token."""

_WORD = re.compile(r"\S+")


def word_spans(text: str) -> list[tuple[int, int]]:
    """Where each word begins and ends.

    Example:
        >>> word_spans("It's  so.")
        [(0, 4), (6, 9)]
    """
    return [match.span() for match in _WORD.finditer(text)]


def align(text: str, starts: Sequence[int]) -> IntArray:
    """The word of each token, from where the token begins in the text.

    A token that begins in white space (tokenizers give a word's leading space to its first token)
    belongs to the word after it, or to the last word if there is none after it.

    Args:
        text: The text.
        starts: The character at which each token begins, -1 if it is not of the text: (n,).

    Returns:
        Word numbers from 0, `NO_WORD` for a token that is not of the text: (n,).

    Example:
        >>> align("It's  so. ", [0, 2, 4, 7, 9])
        array([0, 0, 1, 1, 1])
    """
    ends = np.array([end for _, end in word_spans(text)], dtype=np.int64)
    places = np.asarray(starts, dtype=np.int64)
    words = np.minimum(np.searchsorted(ends, places, side="right"), len(ends) - 1)
    return np.where(places >= 0, words, NO_WORD)
