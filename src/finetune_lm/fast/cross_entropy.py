"""Cross-entropy, surprisal and the likeliest token from rows of logits, in one pass.

All three need the same maximum and the same sum of exponentials, and so does the gradient. Rows are
gone through in blocks that stay in a processor's cache meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# A block of rows in float32, in bytes.
_BLOCK = 3 * 2**20
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


def score_targets(logits: Tensor, targets: Tensor, *, overwrite: bool = False) -> TargetScores:
    """Score targets by rows of logits, in float32 whatever the precision of the logits.

    Args:
        logits: (k, vocabulary).
        targets: Token ids, (k,).
        overwrite: Whether the logits may be overwritten by their gradient. Nothing else may need
            them then: not the caller, and not the backward pass of what has made them.
    """
    scores = _ScoreTargets.apply(logits, targets, overwrite)  # type: ignore[no-untyped-call]
    return TargetScores(*scores)


def score_rows(
    logits_of: Callable[[Tensor], Tensor], hidden: Tensor, which: Tensor, targets: Tensor
) -> TargetScores:
    """Score targets several of which may be predicted by the same row. No gradients.

    Args:
        logits_of: Makes logits of rows of hidden states.
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
        logits = logits_of(hidden[begin : begin + n_at_once]).float()
        end = min(begin + n_at_once, len(hidden))
        end_target = int(ends[end - 1])
        chosen = order[begin_target:end_target]
        rows = which[chosen] - begin
        costs, best, ids = _likeliest(logits)
        nll[chosen] = costs[rows] + (best[rows] - logits[rows, targets[chosen]])
        best_id[chosen], best_nll[chosen] = ids[rows], costs[rows]
        begin, begin_target = end, end_target
        n_at_once = max(1, _LOGITS_AT_ONCE // logits.shape[-1])
    return TargetScores(nll.mean(), nll, best_id, best_nll)


def _likeliest(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The likeliest token of each row: what it costs in nats, its logit, and its id: (n,) each."""
    costs, best = logits.new_empty(len(logits)), logits.new_empty(len(logits))
    ids = torch.empty(len(logits), dtype=torch.int64, device=logits.device)
    for block in _blocks(logits):
        z = logits[block]
        best[block], ids[block] = z.amax(dim=-1), _argmax(z)
        costs[block] = (z - best[block, None]).exp_().sum(dim=-1).log_()
    return costs, best, ids


class _ScoreTargets(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, overwrite: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        k = len(logits)
        wants_gradient = ctx.needs_input_grad[0]
        nll = logits.new_empty(k, dtype=torch.float32)
        best_nll = torch.empty_like(nll)
        best_id = torch.empty_like(targets)
        gradient = None
        if wants_gradient:
            gradient = logits if overwrite else torch.empty_like(logits)
        for block in _blocks(logits):
            given = logits[block]
            z = given.float()
            best = z.amax(dim=-1, keepdim=True)
            best_id[block] = _argmax(z)
            target = z.gather(-1, targets[block, None])
            # The logits of a float32 model are not needed any more, if they may be overwritten.
            exponentials = torch.sub(
                z, best, out=z if _is_own(z, given, overwrite) else None
            ).exp_()
            total = exponentials.sum(dim=-1, keepdim=True)
            log_total = total.log()
            best_nll[block] = log_total.squeeze(-1)
            nll[block] = (log_total + (best - target)).squeeze(-1)
            if gradient is not None:
                exponentials.div_(total * k)
                exponentials.scatter_add_(
                    -1, targets[block, None], exponentials.new_full((len(z), 1), -1.0 / k)
                )
                if exponentials.data_ptr() != gradient[block].data_ptr():
                    gradient[block] = exponentials
        ctx.gradient = gradient
        ctx.mark_non_differentiable(nll, best_id, best_nll)
        return nll.mean(), nll, best_id, best_nll

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor, *_: Any) -> tuple[Tensor, None, None]:
        gradient = ctx.gradient
        del ctx.gradient
        # Most often the loss is minimised as it is, and a pass over all logits is saved.
        if upstream.device.type != "cpu" or upstream.item() != 1.0:
            gradient.mul_(upstream)
        return gradient, None, None


def _blocks(logits: Tensor) -> Iterator[slice]:
    """Rows that fit in a processor's cache; on a GPU all of them."""
    n, width = logits.shape
    n_at_once = max(1, _BLOCK // (4 * width)) if logits.device.type == "cpu" else max(n, 1)
    return (slice(begin, begin + n_at_once) for begin in range(0, n, n_at_once))


def _argmax(z: Tensor) -> Tensor:
    # On a CPU numpy finds it in a fraction of the time.
    if z.device.type == "cpu":
        return torch.from_numpy(z.numpy().argmax(axis=-1))
    return z.argmax(dim=-1)


def _is_own(z: Tensor, given: Tensor, overwrite: bool) -> bool:
    """Whether a block may be overwritten: it is a copy, or that is allowed."""
    return overwrite or z.data_ptr() != given.data_ptr()
