"""What came out of a model for one batch, and what its tokens cost by that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from finetune_lm.data.batch import Batch
from finetune_lm.scoring.measuring import Measuring
from finetune_lm.scoring.surprisal import Scores, ScoresToCome, place_of, score_tokens, taken

if TYPE_CHECKING:
    from torch import Tensor

Score = Callable[["Tensor", "Tensor", "Tensor"], ScoresToCome]
"""Tells what tokens cost, given the row and the position of the logits that predict each, and the
tokens: (n,) each."""


@dataclass(frozen=True)
class Outputs:
    """What came out of a model for one batch.

    Attributes:
        for_losses: What losses are given: ``loss``, the model's own, and, unless they say that they
            do not need them, ``logits`` and all else that the model returns; None where a rank has
            no share in a batch.
        score: Tells what tokens cost.
        batch: The batch that all this is about: the one that was asked for, or this rank's share.
        nothing: 0, and still a function of the model, for a rank that has nothing to learn from its
            share. Only where all ranks must go back through the model together.
    """

    for_losses: Any
    score: Score
    batch: Batch
    nothing: Tensor | None = None


def no_scores(rows: Tensor, positions: Tensor, targets: Tensor) -> ScoresToCome:
    """What the tokens of no example cost."""
    return Scores.of_none


def measured_tokens(
    logits: Tensor,
    measuring: Measuring,
    rows: Tensor,
    positions: Tensor,
    targets: Tensor,
) -> ScoresToCome:
    """What tokens cost by a plain model's logits, with what is measured besides."""
    found = measured_at(logits, measuring, rows, positions, targets)
    return taken(*found, rows, positions, targets)


def measured_at(
    logits: Tensor, measuring: Measuring, rows: Tensor, positions: Tensor, targets: Tensor
) -> tuple[ScoresToCome, npt.NDArray[np.int64]]:
    """What tokens cost, with what measures need behind them, and where each is in that."""
    import torch

    n = len(rows)
    rows, positions = measuring.everywhere(rows, positions)
    measurement = measuring.begin(rows, positions, logits.device)
    targets = torch.cat([targets, targets.new_zeros(len(rows) - n)])
    scores = score_tokens(logits, rows, positions, targets, measurement)
    return scores, place_of(measuring.is_label.shape, rows, positions)
