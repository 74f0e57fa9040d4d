"""The rows of the tables: one for each token that batches ask the model about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from finetune_lm.data.batch import Batch
from finetune_lm.data.dataset import Dataset
from finetune_lm.data.label_words import LabelWords, TokenWords
from finetune_lm.data.ragged_arrays import IntArray
from finetune_lm.data.units import NO_REGION
from finetune_lm.data.words import NO_PLACE, NO_WORD
from finetune_lm.messages import in_its_mode, warn
from finetune_lm.recording.baseline_surprisals import BaselineSurprisals
from finetune_lm.recording.columns import (
    BASELINE_SURPRISAL,
    GENERATED_SEQUENCE,
    ITEM,
    LABEL_SEQUENCE,
    LR,
    MODE,
    REGION,
    SEED,
    SEEN_IN,
    SEQUENCE_TYPE,
    STEP,
    STRADDLES,
)
from finetune_lm.recording.measure_columns import measure_columns
from finetune_lm.recording.run_columns import RunColumns
from finetune_lm.recording.scored_tokens import ScoredTokens
from finetune_lm.recording.tokens_in_texts import TokensInTexts
from finetune_lm.recording.word_columns import PLL
from finetune_lm.scoring.measuring import finished, spread
from finetune_lm.scoring.surprisal import Scores

if TYPE_CHECKING:
    from finetune_lm.recording.recorder import Measured


class TokenRows:
    """Makes the rows of one data set.

    What does not change from epoch to epoch (words, metadata) is prepared here, once; batches add
    four numbers for each token.

    Args:
        dataset: The data set.
        dataset_type: ``train``, ``validation`` or ``test``.
        run: What all rows have in common.
        dataset_name: How the tables call the data set; by default by its own name.
        measures: What is measured of its tokens besides.

    Attributes:
        before: What its tokens cost before the training, if that is measured.
        n_seen: How many tokens were asked about that have rows.
    """

    def __init__(
        self,
        dataset: Dataset,
        dataset_type: str,
        run: RunColumns,
        dataset_name: str | None = None,
        measures: Sequence[Any] = (),
    ) -> None:
        self.dataset = dataset
        self._measures = measures
        self.run = run
        self.n_seen = 0
        self._has_warned = False
        self.dataset_name = dataset_name or dataset.name
        """How the tables call the data set."""
        self._constants: dict[str, pa.Scalar] = {
            "model_name": pa.scalar(run.model_name),
            "task": pa.scalar(run.task.name),
            "n_params": pa.scalar(run.n_params),
            "dataset_name": pa.scalar(self.dataset_name),
            "dataset_type": pa.scalar(dataset_type),
            SEED: pa.scalar(run.seed),
        }
        if run.mode is not None:
            self._constants[MODE] = pa.scalar(run.mode)
        self.pll = None if run.task.predicts_in_order else dataset.preprocessing.pll
        """Which pseudo-log-likelihood a table of words has; None where a text has a likelihood."""
        if run.with_pll:
            self._constants[PLL] = pa.scalar(self.pll, pa.string())
        metadata = dataset.metadata
        items: list[Any] = (
            [m.get(ITEM) for m in metadata]
            if any(ITEM in m for m in metadata)
            else dataset.example_nums.tolist()
        )
        self._of_example: dict[str, pa.Array] = {
            "example_num": pa.array(dataset.example_nums),
            ITEM: run.metadata.array(ITEM, items),
            "original_text": pa.array(dataset.texts),
            **{
                name: run.metadata.array(name, [m.get(name) for m in metadata])
                for name in run.metadata.names
            },
        }
        if not run.losses:
            seen_in = run.seen_in.get(dataset.path)
            self._of_example[SEEN_IN] = pa.array(
                [seen_in[i] if seen_in else None for i in dataset.example_nums.tolist()],
                pa.string(),
            )
        self.before = BaselineSurprisals() if run.has_baseline and dataset_type != "train" else None
        self._texts = TokensInTexts(dataset, run.task, run.vocabulary)

    def of_batches(self, measured: Sequence[Measured]) -> pa.Table:
        """The rows of batches of one pass, one after another.

        Args:
            measured: What came of each. Losses that one does not have are missing.

        Returns:
            A table with the columns of `table_columns`, in no particular order, and of a masked
            model with ``pll``, which tables of words have.
        """
        batch = Batch.joined([each.batch for each in measured])
        parts = [_asked(each) for each in measured]
        tokens = ScoredTokens.joined(parts, [len(each.batch) for each in measured])
        words = self._texts.words(batch, tokens.row, tokens.position)
        columns = self._columns(batch, tokens, words)
        if self.run.has_baseline:
            is_first = measured[0].epoch < 0
            columns[BASELINE_SURPRISAL] = self._costs_before(batch, tokens, is_first=is_first)
        if self.run.measures:
            places = None
            if any(hasattr(measure, "finish") for measure in self._measures):
                places = self._texts.for_measures(batch, tokens, words)
            found: dict[str, npt.NDArray[np.float32]] = {}
            for measure in self._measures:
                found |= finished(measure, tokens.scores, tokens.is_predicted, places)
            columns |= measure_columns(self.run.measures, found, len(tokens))
        if self.run.task.reports_greedy_rows:
            columns[SEQUENCE_TYPE] = pa.repeat(LABEL_SEQUENCE, len(tokens))
            columns = _interleaved(tokens.row, columns, self._greedy_columns(batch, tokens))
        n = len(columns["token"])
        columns |= {name: pa.repeat(value, n) for name, value in self._constants.items()}
        n_rows = np.array([len(part) for part in parts])
        if self.run.task.reports_greedy_rows:
            n_rows *= 2
        of_batch = pa.array(np.repeat(np.arange(len(measured)), n_rows))
        for name, values in self._of_batch(measured).items():
            columns[name] = values.take(of_batch)
        return pa.Table.from_arrays(list(columns.values()), list(columns))

    def _of_batch(self, measured: Sequence[Measured]) -> dict[str, pa.Array]:
        """What all rows of a batch have in common, by column: a value for each batch."""
        columns = {
            "batch_number": pa.array([each.number for each in measured], pa.int64()),
            "epoch": pa.array([each.epoch for each in measured], pa.int64()),
        }
        if measured[0].step is not None:
            columns[STEP] = pa.array([each.step for each in measured], pa.int64())
        for name in self.run.losses:
            losses = [(each.losses or {}).get(name) for each in measured]
            columns[name] = pa.array(losses, pa.float32())
        if self.run.losses:
            columns[LR] = pa.array([each.lr for each in measured], pa.float64())
        return columns

    def describe(self) -> list[str]:
        """What the columns are, beside the numbers: constants, names and types."""
        constants = [f"{name}={value}" for name, value in self._constants.items() if name != SEED]
        types = [f"{name}: {values.type}" for name, values in self._of_example.items()]
        measures = [f"{name}: {kind}" for name, kind in self.run.measures.items()]
        return [*constants, *types, *measures]

    def warn_if_empty(self) -> None:
        """Say so, once, if the data set has been gone through and nothing of it was reported."""
        if self.n_seen == 0 and not self._has_warned:
            self._has_warned = True
            warn(
                f"{self.dataset.name} has no rows in the tables{in_its_mode(self.run.mode)}: the "
                f"model sees every token that it is to predict. Put masks into the texts, or give "
                f"a data_preprocessing_fn."
            )

    def _columns(
        self, batch: Batch, tokens: ScoredTokens, words: TokenWords
    ) -> dict[str, pa.Array]:
        """The columns that differ from example to example and from token to token.

        Args:
            batch: The batch.
            tokens: The tokens.
            words: The word of each token.
        """
        row, token_id, is_predicted = tokens.row, tokens.token_id, tokens.is_predicted
        scores = tokens.scores
        row_index, example_index = pa.array(row), pa.array(batch.example[row])
        columns = {name: values.take(example_index) for name, values in self._of_example.items()}
        columns["input_text"] = pa.array(batch.input_texts, pa.string()).take(row_index)
        columns["input_label"] = pa.array(batch.input_labels, pa.string()).take(row_index)

        word_num, token_num = words.word_num, words.token_num_in_word
        no_word = word_num == NO_WORD
        columns["word_num"] = pa.array(word_num, mask=no_word)
        columns["word"] = pa.array(words.words, pa.string())
        columns["token_num_in_word"] = pa.array(token_num, mask=no_word)
        columns["token"] = pa.array(self.run.vocabulary.texts(token_id), pa.string())
        columns["token_id"] = pa.array(token_id)
        nowhere = words.start == NO_PLACE
        columns["token_start"] = pa.array(words.start, mask=nowhere)
        columns["token_end"] = pa.array(words.end, mask=nowhere)
        columns["token_is_start_of_word"] = pa.array(words.begins_word)
        columns["token_is_word"] = pa.array(words.is_word)
        columns["is_target"] = pa.array(~self.run.vocabulary.is_special(token_id))
        columns["is_unknown"] = pa.array(self.run.vocabulary.is_unknown(token_id))

        if REGION in self.run.metadata.unit_names:
            names = pa.array(self._texts.region_names, pa.string())
            number = pa.array(words.region, mask=words.region == NO_REGION)
            columns[REGION] = names.take(number)
        if STRADDLES in self.run.metadata.unit_names:
            columns[STRADDLES] = pa.array(words.straddles, mask=nowhere)

        def spread(values: npt.NDArray[Any]) -> pa.Array:
            everywhere = np.zeros(len(row), dtype=values.dtype)
            everywhere[is_predicted] = values
            return pa.array(everywhere, mask=~is_predicted)

        predicted_text = np.empty(len(row), dtype=object)
        predicted_text[is_predicted] = self.run.vocabulary.texts(scores.predicted_token_id)
        columns["surprisal"] = spread(scores.surprisal)
        columns["predicted_token"] = pa.array(predicted_text, pa.string())
        columns["predicted_token_id"] = spread(scores.predicted_token_id)
        columns["predicted_token_surprisal"] = spread(scores.predicted_token_surprisal)
        return columns

    def _costs_before(self, batch: Batch, tokens: ScoredTokens, *, is_first: bool) -> pa.Array:
        """What each token cost before the training; in that pass, the first, what it costs."""
        if self.before is None:
            return pa.nulls(len(tokens), pa.float32())
        if is_first:
            surprisal = spread(tokens.scores.surprisal, tokens.is_predicted)
            self.before.keep(batch, tokens.row, surprisal)
            return pa.array(surprisal, mask=~tokens.is_predicted)
        values, is_there = self.before.of(batch, tokens.row)
        return pa.array(values, mask=~(is_there & tokens.is_predicted))

    def _greedy_columns(self, batch: Batch, tokens: ScoredTokens) -> dict[str, pa.Array]:
        """The columns of rows for the model's own best token at each position of the labels."""
        row, scores = tokens.row, tokens.scores
        ids = scores.predicted_token_id
        begins = np.searchsorted(row, np.arange(len(batch) + 1))
        sequences = [ids[begins[i] : begins[i + 1]] for i in range(len(batch))]
        place = np.arange(len(row)) - begins[row]
        words = LabelWords.of_ids(self.run.vocabulary, sequences).at(row, place)
        best = Scores(scores.predicted_token_surprisal, ids, scores.predicted_token_surprisal)
        everywhere = np.ones(len(row), dtype=bool)
        columns = self._columns(batch, ScoredTokens(row, place, ids, everywhere, best), words)
        columns[SEQUENCE_TYPE] = pa.repeat(GENERATED_SEQUENCE, len(row))
        columns["is_target"] = pa.repeat(False, len(row))
        # Measures are about the tokens that the data have.
        kinds = dict(self.run.measures)
        if self.run.has_baseline:
            kinds[BASELINE_SURPRISAL] = pa.float32()
        return columns | {name: pa.nulls(len(row), kind) for name, kind in kinds.items()}


def _asked(measured: Measured) -> ScoredTokens:
    assert measured.tokens is not None
    return measured.tokens


def _interleaved(
    row: IntArray, first: Mapping[str, pa.Array], second: Mapping[str, pa.Array]
) -> dict[str, pa.Array]:
    """Both, example by example, within each the rows of the first before the second's."""
    order = pa.array(np.argsort(np.concatenate([row, row]), kind="stable"))
    return {
        name: pa.concat_arrays([values, second[name]]).take(order) for name, values in first.items()
    }
