"""Cross-entropy, surprisal and the likeliest token from rows of logits, in one pass.

All three need the same maximum and the same sum of exponentials, and so does the gradient. Rows are
gone through in blocks that stay in a processor's cache meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from finetune_lm.scoring.fast.criterion import blocks

# How many logits there are at a time where no gradients are needed: 128 MB in float32.
_LOGITS_AT_ONCE = 2**25
_ROWS_AT_FIRST = 64


@dataclass(frozen=True)
class TargetScores:
    """What some tokens cost, and what the model would rather have seen; gradients from `loss` only.

    Attributes:
        loss: The mean of `nll`: a tensor of one value.
        nll: What each target costs, in nats: (k,).
        best_id: The likeliest token in its place: (k,).
        best_nll: What that one costs, in nats: (k,).
    """

    loss: Tensor
    nll: Tensor
    best_id: Tensor
    best_nll: Tensor


class CrossEntropy:
    """The mean surprisal of targets, as a `Criterion`, and what each target costs.

    Args:
        targets: Token ids, (k,).
    """

    def __init__(self, targets: Tensor) -> None:
        self._targets = targets
        self._nll = torch.empty_like(targets, dtype=torch.float32)
        self._best_id = torch.empty_like(targets)
        self._best_nll = torch.empty_like(self._nll)

    def judge(self, rows: slice, logits: Tensor, gradient: Tensor | None) -> None:
        """Take some rows in, in float32 whatever the precision of their logits."""
        k = len(self._targets)
        targets, nll = self._targets[rows], self._nll[rows]
        best_id, best_nll = self._best_id[rows], self._best_nll[rows]
        for block in blocks(logits):
            given = logits[block]
            z = given.float()
            target_id = targets[block, None]
            best = z.amax(dim=-1, keepdim=True)
            best_id[block] = _argmax(z)
            target = z.gather(-1, target_id)
            # The logits of a float32 model are not needed any more, if they may be overwritten.
            may_overwrite = z is not given or gradient is logits
            exponentials = torch.sub(z, best, out=z if may_overwrite else None).exp_()
            total = exponentials.sum(dim=-1, keepdim=True)
            log_total = total.log()
            best_nll[block] = log_total.squeeze(-1)
            nll[block] = (log_total + (best - target)).squeeze(-1)
            if gradient is not None:
                exponentials.div_(total * k)
                exponentials.scatter_add_(-1, target_id, torch.full_like(target, -1.0 / k))
                if exponentials is not given:
                    gradient[block] = exponentials

    def results(self) -> tuple[Tensor, ...]:
        """The loss, then `TargetScores.nll`, `best_id` and `best_nll`."""
        return self._nll.mean(), self._nll, self._best_id, self._best_nll


def score_rows(
    logits_of: Callable[[Tensor], AbstractContextManager[Tensor]],
    hidden: Tensor,
    which: Tensor,
    targets: Tensor,
) -> TargetScores:
    """Score targets several of which may be predicted by the same row. No gradients.

    Args:
        logits_of: Makes logits of rows of hidden states, for as long as the context lasts.
        hidden: What the last layer is fed, (n, width).
        which: The row that predicts each target: (k,).
        targets: Token ids, (k,).
    """
    order = which.argsort(stable=True)
    ends = torch.bincount(which, minlength=len(hidden)).cumsum(0)
    nll = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
    best_id, best_nll = torch.empty_like(targets), torch.empty_like(nll)
    begin = begin_target = 0
    n_at_once = _ROWS_AT_FIRST
    while begin < len(hidden):
        end = min(begin + n_at_once, len(hidden))
        end_target = int(ends[end - 1])
        chosen = order[begin_target:end_target]
        rows = which[chosen] - begin
        with logits_of(hidden[begin:end]) as made:
            logits = made.float()
            costs, best, ids = _likeliest(logits)
            nll[chosen] = costs[rows] + (best[rows] - logits[rows, targets[chosen]])
            n_at_once = max(1, _LOGITS_AT_ONCE // logits.shape[-1])
        best_id[chosen], best_nll[chosen] = ids[rows], costs[rows]
        begin, begin_target = end, end_target
    return TargetScores(nll.mean(), nll, best_id, best_nll)


def _likeliest(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The likeliest token of each row: what it costs in nats, its logit, and its id: (n,) each."""
    costs, best = logits.new_empty(len(logits)), logits.new_empty(len(logits))
    ids = torch.empty(len(logits), dtype=torch.int64, device=logits.device)
    for block in blocks(logits):
        z = logits[block]
        best[block], ids[block] = z.amax(dim=-1), _argmax(z)
        costs[block] = (z - best[block, None]).exp_().sum(dim=-1).log_()
    return costs, best, ids


def _argmax(z: Tensor) -> Tensor:
    # On a CPU numpy finds it in a fraction of the time.
    if z.device.type == "cpu":
        return torch.from_numpy(z.numpy().argmax(axis=-1))
    return z.argmax(dim=-1)
