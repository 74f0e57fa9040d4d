"""How well a model does on the pairs of the validation data: what an epoch may be judged by."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from finetune_lm.analysis.comparisons import PAIRS, PREDICTIONS, Comparisons, Wanted
from finetune_lm.analysis.sentence_costs import SentenceCosts
from finetune_lm.constants import BY_LOSS, BY_PAIR_ACCURACY, BY_PAIR_DIFFERENCE
from finetune_lm.formulas import parse_prediction
from finetune_lm.recording.columns import MetadataColumns
from finetune_lm.recording.recorder import Measured
from finetune_lm.recording.run_columns import RunColumns
from finetune_lm.recording.token_rows import TokenRows

if TYPE_CHECKING:
    from finetune_lm.arguments import DataTrainingArguments
    from finetune_lm.data.dataset import Dataset
    from finetune_lm.models.loading import LoadedModel


class PairNumbers:
    """Accuracy and mean difference of the pairs and predictions of a data set.

    Args:
        dataset: The data.
        rows: Makes the rows of its tokens.
        args: Over which region pairs are scored.
    """

    def __init__(self, dataset: Dataset, rows: TokenRows, args: DataTrainingArguments) -> None:
        self.rows = rows
        metadata: list[dict[str, Any]] = [{} for _ in range(int(dataset.example_nums.max()) + 1)]
        for number, values in zip(dataset.example_nums.tolist(), dataset.metadata, strict=True):
            metadata[number] = values
        formulas = [parse_prediction(text, dataset.path) for text in dataset.predictions]
        self._comparisons = Comparisons(metadata, Wanted(region=Wanted.of(args).region), formulas)

    @classmethod
    def of(
        cls, dataset_type: str, dataset: Dataset, loaded: LoadedModel, args: DataTrainingArguments
    ) -> PairNumbers | None:
        """Those of a data set that epochs are judged by; None of others."""
        if dataset_type != "validation" or args.select_by == BY_LOSS or not dataset.has_pairs:
            return None
        metadata = MetadataColumns([dataset.metadata], [dataset.path])
        columns = RunColumns.of(loaded, args.seed, metadata)
        return cls(dataset, TokenRows(dataset, dataset_type, columns), args)

    def take_in(self, costs: SentenceCosts, measured: Measured) -> None:
        """Add what the tokens of a batch cost to that of their sentences."""
        rows = self.rows.of_batches([measured]).table
        costs.add(rows, rows["example_num"].to_numpy().astype(np.int64))

    def of_costs(self, costs: SentenceCosts) -> dict[str, float]:
        """Both numbers by name, not numbers where no pair has a score."""
        found = [
            columns
            for _, columns in self._comparisons.of_costs(costs)
            if columns["comparison"][0].as_py() in (PAIRS, PREDICTIONS)
        ]
        return {
            BY_PAIR_ACCURACY: _mean([columns["correct"] for columns in found]),
            BY_PAIR_DIFFERENCE: _mean([columns["difference"] for columns in found]),
        }


def _mean(arrays: list[pa.Array]) -> float:
    mean = pc.mean(pa.chunked_array(arrays, pa.float64())).as_py()
    return math.nan if mean is None else float(mean)
