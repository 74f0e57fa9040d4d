"""The columns that tell what a token is and where it stands in its text."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from finetune_lm.data.label_words import TokenWords
from finetune_lm.data.ragged_arrays import IntArray
from finetune_lm.data.units import NO_REGION
from finetune_lm.data.words import NO_PLACE, NO_WORD
from finetune_lm.models.vocabulary import Vocabulary
from finetune_lm.recording.columns import REGION, STRADDLES


class TokenColumns:
    """Makes these columns.

    Args:
        vocabulary: The entries of the tokenizer.
        unit_names: Those about regions and words that the data give: `REGION`, `STRADDLES`.
        region_names: The names of all regions, by number.
    """

    def __init__(
        self, vocabulary: Vocabulary, unit_names: Sequence[str], region_names: Sequence[str]
    ) -> None:
        self._vocabulary, self._unit_names = vocabulary, unit_names
        self._region_names = pa.array(region_names, pa.string())

    def of(self, token_id: IntArray, words: TokenWords) -> dict[str, pa.Array]:
        """They by name: (n,) each.

        Args:
            token_id: The tokens: (n,).
            words: Their words.
        """
        no_word, nowhere = words.word_num == NO_WORD, words.start == NO_PLACE
        columns = {
            "word_num": pa.array(words.word_num, mask=no_word),
            "word": pa.array(words.words, pa.string()),
            "token_num_in_word": pa.array(words.token_num_in_word, mask=no_word),
            "token": pa.array(self._vocabulary.texts(token_id), pa.string()),
            "token_id": pa.array(token_id),
            "token_start": pa.array(words.start, mask=nowhere),
            "token_end": pa.array(words.end, mask=nowhere),
            "token_is_start_of_word": pa.array(words.begins_word),
            "token_is_word": pa.array(words.is_word),
            "is_target": pa.array(~self._vocabulary.is_special(token_id)),
            "is_unknown": pa.array(self._vocabulary.is_unknown(token_id)),
        }
        if REGION in self._unit_names:
            number = pa.array(words.region, mask=words.region == NO_REGION)
            columns[REGION] = self._region_names.take(number)
        if STRADDLES in self._unit_names:
            columns[STRADDLES] = pa.array(words.straddles, mask=nowhere)
        return columns
