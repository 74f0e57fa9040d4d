"""The words of label sequences, for whole data sets and for batches."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from finetune_lm.data.ragged_arrays import IntArray, Ragged
from finetune_lm.data.units import FittedUnits, regions_of_tokens
from finetune_lm.data.words import NO_PLACE, NO_WORD, TokenPlaces, align, word_spans
from finetune_lm.models.vocabulary import Vocabulary


class TokenWords(NamedTuple):
    """The word of each of some tokens: arrays of shape (n,), as `LabelWords` has them."""

    word_num: IntArray
    token_num_in_word: IntArray
    begins_word: npt.NDArray[np.bool_]
    is_word: npt.NDArray[np.bool_]
    words: npt.NDArray[np.object_]
    start: IntArray
    end: IntArray
    region: IntArray
    straddles: npt.NDArray[np.bool_]

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
        of_tokens: The words of all tokens, one sequence after another. ``word_num``: the word's
            number in its text; ``token_num_in_word``: the token's number in its word;
            ``begins_word``: whether its word begins with it; ``is_word``: whether it is all of its
            word; ``words``: the word itself; ``start`` and ``end``: its characters in the text;
            ``region``: the number of its region among ``region_names``; ``straddles``: whether it
            is part of another word, or of what is outside its region, too. The numbers are -1, and
            the word None, where there are none.
        starts: Where each sequence begins, with the end of the last one behind: (sequences + 1,).
    """

    of_tokens: TokenWords
    starts: IntArray
    region_names: Sequence[str] = ()

    @classmethod
    def of_texts(
        cls, texts: Sequence[str], places: TokenPlaces, units: Sequence[FittedUnits]
    ) -> LabelWords:
        """Words of texts, by where their tokens are.

        Args:
            texts: The texts.
            places: Where the tokens of each are.
            units: The words and regions that are given for each. Where no words are given, they are
                what white space separates.
        """
        words = [
            word_spans(text) if given.words is None else given.words
            for text, given in zip(texts, units, strict=True)
        ]
        aligned = align(texts, places, words)
        names, region, leaves_region = regions_of_tokens(
            texts, [given.regions for given in units], aligned, places.starts.lengths
        )
        word_num = Ragged(aligned.word_num, places.starts.starts)
        numbered = cls._numbered(
            word_num,
            [[text[a:b] for a, b in each] for text, each in zip(texts, words, strict=True)],
        )
        of_tokens = numbered.of_tokens._replace(
            begins_word=numbered.of_tokens.begins_word & ~aligned.straddles,
            is_word=aligned.is_word,
            start=aligned.start,
            end=aligned.end,
            region=region,
            straddles=aligned.straddles | leaves_region,
        )
        return cls(of_tokens, numbered.starts, names)

    @classmethod
    def of_ids(cls, vocabulary: Vocabulary, sequences: Sequence[IntArray]) -> LabelWords:
        """Words of sequences that no text is given for: made by a function, or by the model.

        A word goes from a token that is spelled as a beginning up to the next one; a mask or a
        sentinel is a word of its own.
        """
        given = Ragged.of(sequences)
        ids, starts = given.values, given.starts
        in_word = ~vocabulary.is_structural(ids)
        alone = vocabulary.is_standalone(ids)
        begins = vocabulary.begins_word(ids) | alone
        begins[1:] |= alone[:-1] | ~in_word[:-1]
        begins[starts[:-1][given.lengths > 0]] = True
        begins &= in_word
        # Words of all sequences, and how many there are up to the end of each.
        number = np.cumsum(begins) - 1
        ends = np.concatenate([[0], np.cumsum(begins)])[starts]
        word_num = number - np.repeat(ends[:-1], given.lengths)
        tokens = np.split(ids[in_word], np.flatnonzero(begins[in_word])[1:])
        words = vocabulary.joined([each.tolist() for each in tokens]) if begins.any() else []
        return cls._numbered(
            Ragged(np.where(in_word, word_num, NO_WORD), starts),
            [words[begin:end] for begin, end in itertools.pairwise(ends.tolist())],
        )

    @classmethod
    def _numbered(cls, word_num: Ragged, word_lists: list[list[str]]) -> LabelWords:
        """Tokens numbered within their words, which have no places."""
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
        none = np.full(n, NO_PLACE)
        of_tokens = TokenWords(
            word_num.values,
            token_num,
            begins_word=token_num == 0,
            is_word=is_word,
            words=words,
            start=none,
            end=none,
            region=none,
            straddles=np.zeros(n, dtype=bool),
        )
        return cls(of_tokens, word_num.starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def at(self, sequence: IntArray, position: IntArray) -> TokenWords:
        """The words of some tokens.

        Args:
            sequence: The sequence of each: (n,).
            position: Its place in that sequence: (n,).
        """
        place = self.starts[sequence] + position
        return TokenWords(*(values[place] for values in self.of_tokens))
