"""The words of texts, and which characters and which word each token stands for.

Words are what white space separates in the original text, or what the data give as words. Tokens
are aligned to them by character offsets of one tokenization of the whole text; no word is ever
tokenized by itself, since that gives other tokens.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from finetune_lm.data.ragged_arrays import IntArray, Ragged

NO_WORD = -1
"""The word number of a token that belongs to no word: a start, end or separator token."""
NO_PLACE = -1
"""Where a token is that is not of the text."""

Span = tuple[int, int]

_WORD = re.compile(r"\S+")
_SPACES = np.array([i for i in range(0x3001) if chr(i).isspace()], dtype=np.uint32)


def word_spans(text: str) -> list[Span]:
    """Where each word begins and ends.

    Example:
        >>> word_spans("It's  so.")
        [(0, 4), (6, 9)]
    """
    return [match.span() for match in _WORD.finditer(text)]


@dataclass(frozen=True)
class TokenPlaces:
    """Where the tokens of some texts are in them, as the tokenizer tells.

    Attributes:
        starts: The character at which each token begins, -1 for tokens that are not of the text.
        ends: The character behind each, likewise.
        cuts: The character at which the first token begins that was cut off from a text too long,
            -1 if none was: (texts,).
    """

    starts: Ragged
    ends: Ragged
    cuts: IntArray

    def select(self, rows: IntArray, of_text: npt.NDArray[np.bool_]) -> TokenPlaces:
        """Those of some texts, in that order.

        Args:
            rows: Which texts: (n,).
            of_text: Whether the tokens of each still are of its text; else they have no places.
        """
        selected = self.starts.select(rows)
        starts = np.where(np.repeat(of_text, selected.lengths), selected.values, NO_PLACE)
        return TokenPlaces(
            Ragged(starts, selected.starts),
            self.ends.select(rows),
            np.where(of_text, self.cuts[rows], NO_PLACE),
        )


class AlignedTokens(NamedTuple):
    """What each of some tokens stands for: arrays of shape (n,).

    Attributes:
        word_num: The number of its word in its text, `NO_WORD` where it belongs to none.
        start: The first of its characters, `NO_PLACE` where it is not of the text.
        end: The one behind the last.
        straddles: Whether it begins before its word does, in another one.
        is_word: Whether it is all of its word.
    """

    word_num: IntArray
    start: IntArray
    end: IntArray
    straddles: npt.NDArray[np.bool_]
    is_word: npt.NDArray[np.bool_]


def align(
    texts: Sequence[str], places: TokenPlaces, spans: Sequence[Sequence[Span]]
) -> AlignedTokens:
    """Find out what each token of some texts stands for.

    White space around a token is no part of it: a token that is nothing but white space stands for
    no character, and belongs to the word after it, or to the last word if there is none after it.
    Each piece of a character that is several tokens stands for that character. A character of a
    word that no token stands for (tokenizers drop accents and control characters) goes to the token
    before it in its word, at the beginning of a word to the token after it. So the tokens of a
    word that is whole reach from its beginning to its end.

    A token that is part of several words belongs to the last of them.

    Args:
        texts: The texts, none of them blank.
        places: Where their tokens are.
        spans: Where the words of each begin and end. They hold all that is not white space.

    Returns:
        What the tokens of all texts stand for, one text after another.

    Example:
        >>> places = TokenPlaces(Ragged.of([[0, 2, 4, 8]]), Ragged.of([[2, 4, 8, 9]]), [-1])
        >>> aligned = align(["It's  so."], places, [word_spans("It's  so.")])
        >>> aligned.word_num, aligned.start, aligned.end
        (array([0, 0, 1, 1]), array([0, 2, 6, 8]), array([2, 4, 8, 9]))
    """
    lengths = places.starts.lengths
    in_text = places.starts.values >= 0
    text = np.repeat(np.arange(len(texts)), lengths)[in_text]
    begins = np.concatenate([[0], np.cumsum([len(each) for each in texts])]).astype(np.int64)
    space = _is_space("".join(texts))
    first_word = np.concatenate([[0], np.cumsum([len(each) for each in spans])]).astype(np.int64)
    all_spans = np.array([s for each in spans for s in each], dtype=np.int64).reshape(-1, 2)
    all_spans += np.repeat(begins[:-1], np.diff(first_word))[:, None]
    word_start, word_end = all_spans[:, 0], all_spans[:, 1]

    # From here on a place is one in all texts together.
    offset = begins[text]
    start = np.minimum(places.starts.values[in_text] + offset, begins[text + 1])
    end = np.clip(places.ends.values[in_text] + offset, start, begins[text + 1])
    not_space = np.flatnonzero(~space)
    start_of_letters = _next(not_space, start, default=len(space))
    is_blank = start_of_letters >= end
    start = np.where(is_blank, start, start_of_letters)
    end = _behind_last(not_space, end)
    word = np.where(
        is_blank,
        np.minimum(np.searchsorted(word_end, start, side="right"), first_word[text + 1] - 1),
        np.searchsorted(word_start, end, side="left") - 1,
    )
    word = np.maximum.accumulate(word) if len(word) else word
    of_word_start, of_word_end = word_start[word], word_end[word]
    straddles = ~is_blank & (start < of_word_start)
    start = np.where(straddles, start, np.clip(start, of_word_start, of_word_end))
    end = np.where(is_blank, start, np.maximum(end, start))

    is_first = np.ones(len(word), dtype=bool)
    is_first[1:] = word[1:] != word[:-1]
    start = np.where(is_first & ~straddles, of_word_start, start)
    is_last_of_text = np.ones(len(word), dtype=bool)
    is_last_of_text[:-1] = text[1:] != text[:-1]
    cut = np.where(places.cuts < 0, begins[1:], begins[:-1] + places.cuts)[text]
    behind = np.where(is_last_of_text, cut, np.concatenate([start[1:], [0]]))
    end = np.maximum(end, _behind_last(not_space, np.minimum(of_word_end, behind)))
    # Of a character that is cut in two nothing is whole.
    end = np.minimum(end, np.maximum(start, cut))
    is_whole = (start == of_word_start) & (end == of_word_end)
    is_alone = is_first & np.concatenate([is_first[1:], [True]])

    def everywhere(values: npt.NDArray[Any], fill: int) -> npt.NDArray[Any]:
        spread = np.full(len(in_text), fill, dtype=values.dtype)
        spread[in_text] = values
        return spread

    return AlignedTokens(
        everywhere(word - first_word[text], NO_WORD),
        everywhere(start - offset, NO_PLACE),
        everywhere(end - offset, NO_PLACE),
        everywhere(straddles, False),
        everywhere(is_whole & is_alone, False),
    )


def _is_space(text: str) -> npt.NDArray[np.bool_]:
    """Which characters of a text are white space."""
    return np.isin(np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32), _SPACES)


def _next(places: IntArray, at: IntArray, default: int) -> IntArray:
    """The first of some places that is not before each given one."""
    return np.append(places, default)[np.searchsorted(places, at, side="left")]


def _behind_last(places: IntArray, at: IntArray) -> IntArray:
    """One behind the last of some places that is before each given one."""
    return np.append(-1, places)[np.searchsorted(places, at, side="left")] + 1
