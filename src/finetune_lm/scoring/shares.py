"""What several ranks do with a batch: each has its share of it, or all call a split model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_lm.data.batch import Batch
from finetune_lm.data.ragged_arrays import IntArray
from finetune_lm.ranks import world
from finetune_lm.scoring.measuring import Measuring
from finetune_lm.scoring.outputs import Outputs, Score, measured_at, no_scores
from finetune_lm.scoring.surprisal import taken

if TYPE_CHECKING:
    from torch import Tensor

    from finetune_lm.scoring.scorer import Scorer


def ranks_of(batch: Batch) -> IntArray:
    """Which rank deals with each example of a batch that is not known to all: (n,)."""
    n_tokens = batch.inputs["attention_mask"].sum(dim=1) + batch.is_label.sum(dim=1)
    return world().dealt(n_tokens.numpy())


def of_this_rank(batch: Batch) -> Batch:
    """The examples of a batch that this process deals with."""
    return batch.select(np.flatnonzero(ranks_of(batch) == world().rank))


def called_together(
    whole: Batch,
    share: Batch,
    plain: Callable[[Batch], Outputs],
    scorer: Scorer,
    measures: Sequence[Any],
) -> Outputs:
    """The outputs of a model that is split among ranks, which all call it equally often.

    Args:
        whole: The batch of all ranks.
        share: This rank's share, which may be none of its examples.
        plain: Calls the model with a batch, the plain way.
        scorer: The model's.
        measures: What is measured of the tokens besides.
    """
    called = share if len(share) else whole.select(slice(1))
    outputs = plain(called)
    logits = outputs.for_losses.logits
    if measures:
        some = slice(None) if len(share) else slice(0)
        outputs = replace(outputs, score=_measured_now(called, logits, scorer, measures, some))
    nothing = logits.reshape(-1)[0].nan_to_num() * 0.0  # also where it is infinite
    if logits.requires_grad and logits._is_view():
        # A loss that changes a view would undo what puts the weights together for the way back.
        outputs.for_losses.logits = logits.clone()
    if not len(share):
        return Outputs(None, no_scores, share, nothing)
    return replace(outputs, nothing=nothing)


def _measured_now(
    batch: Batch, logits: Tensor, scorer: Scorer, measures: Sequence[Any], some: slice
) -> Score:
    """What some of the tokens cost, with what is measured besides, found out now.

    A measure may call the untouched model, which is split as well: ranks that are asked about
    nothing call it, too.
    """
    inputs, rows, positions, targets = scorer.asked(batch)
    measuring = Measuring(measures, inputs, batch.is_label)
    found = measured_at(logits, measuring, rows[some], positions[some], targets[some])
    return partial(taken, *found)
