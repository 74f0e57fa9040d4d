"""Where the tokens of a data set's batches stand in their texts: in which words, behind what."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from finetune_lm.constants import IGNORED_LABEL
from finetune_lm.data.dataset import Dataset
from finetune_lm.data.label_words import LabelWords, TokenWords
from finetune_lm.data.ragged_arrays import IntArray
from finetune_lm.data.units import NO_REGION
from finetune_lm.data.words import NO_WORD
from finetune_lm.models.tasks import Task
from finetune_lm.models.vocabulary import Vocabulary
from finetune_lm.recording.joined_batches import JoinedBatches
from finetune_lm.recording.scored_tokens import ScoredTokens
from finetune_lm.recording.shared_rows import MOST_KEPT, Columns
from finetune_lm.recording.token_columns import TokenColumns
from finetune_lm.scoring.measuring import Tokens, spread

_WIDTH = 64
"""About how much text there is of a token beside its word and region, in bytes."""


class TokensInTexts:
    """Finds the words of tokens, and what stands around them.

    The words of the data set's own texts are found here, once.

    Args:
        dataset: The data set.
        task: The kind of model that it is for.
        vocabulary: The entries of its tokenizer.
        unit_names: The columns about regions and words that the data give.
        comes_again: Whether the data set is gone through more than once.
    """

    def __init__(
        self,
        dataset: Dataset,
        task: Task,
        vocabulary: Vocabulary,
        unit_names: Sequence[str],
        *,
        comes_again: bool,
    ) -> None:
        self._cuts = dataset.places.cuts
        self._task, self._vocabulary = task, vocabulary
        self._ids = dataset.reference_ids
        self._words = LabelWords.of_texts(dataset.labels, dataset.places, dataset.units)
        self.region_names = self._words.region_names
        """The names of all regions, by number."""
        self.columns = TokenColumns(vocabulary, unit_names, self.region_names)
        """Makes the columns about tokens in their texts."""
        self._comes_again = comes_again

    def part(self, batches: JoinedBatches, tokens: ScoredTokens) -> tuple[Columns, IntArray | None]:
        """The columns about tokens in their texts, and the place of each token in these.

        Args:
            batches: The batches.
            tokens: Their tokens.

        Returns:
            The columns; the places: (n,), None if there is a value for each token, in order.
        """
        if batches.aligned.all() and self._kept is not None:
            place = self._words.starts[batches.example[tokens.row]] + tokens.position
            if (self._ids.values[place] == tokens.token_id).all():
                return self._kept, place
        words = self.words(batches, tokens.row, tokens.position)
        return Columns(self.columns.of(tokens.token_id, words)), None

    @cached_property
    def _kept(self) -> Columns | None:
        """The columns of all tokens of the data set; None if they are not to be kept."""
        ids, words = self._ids.values, self._words.of_tokens
        if not self._comes_again or len(ids) != len(words.words):
            return None
        width = _WIDTH + max(map(len, self.region_names), default=0)
        if len(ids) * width + sum(len(word or "") for word in words.words) > MOST_KEPT:
            return None
        return Columns(self.columns.of(ids, words), is_kept=True)

    def words(self, batches: JoinedBatches, row: IntArray, position: IntArray) -> TokenWords:
        """The words of labels, from their text where they still are its tokens.

        Args:
            batches: The batches.
            row: The example of each label, counted through the batches: (n,).
            position: Its place in that row: (n,).
        """
        aligned = batches.aligned[row]
        if aligned.all():
            return self._words.at(batches.example[row], position)
        inputs, is_label = batches.whole.inputs, batches.whole.is_label
        labels, input_ids = inputs["labels"].numpy(), inputs["input_ids"].numpy()
        # What is not to be predicted still is part of the words around it.
        instead = input_ids if self._task.labels_parallel_inputs else self._vocabulary.filler
        labels = np.where(labels == IGNORED_LABEL, instead, labels)
        lengths = is_label.sum(dim=1).tolist()
        sequences = [ids[:length] for ids, length in zip(labels, lengths, strict=True)]
        spelled = LabelWords.of_ids(self._vocabulary, sequences)
        return TokenWords.choose(
            aligned,
            self._words.at(batches.example[row[aligned]], position[aligned]),
            spelled.at(row[~aligned], position[~aligned]),
        )

    def for_measures(self, batches: JoinedBatches, tokens: ScoredTokens) -> Tokens:
        """All that measures may ask about where tokens stand.

        Args:
            batches: The batches.
            tokens: Their tokens.
        """
        task, vocabulary, batch = self._task, self._vocabulary, batches.whole
        row, position = tokens.row, tokens.position
        words = self.words(batches, row, position)
        labels, is_label = batch.inputs["labels"].numpy(), batch.is_label.numpy()
        instead = batch.inputs["input_ids"].numpy() if task.labels_parallel_inputs else -1
        ids = np.where(labels == IGNORED_LABEL, instead, labels)
        has_next = position + 1 < ids.shape[1]
        behind = np.where(has_next, position + 1, position)
        has_next &= is_label[row, behind]
        behind = np.where(has_next, behind, position)
        next_id = np.where(has_next, ids[row, behind], -1)
        is_of_text = is_label & ~vocabulary.is_structural(ids)
        is_of_text &= np.arange(ids.shape[1]) >= batch.n_start.numpy()[:, None]
        next_words = self.words(batches, row, behind)
        width = int(words.word_num.max(initial=0)) + 1
        no_word = words.word_num == NO_WORD
        names = np.array([*self.region_names, None], dtype=object)
        return Tokens(
            token_id=tokens.token_id,
            surprisal=spread(tokens.scores.surprisal, tokens.is_predicted),
            word=np.where(no_word, NO_WORD, row * width + words.word_num),
            word_text=words.words,
            num_in_word=words.token_num_in_word,
            straddles=~no_word & (words.token_num_in_word == 0) & ~words.begins_word,
            begins=position == is_of_text.argmax(axis=1)[row],
            ends_word=~has_next | (next_words.word_num != words.word_num),
            next_id=next_id,
            is_cut=self._cuts[batch.example[row]] >= 0,
            in_order=task.predicts_in_order,
            regions=names[np.where(words.region == NO_REGION, -1, words.region)],
        )
