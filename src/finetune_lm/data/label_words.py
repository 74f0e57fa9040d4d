"""The words of label sequences, for whole data sets and for batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from finetune_lm.data.ragged_arrays import IntArray, Ragged
from finetune_lm.data.words import NO_WORD, align, word_spans
from finetune_lm.models.vocabulary import Vocabulary


class TokenWords(NamedTuple):
    """The word of each of some tokens: four arrays of shape (n,), as `LabelWords` has them."""

    word_num: IntArray
    token_num_in_word: IntArray
    is_word: npt.NDArray[np.bool_]
    words: npt.NDArray[np.object_]

    @classmethod
    def choose(
        cls, condition: npt.NDArray[np.bool_], yes: TokenWords, no: TokenWords
    ) -> TokenWords:
        """Those of ``yes`` where the condition holds and those of ``no`` elsewhere, in order."""
        chosen = []
        for if_so, if_not in zip(yes, no, strict=True):
            values = np.empty(len(condition), dtype=if_so.dtype)
            values[condition], values[~condition] = if_so, if_not
            chosen.append(values)
        return cls(*chosen)


@dataclass(frozen=True)
class LabelWords:
    """For each token of some label sequences, the word it belongs to.

    Attributes:
        word_num: The word's number in its text, -1 where a token belongs to none.
        token_num_in_word: The token's number in its word, -1 where it belongs to none.
        is_word: Whether the token is all of its word.
        words: The words themselves, an object array parallel to ``word_num.values``; None where
            there is none.
    """

    word_num: Ragged
    token_num_in_word: Ragged
    is_word: npt.NDArray[np.bool_]
    words: npt.NDArray[np.object_]

    @classmethod
    def of_texts(
        cls, texts: Sequence[str], char_starts: Ragged, cut_starts: Sequence[int]
    ) -> LabelWords:
        """Words of texts, by where their tokens begin.

        Args:
            texts: The texts.
            char_starts: The character at which each token of each text begins, -1 for tokens that
                are not of the text.
            cut_starts: The character at which the first token begins that was cut off from a text
                too long, -1 if none was: a word that is cut is not all in one token.
        """
        starts = [char_starts[i] for i in range(len(texts))]
        aligned = [
            align(text, [*s, cut]) for text, s, cut in zip(texts, starts, cut_starts, strict=True)
        ]
        word_lists = [[text[begin:end] for begin, end in word_spans(text)] for text in texts]
        words = cls._of(Ragged.of(word_num[:-1] for word_num in aligned), word_lists)
        cut_words = np.array([word_num[-1] for word_num in aligned], dtype=np.int64)
        cut_word = np.repeat(cut_words, words.word_num.lengths)
        words.is_word[(cut_word != NO_WORD) & (words.word_num.values == cut_word)] = False
        return words

    @classmethod
    def of_ids(cls, vocabulary: Vocabulary, sequences: Sequence[IntArray]) -> LabelWords:
        """Words of sequences that no text is given for: made by a function, or by the model.

        A word goes from a token that is spelled as a beginning up to the next one; a mask or a
        sentinel is a word of its own.
        """
        word_nums, word_lists = [], []
        for ids in sequences:
            in_word = ~vocabulary.is_structural(ids)
            alone = vocabulary.is_standalone(ids)
            begins = vocabulary.begins_word(ids) | alone
            begins[1:] |= alone[:-1] | ~in_word[:-1]
            begins[:1] = True
            begins &= in_word
            word_num = np.where(in_word, np.cumsum(begins) - 1, NO_WORD)
            word_nums.append(word_num)
            word_lists.append(
                [vocabulary.join(ids[word_num == word].tolist()) for word in range(begins.sum())]
            )
        return cls._of(Ragged.of(word_nums), word_lists)

    @classmethod
    def _of(cls, word_num: Ragged, word_lists: list[list[str]]) -> LabelWords:
        n = len(word_num.values)
        in_word = word_num.values != NO_WORD
        # A run is the tokens of one word: it ends where the word or the sequence does.
        run_begins = np.ones(n, dtype=bool)
        run_begins[1:] = word_num.values[1:] != word_num.values[:-1]
        run_begins[word_num.starts[:-1][word_num.lengths > 0]] = True
        first_of_run = np.maximum.accumulate(np.where(run_begins, np.arange(n), 0))
        token_num = np.where(in_word, np.arange(n) - first_of_run, NO_WORD)
        run = np.cumsum(run_begins) - 1
        is_word = in_word & (np.bincount(run, minlength=1)[run] == 1) if n else in_word
        words = np.empty(n, dtype=object)
        offsets = np.concatenate([[0], np.cumsum([len(words) for words in word_lists])])
        all_words = np.array([word for words in word_lists for word in words] or [""], dtype=object)
        sequence = np.repeat(np.arange(len(word_num)), word_num.lengths)
        words[in_word] = all_words[(offsets[sequence] + word_num.values)[in_word].astype(np.int64)]
        return cls(word_num, Ragged(token_num, word_num.starts), is_word, words)

    def __len__(self) -> int:
        return len(self.word_num)

    def at(self, sequence: IntArray, position: IntArray) -> TokenWords:
        """The words of some tokens.

        Args:
            sequence: The sequence of each: (n,).
            position: Its place in that sequence: (n,).
        """
        place = self.word_num.starts[sequence] + position
        return TokenWords(
            self.word_num.values[place],
            self.token_num_in_word.values[place],
            self.is_word[place],
            self.words[place],
        )
