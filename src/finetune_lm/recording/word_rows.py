"""Rows of words, made of rows of tokens as these come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from finetune_lm.recording.columns import MODE, REGION, STEP
from finetune_lm.recording.shared_rows import Rows
from finetune_lm.recording.word_columns import (
    PLL,
    SURPRISAL,
    carried,
    taken_of,
    word_columns,
)
from finetune_lm.recording.words_of_tokens import changes, rows_of_words

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_EXAMPLE = (
    *("dataset_name", "dataset_type", "epoch", STEP, "example_num", "model_name", "seed"),
    MODE,
)
_OF_TOKENS = (
    "task",
    "batch_number",
    "input_text",
    "word_num",
    "word",
    "token_num_in_word",
    "token_start",
    "token_end",
    "token_is_start_of_word",
    "token_is_word",
    "is_target",
)
NEEDED = ("dataset_name", "dataset_type", "epoch", "example_num", *_OF_TOKENS, SURPRISAL)
"""Columns of tokens without which no words can be made."""


def needed_columns(token_columns: Sequence[str], taken: Mapping[str, str]) -> list[str]:
    """The columns of tokens that rows of words are made from, of those that there are."""
    front, behind = carried(token_columns)
    wanted = {*front, *behind, *_EXAMPLE, *_OF_TOKENS, REGION, *taken}
    return [name for name in token_columns if name in wanted]


@dataclass
class WordCount:
    """How many words there were, and how many of them have no surprisal."""

    n_words: int = 0
    n_missing: int = 0


@dataclass
class WordRows:
    """Makes a row of each word of the tokens that it is given, one part after another.

    A word has a surprisal if it is whole: all of its tokens have rows and a surprisal, and each is
    part of it alone. Words that are cut off at the end of a text too long, words that share a token
    with another one, and words of which only some tokens were masked have none.

    The tokens of a masked model's word may have been masked one at a time, in examples that were
    made of one. They count as one word's if each of the text's tokens is asked about once.

    The rows of the last example are kept back until another one or the end comes, since the next
    part may have more of it. What comes out does not depend on where the parts end.

    Attributes:
        token_columns: The columns of the table of tokens.
        given: What is taken over a word of columns that are not this package's own.
        with_pll: Whether rows say which pseudo-log-likelihood a word has.
        count: How many words there were.
        kept: The rows of tokens that wait; None if there are none.
    """

    token_columns: Sequence[str]
    given: Mapping[str, str | None] = field(default_factory=dict)
    with_pll: bool = False
    count: WordCount = field(default_factory=WordCount)
    kept: pa.Table | None = None

    def __post_init__(self) -> None:
        self.taken = taken_of(self.token_columns, self.given)
        """What is taken of which column."""
        self.columns = word_columns(self.token_columns, self.taken, with_pll=self.with_pll)
        """The columns of the rows, in order."""
        self.needed = needed_columns(self.token_columns, self.taken)
        """The columns of tokens that the rows are made from, beside ``pll``."""

    def add(self, rows: Rows | pa.Table) -> pa.Table | None:
        """Take in rows of tokens.

        Returns:
            The words that are complete by now, in `columns`; None if there are none.
        """
        rows = rows.select([*self.needed, *([PLL] if self.with_pll else [])])
        if isinstance(rows, Rows):
            rows = rows.table
        if self.kept is not None:
            rows = pa.concat_tables([self.kept, rows])
        if not len(rows):
            return None
        rows = rows.combine_chunks()
        example = _examples(rows)
        last = int(np.searchsorted(example, example[-1]))
        self.kept = rows.slice(last)
        return self._made(rows.slice(0, last), example[:last])

    def finish(self) -> pa.Table | None:
        """The words of the rows that wait; what comes afterwards is of other examples."""
        rows, self.kept = self.kept, None
        return None if rows is None else self._made(rows.combine_chunks(), _examples(rows))

    def _made(self, rows: pa.Table, example: IntArray) -> pa.Table | None:
        if not len(rows):
            return None
        made = rows_of_words(rows, example, self.taken)
        self.count.n_words += len(made.index)
        self.count.n_missing += int(np.isnan(made.values["surprisal"]).sum())
        return made.table(rows, self.columns) if len(made.index) else None


def _examples(rows: pa.Table) -> IntArray:
    """The number of the example that each row is of, from 0, in the order of the rows."""
    begins = np.zeros(len(rows), dtype=bool)
    of_training = np.asarray(pc.equal(rows["dataset_type"], "train").fill_null(False))
    for name in _EXAMPLE:
        if name in rows.column_names:
            begins |= changes(rows[name])
    # In training the model is another one in the next batch.
    begins |= changes(rows["batch_number"]) & of_training
    return np.cumsum(begins) - 1
