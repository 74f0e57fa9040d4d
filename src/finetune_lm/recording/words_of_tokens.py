"""Tokens put together to words: which of them are whole, and what is taken over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from finetune_lm.models.tasks import TASKS
from finetune_lm.recording.columns import REGION
from finetune_lm.recording.word_columns import SUM

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_NONE = -1


def changes(column: pa.ChunkedArray) -> BoolArray:
    """Where a value is another one than that before it; True for the first."""
    codes = _codes(column)
    changed = np.ones(len(codes), dtype=bool)
    changed[1:] = codes[1:] != codes[:-1]
    return changed


def _codes(column: pa.ChunkedArray) -> IntArray:
    if pa.types.is_integer(column.type):
        return _integers(column)
    indices = column.combine_chunks().dictionary_encode().indices
    return np.asarray(pc.fill_null(indices, _NONE)).astype(np.int64)


def _integers(column: pa.ChunkedArray) -> IntArray:
    return np.asarray(pc.fill_null(column, _NONE)).astype(np.int64)


def _booleans(column: pa.ChunkedArray) -> BoolArray:
    return np.asarray(pc.fill_null(column, False))


def _floats(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """Numbers as they are in float32, NaN where there are none."""
    values = pc.fill_null(pc.cast(column, pa.float32(), safe=False), np.nan)
    return np.asarray(values).astype(np.float64)


@dataclass(frozen=True)
class Words:
    """What was made of some tokens: arrays of shape (words,).

    Attributes:
        index: The row of a token that each word is like in what words have of their tokens.
        word_num: Its number.
        start, end: Its characters, `_NONE` where that is not known.
        n_tokens: How many rows it has.
        is_named: Whether any token is of it; of a word without a row no more is known than that it
            is there.
        region_index: The row of the token that says in which region it is, `_NONE` for none.
        values: What is taken of each column, NaN where that is missing.
        first: Whether what is taken is that of the row in ``index``, by column.
    """

    index: IntArray
    word_num: IntArray
    start: IntArray
    end: IntArray
    n_tokens: IntArray
    is_named: BoolArray
    region_index: IntArray
    values: Mapping[str, npt.NDArray[np.float64]]
    first: Mapping[str, BoolArray]

    def table(self, rows: pa.Table, columns: Sequence[str]) -> pa.Table:
        """The rows of a table of words."""
        index = pa.array(self.index)
        unnamed = ~self.is_named
        made: dict[str, Any] = {
            "word_num": pa.array(self.word_num),
            "word": rows["word"].combine_chunks().take(pa.array(self.index, mask=unnamed)),
            "char_start": pa.array(self.start, mask=self.start < 0),
            "char_end": pa.array(self.end, mask=self.end < 0),
            "n_tokens": pa.array(self.n_tokens),
        }
        for name, values in self.values.items():
            made[name] = pa.array(values.astype(np.float32), mask=np.isnan(values))
        for name, has in self.first.items():
            made[name] = rows[name].combine_chunks().take(pa.array(self.index, mask=~has))
        if REGION in columns:
            where = pa.array(self.region_index, mask=self.region_index < 0)
            made[REGION] = rows[REGION].combine_chunks().take(where)
        for name in columns:
            if name not in made:
                made[name] = rows[name].combine_chunks().take(index)
        return pa.table({name: made[name] for name in columns})


def rows_of_words(rows: pa.Table, example: IntArray, taken: Mapping[str, str]) -> Words:
    """Put tokens together to words.

    Args:
        rows: Rows of tokens, whole examples of them.
        example: The example of each, rising: (n,).
        taken: What is taken of which column.
    """
    word_num = _integers(rows["word_num"])
    order = np.flatnonzero((word_num >= 0) & _booleans(rows["is_target"]))
    place = _integers(rows["token_num_in_word"])
    order, sequence = _sequences(rows, order, example, word_num, place)
    in_order = _in_order(rows)[order]
    word_num, place = word_num[order], place[order]
    n = len(order)

    begins = np.ones(n, dtype=bool)
    begins[1:] = (word_num[1:] != word_num[:-1]) | (sequence[1:] != sequence[:-1])
    first = np.flatnonzero(begins)
    n_tokens = np.diff(np.append(first, n))
    last = first + n_tokens - 1
    of_word = np.cumsum(begins) - 1
    token_start = _integers(rows["token_start"])[order]
    token_end = _integers(rows["token_end"])[order]
    has_place = token_start[first] >= 0
    has_first = (place[first] == 0) & _booleans(rows["token_is_start_of_word"])[order][first]
    length = np.asarray(pc.utf8_length(rows["word"].take(pa.array(order[first]))).fill_null(0))
    start = np.where(has_place & has_first, token_start[first], _NONE)
    end = np.where(start >= 0, start + length, _NONE)
    is_alone = _booleans(rows["token_is_word"])[order][first] & (n_tokens == 1)
    # Of what no text is given for, a text that is predicted in order has rows for all tokens.
    reaches_end = np.where(has_place, token_end[last] == end, in_order[first] | is_alone)
    is_whole = has_first & (place[last] == n_tokens - 1) & reaches_end

    straddles = (place[first] == 0) & ~has_first
    tokens_at = word_num, sequence, token_start, token_end
    gaps = _swallowed(tokens_at, first, straddles, in_order)
    made = np.repeat(np.arange(len(first)), gaps + 1)
    is_named = np.append(made[1:] != made[:-1], True)[: len(made)]
    behind = np.append(np.cumsum(gaps + 1), 0)[made] - 1 - np.arange(len(made))

    def spread(values: npt.NDArray[Any], fill: Any) -> npt.NDArray[Any]:
        return np.where(is_named, values[made], fill)

    values, firsts = {}, {}
    for name, how in taken.items():
        if how == SUM:
            tokens = _floats(rows[name])[order]
            total = np.bincount(of_word, weights=tokens, minlength=len(first))[: len(first)]
            values[name] = spread(np.where(is_whole, total, np.nan), np.nan)
        else:
            firsts[name] = spread(has_first, False)
    return Words(
        index=order[first][made],
        word_num=word_num[first][made] - behind,
        start=spread(start, _NONE),
        end=spread(end, _NONE),
        n_tokens=spread(n_tokens, 0),
        is_named=is_named,
        region_index=spread(_regions(rows, order, of_word, len(first)), _NONE),
        values=values,
        first=firsts,
    )


def _in_order(rows: pa.Table) -> BoolArray:
    """Whether each row is of a model that predicts a text in order."""
    tasks = rows["task"].combine_chunks().dictionary_encode()
    known = [TASKS[name].predicts_in_order for name in tasks.dictionary.to_pylist()]
    found: BoolArray = np.array(known or [True])[np.asarray(tasks.indices)]
    return found


def _sequences(
    rows: pa.Table, order: IntArray, example: IntArray, word_num: IntArray, place: IntArray
) -> tuple[IntArray, IntArray]:
    """Tokens in the order of their texts, and the sequence that each is of: (n,) each.

    A sequence is what the model was asked at once, or all that was made of one example of a masked
    model, unless one of its tokens is asked about more than once.
    """
    example, at = example[order], word_num[order] * (place.max(initial=0) + 1) + place[order]
    in_order = _in_order(rows)[order]
    begins = np.ones(len(order), dtype=bool)
    begins[1:] = (example[1:] != example[:-1]) | (at[1:] <= at[:-1])
    if not in_order.all():
        asked = changes(rows["input_text"].take(pa.array(order))) if len(order) else begins
        begins |= asked & ~in_order
        by_place = np.lexsort((at, example))
        twice = np.zeros(len(order), dtype=bool)
        twice[1:] = (example[by_place][1:] == example[by_place][:-1]) & (
            at[by_place][1:] == at[by_place][:-1]
        )
        apart = np.isin(example, example[by_place][twice])
        is_first = np.ones(len(order), dtype=bool)
        is_first[1:] = example[1:] != example[:-1]
        begins = np.where(in_order | apart, begins, is_first)
    sequence = np.cumsum(begins) - 1
    sorted_ = np.lexsort((at, sequence))
    return order[sorted_], sequence[sorted_]


def _swallowed(
    tokens: tuple[IntArray, IntArray, IntArray, IntArray],
    first: IntArray,
    straddles: BoolArray,
    in_order: BoolArray,
) -> IntArray:
    """How many words before each have no token of their own: they are inside its first token.

    Args:
        tokens: The word of each token, its sequence, and the characters that it begins and ends at.
        first: The first token of each word.
        straddles: Whether that is of an earlier word as well.
        in_order: Whether the model of each token predicts a text in order.
    """
    word_num, sequence, token_start, token_end = tokens
    before = np.maximum(first - 1, 0)
    has_before = (first > 0) & (sequence[first] == sequence[before])
    gap = word_num[first] - 1 - np.where(has_before, word_num[before], -1)
    edge = np.where(has_before, token_end[before], 0)
    # Of a masked model's text only what is next to the token is known to have no row.
    known = in_order[first] | (edge == token_start[first])
    return np.where(straddles & (token_start[first] >= 0) & known, np.maximum(gap, 0), 0)


def _regions(rows: pa.Table, order: IntArray, of_word: IntArray, n_words: int) -> IntArray:
    """The last row of each word that is in a region, `_NONE` where none is."""
    found = np.full(n_words, _NONE, dtype=np.int64)
    if REGION in rows.column_names:
        has = np.asarray(pc.is_valid(rows[REGION]))[order]
        found[of_word[has]] = order[has]  # of several the last one stays
    return found
