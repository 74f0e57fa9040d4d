"""What is asked of the pairs of a run's data sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from finetune_lm.analysis.comparisons import Wanted
from finetune_lm.analysis.pairs import Asked, start_token_of
from finetune_lm.evaluation.splits import Split

if TYPE_CHECKING:
    from finetune_lm.arguments import DataTrainingArguments


def asked_of_pairs(args: DataTrainingArguments, splits: Sequence[Split]) -> Asked:
    """What is asked of data sets of one type, those among them that have pairs.

    Args:
        args: Contrasts and the region of pairs.
        splits: The data sets, with their names in the tables.
    """
    compared = [split for split in splits if split.dataset.has_pairs]
    predictions = {_name(split): split.dataset.predictions for split in compared}
    return Asked(
        Wanted.of(args),
        predictions,
        list(predictions),
        start_token_of(compared[0].dataset.start_tokens) if compared else None,
    )


def _name(split: Split) -> str:
    assert split.rows is not None
    return split.rows.dataset_name
