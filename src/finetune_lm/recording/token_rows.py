"""The rows of the tables: one for each token that batches ask the model about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from finetune_lm.data.dataset import Dataset
from finetune_lm.data.label_words import LabelWords
from finetune_lm.data.ragged_arrays import IntArray
from finetune_lm.messages import in_its_mode, warn
from finetune_lm.recording.baseline_surprisals import BaselineSurprisals
from finetune_lm.recording.columns import (
    BASELINE_SURPRISAL,
    GENERATED_SEQUENCE,
    ITEM,
    LABEL_SEQUENCE,
    LR,
    MODE,
    SEED,
    SEEN_IN,
    SEQUENCE_TYPE,
    STEP,
)
from finetune_lm.recording.joined_batches import JoinedBatches
from finetune_lm.recording.measure_columns import measure_columns
from finetune_lm.recording.run_columns import RunColumns
from finetune_lm.recording.scored_tokens import ScoredTokens
from finetune_lm.recording.shared_rows import MOST_KEPT, Columns, Rows
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
        constants = {
            "model_name": pa.array([run.model_name]),
            "task": pa.array([run.task.name]),
            "n_params": pa.array([run.n_params]),
            "dataset_name": pa.array([self.dataset_name]),
            "dataset_type": pa.array([dataset_type]),
            SEED: pa.array([run.seed]),
        }
        if run.mode is not None:
            constants[MODE] = pa.array([run.mode])
        self.pll = None if run.task.predicts_in_order else dataset.preprocessing.pll
        """Which pseudo-log-likelihood a table of words has; None where a text has a likelihood."""
        if run.with_pll:
            constants[PLL] = pa.array([self.pll], pa.string())
        self._constants = Columns(constants, is_kept=True)
        metadata = dataset.metadata
        items: list[Any] = (
            [m.get(ITEM) for m in metadata]
            if any(ITEM in m for m in metadata)
            else dataset.example_nums.tolist()
        )
        of_example: dict[str, pa.Array] = {
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
            of_example[SEEN_IN] = pa.array(
                [seen_in[i] if seen_in else None for i in dataset.example_nums.tolist()],
                pa.string(),
            )
        comes_again = dataset_type != "test"
        n_bytes = sum(values.nbytes for values in of_example.values())
        self._of_example = Columns(of_example, is_kept=comes_again and n_bytes <= MOST_KEPT)
        self.before = BaselineSurprisals() if run.has_baseline and dataset_type != "train" else None
        self._texts = TokensInTexts(
            dataset, run.task, run.vocabulary, run.metadata.unit_names, comes_again=comes_again
        )

    def of_batches(self, measured: Sequence[Measured]) -> Rows:
        """The rows of batches of one pass, one after another.

        Args:
            measured: What came of each. Losses that one does not have are missing.

        Returns:
            Rows with the columns of `table_columns`, in no particular order, and of a masked model
            with ``pll``, which tables of words have.
        """
        batches = JoinedBatches([each.batch for each in measured])
        sizes = [len(each.batch) for each in measured]
        tokens = ScoredTokens.joined([_asked(each) for each in measured], sizes)
        examples = self._of_examples(measured, batches, sizes)
        in_text, place = self._texts.part(batches, tokens)
        costs = self._costs(tokens)
        if self.run.has_baseline:
            is_first = measured[0].epoch < 0
            costs[BASELINE_SURPRISAL] = self._costs_before(batches, tokens, is_first=is_first)
        if self.run.measures:
            places = None
            if any(hasattr(measure, "finish") for measure in self._measures):
                places = self._texts.for_measures(batches, tokens)
            found: dict[str, npt.NDArray[np.float32]] = {}
            for measure in self._measures:
                found |= finished(measure, tokens.scores, tokens.is_predicted, places)
            costs |= measure_columns(self.run.measures, found, len(tokens))
        if not self.run.task.reports_greedy_rows:
            return Rows([(examples, tokens.row), (in_text, place), (Columns(costs), None)])
        of_labels = Rows([(in_text, place), (Columns(costs), None)])
        columns = {name: of_labels.array(name) for name in of_labels.names}
        columns[SEQUENCE_TYPE] = pa.repeat(LABEL_SEQUENCE, len(tokens))
        columns = _interleaved(tokens.row, columns, self._greedy_columns(len(batches), tokens))
        return Rows([(examples, tokens.row.repeat(2)), (Columns(columns), None)])

    def _of_examples(
        self, measured: Sequence[Measured], batches: JoinedBatches, sizes: Sequence[int]
    ) -> Rows:
        """What all rows of an example of some batches have in common."""
        of_batch = np.repeat(np.arange(len(measured)), sizes)
        texts = {
            "input_text": pa.array(batches.input_texts, pa.string()),
            "input_label": pa.array(batches.input_labels, pa.string()),
        }
        return Rows(
            [
                (self._constants, np.zeros(len(batches), dtype=np.int64)),
                (Columns(self._of_batch(measured)), of_batch),
                self._of_example.at(batches.example),
                (Columns(texts), None),
            ]
        )

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
        known, examples = self._constants, self._of_example
        constants = [f"{name}={known.array(name)[0]}" for name in known.names if name != SEED]
        types = [f"{name}: {examples.array(name).type}" for name in examples.names]
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

    def _costs(self, tokens: ScoredTokens) -> dict[str, pa.Array]:
        """The columns of what tokens cost, and of what the model would rather have seen."""
        is_predicted, scores = tokens.is_predicted, tokens.scores

        def spread(values: npt.NDArray[Any]) -> pa.Array:
            everywhere = np.zeros(len(tokens), dtype=values.dtype)
            everywhere[is_predicted] = values
            return pa.array(everywhere, mask=~is_predicted)

        predicted_text = np.empty(len(tokens), dtype=object)
        predicted_text[is_predicted] = self.run.vocabulary.texts(scores.predicted_token_id)
        return {
            "surprisal": spread(scores.surprisal),
            "predicted_token": pa.array(predicted_text, pa.string()),
            "predicted_token_id": spread(scores.predicted_token_id),
            "predicted_token_surprisal": spread(scores.predicted_token_surprisal),
        }

    def _costs_before(
        self, batches: JoinedBatches, tokens: ScoredTokens, *, is_first: bool
    ) -> pa.Array:
        """What each token cost before the training; in that pass, the first, what it costs."""
        if self.before is None:
            return pa.nulls(len(tokens), pa.float32())
        if is_first:
            surprisal = spread(tokens.scores.surprisal, tokens.is_predicted)
            self.before.keep(batches.whole, tokens.row, surprisal)
            return pa.array(surprisal, mask=~tokens.is_predicted)
        values, is_there = self.before.of(batches.whole, tokens.row)
        return pa.array(values, mask=~(is_there & tokens.is_predicted))

    def _greedy_columns(self, n: int, tokens: ScoredTokens) -> dict[str, pa.Array]:
        """The columns of rows for the model's own best token at each position of the labels.

        Args:
            n: How many examples there are.
            tokens: Their tokens.
        """
        row, scores = tokens.row, tokens.scores
        ids = scores.predicted_token_id
        begins = np.searchsorted(row, np.arange(n + 1))
        sequences = [ids[begins[i] : begins[i + 1]] for i in range(n)]
        place = np.arange(len(row)) - begins[row]
        words = LabelWords.of_ids(self.run.vocabulary, sequences).at(row, place)
        best = Scores(scores.predicted_token_surprisal, ids, scores.predicted_token_surprisal)
        everywhere = np.ones(len(row), dtype=bool)
        likeliest = ScoredTokens(row, place, ids, everywhere, lambda: best)
        columns = self._texts.columns.of(ids, words) | self._costs(likeliest)
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
