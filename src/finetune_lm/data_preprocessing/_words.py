"""Finding words among tokens, wherever they stand as words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_lm.data_preprocessing._selection import maskable
from finetune_lm.vocabulary import BoolArray, IntArray, Vocabulary

if TYPE_CHECKING:
    from torch import Tensor

Spelling = tuple[int, ...]

# What may stand around a word. Tokenizers spell a word differently at the start of a text, behind a
# space and behind an opening mark, and some spell it differently before a mark.
_BEFORE = ("", "a ", "(", "a (", '"', 'a "', "-", "a “")
_BEHIND = ("", " a", ".", ",", ")", "'s")


def spellings(words: Iterable[str], tokenizer: Any, vocabulary: Vocabulary) -> list[Spelling]:
    """All sequences of tokens that spell some words, the longest first.

    Args:
        words: The words, as they stand in a text; a word may be several with spaces between them.
        tokenizer: The tokenizer.
        vocabulary: Its entries.
    """
    found: dict[Spelling, None] = {}
    for word in words:
        if word not in vocabulary.spellings:
            vocabulary.spellings[word] = _spellings(word, tokenizer, vocabulary)
        found |= dict.fromkeys(vocabulary.spellings[word])
    return sorted(found, key=len, reverse=True)


def _spellings(word: str, tokenizer: Any, vocabulary: Vocabulary) -> list[Spelling]:
    contexts = [(before, behind) for before in _BEFORE for behind in _BEHIND]
    texts = [before + word + behind for before, behind in contexts]
    encoded = tokenizer(
        texts,
        add_special_tokens=False,
        return_offsets_mapping=bool(tokenizer.is_fast),
        verbose=False,
    )
    found: dict[Spelling, None] = {}
    for i, (before, _) in enumerate(contexts):
        ids = list(encoded["input_ids"][i])
        if tokenizer.is_fast:
            begin, end = len(before), len(before) + len(word)
            spans = encoded["offset_mapping"][i]
            inside = [_within(texts[i], span, begin, end) for span in spans]
            if None in inside:  # a token that is partly the word and partly what is around it
                continue
            spelling = [token for token, is_in in zip(ids, inside, strict=True) if is_in]
        else:
            around = tokenizer(before, add_special_tokens=False)["input_ids"] if before else []
            if contexts[i][1] or ids[: len(around)] != list(around):
                continue
            spelling = ids[len(around) :]
        spelling = _without_space(spelling, tokenizer, vocabulary)
        if spelling:
            found[tuple(spelling)] = None
    return list(found)


def _within(text: str, span: tuple[int, int], begin: int, end: int) -> bool | None:
    """Whether a token is of the word from ``begin`` to ``end``; None if it is only partly.

    The space before a word belongs to it, as tokenizers have it.
    """
    first, last = span
    while first < last and text[first].isspace():
        first += 1
    if first == last:  # nothing but space: of the word if that follows at once
        return last == begin or (last == 0 and begin == 0)
    if last <= begin or first >= end:
        return False
    return True if begin <= first and last <= end else None


def _without_space(spelling: list[int], tokenizer: Any, vocabulary: Vocabulary) -> list[int]:
    """A token that was added to a vocabulary leaves the space before it to a token of its own."""
    if len(spelling) > 1 and spelling[1] in tokenizer.get_added_vocab().values():
        blank = not str(vocabulary.texts(np.array(spelling[:1]))[0]).strip()
        return spelling[1:] if blank else spelling
    return spelling


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
