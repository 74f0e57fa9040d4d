"""What those tokens of batches cost that have rows: numbers, of which no rows are made yet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from finetune_lm.data.batch import Batch
from finetune_lm.data.ragged_arrays import IntArray
from finetune_lm.models.tasks import Task
from finetune_lm.scoring.surprisal import Scores, ScoresToCome

if TYPE_CHECKING:
    from torch import Tensor

    from finetune_lm.scoring.outputs import Score


@dataclass(frozen=True)
class ScoredTokens:
    """The tokens of a batch that have a row in the table, n of them.

    Attributes:
        row: The batch's row of each, in order: (n,).
        position: Its place among the labels of that row: (n,).
        token_id: Each of them: (n,).
        is_predicted: Whether anything predicts it: (n,).
        coming: Returns what those cost that are predicted, once it is there.
    """

    row: IntArray
    position: IntArray
    token_id: IntArray
    is_predicted: npt.NDArray[np.bool_]
    coming: ScoresToCome

    def __len__(self) -> int:
        return len(self.row)

    @cached_property
    def scores(self) -> Scores:
        """What those cost that are predicted. Waits for it."""
        return self.coming()

    @classmethod
    def of(cls, batch: Batch, task: Task, score: Score) -> Self:
        """Ask now what the tokens of a batch cost.

        Args:
            batch: The batch.
            task: The kind of model that it goes into.
            score: Tells what came of it.
        """
        labels = batch.inputs["labels"]
        reported = task.reported(batch.inputs, batch.n_start, batch.is_label)
        rows, positions = reported.nonzero(as_tuple=True)
        targets = labels[rows, positions]
        is_predicted = positions >= task.label_offset
        coming = score(
            rows[is_predicted],
            (positions - task.label_offset)[is_predicted],
            targets[is_predicted],
        )
        return cls(rows.numpy(), positions.numpy(), targets.numpy(), is_predicted.numpy(), coming)

    @classmethod
    def joined(cls, parts: Sequence[ScoredTokens], sizes: Iterable[int]) -> ScoredTokens:
        """The tokens of several batches as those of one.

        Args:
            parts: The tokens of each.
            sizes: How many examples each has.
        """
        if len(parts) == 1:
            return parts[0]
        begins = np.cumsum([0, *sizes])
        scores = [part.scores for part in parts]
        ends = np.cumsum([len(each.surprisal) for each in scores])
        places = [
            np.arange(end - len(s.surprisal), end) for s, end in zip(scores, ends, strict=True)
        ]
        return cls(
            np.concatenate([part.row + n for part, n in zip(parts, begins, strict=False)]),
            np.concatenate([part.position for part in parts]),
            np.concatenate([part.token_id for part in parts]),
            np.concatenate([part.is_predicted for part in parts]),
            lambda: Scores.joined(scores, places),
        )


def of_shares(shares: Sequence[Scores], ranks: IntArray) -> Score:
    """What the tokens of a batch cost, of which each rank has found those of its share.

    Args:
        shares: They, by rank.
        ranks: Which rank has had each example: (n,).
    """

    def score(rows: Tensor, positions: Tensor, targets: Tensor) -> ScoresToCome:
        rank = ranks[rows.numpy()]
        joined = Scores.joined(shares, [np.flatnonzero(rank == i) for i in range(len(shares))])
        return lambda: joined

    return score
