"""KL(baseline || model) of rows of logits, with its gradient, in little memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from finetune_lm.data.batch import to_device

# How many logits are looked at together: rows that stay in a processor's cache while they are gone
# through several times, and temporaries that are small beside the logits.
_LOGITS_AT_ONCE = 2**18
# On a GPU, where each operation must be worth launching: 256 MB in float32.
_LOGITS_AT_ONCE_ON_A_GPU = 2**26
# Two predictions are equal if no probability differs by more. The same weights come so close, since
# the baseline's predictions are computed with other examples than the model's.
_ROUNDING = {torch.float32: 1e-5, torch.float64: 0.0}

BaselineLogits = Callable[[slice], AbstractContextManager[Tensor]]
"""The baseline's logits for some of the rows, for as long as the context lasts."""


class KLDivergence:
    """A weighted sum of the divergences of rows, as a `scoring.fast.criterion.Criterion`.

    Args:
        baseline_logits: What the untouched model predicts.
        weights: Of each row: (k,).
        left_out: Entries of the vocabulary that do not count; nor does what only one of the models
            has.
        per_entry: Whether the divergences are divided by the number of entries that count.
    """

    def __init__(
        self,
        baseline_logits: BaselineLogits,
        weights: Tensor,
        left_out: Sequence[int] = (),
        *,
        per_entry: bool = False,
    ) -> None:
        self._baseline_logits = baseline_logits
        self._weights = weights
        self._left_out = left_out
        self._per_entry = per_entry
        self._total: Tensor | None = None

    def judge(self, rows: slice, logits: Tensor, gradient: Tensor | None) -> None:
        """Take some rows in, in float32 or better, whatever the precision of their logits."""
        with self._baseline_logits(rows) as baseline_logits:
            width = min(logits.shape[-1], baseline_logits.shape[-1])
            left_out = [i for i in self._left_out if i < width]
            weights = self._weights[rows].to(_computed_in(logits))
            if self._per_entry:
                weights = weights / (width - len(left_out))
            for block in _blocks(logits):
                q, p = logits[block, :width], baseline_logits[block, :width]
                if left_out:
                    q, p = (without(each, left_out) for each in (q, p))
                of_rows = gradient[block, :width] if gradient is not None else None
                total = (divergence(q, p, weights[block], of_rows) * weights[block]).sum()
                self._total = total if self._total is None else self._total + total
            if gradient is not None:
                gradient[:, width:] = 0.0

    def results(self) -> tuple[Tensor, ...]:
        """The sum, a tensor of one value."""
        assert self._total is not None
        return (self._total,)


def without(logits: Tensor, entries: Sequence[int]) -> Tensor:
    """Logits in which some entries of the vocabulary have no probability."""
    index = to_device(torch.tensor(entries), logits.device)
    return logits.index_fill(-1, index, -torch.inf)


def divergence(
    model_logits: Tensor, baseline_logits: Tensor, weights: Tensor, gradient: Tensor | None
) -> Tensor:
    """The divergence of each of a few rows.

    With p the baseline's and q the model's probabilities, KL = sum_v p_v (ln p_v - ln q_v), and its
    derivative by the model's logit of v is q_v - p_v; 0 where all of these are no more than
    rounding. Logarithms of probabilities are differences
    of logits and of logarithms of sums, so only exponentials of the logits are needed.

    Args:
        model_logits: (n, vocabulary).
        baseline_logits: (n, vocabulary).
        weights: What the derivative of each row is multiplied by: (n,).
        gradient: Where to leave it, (n, vocabulary), perhaps in the model's logits; or None.

    Returns:
        (n,), in nats, not weighted.
    """
    kind = weights.dtype
    q, p = model_logits.to(kind), baseline_logits.to(kind)
    into = gradient if gradient is not None and gradient.dtype == kind else None
    q = torch.sub(q, q.amax(dim=-1, keepdim=True), out=into)
    p = p - p.amax(dim=-1, keepdim=True)
    difference = p - q
    q, p = q.exp_(), p.exp_()
    sum_q, sum_p = q.sum(dim=-1, keepdim=True), p.sum(dim=-1, keepdim=True)
    # A token that the baseline rules out (a logit of -inf) adds nothing: 0 ln 0 is 0.
    terms = difference.mul_(p)
    expected = terms.sum(dim=-1)
    if p.device.type != "cpu" or not bool(expected.isfinite().all()):
        expected = terms.masked_fill_(p == 0, 0.0).sum(dim=-1)
    # Rounding can take what is 0 a little below.
    found = (expected / sum_p[:, 0] + (sum_q.log() - sum_p.log())[:, 0]).clamp_(min=0.0)
    if gradient is not None:
        of_rows = q.div_(sum_q).sub_(p.div_(sum_p))
        # An optimizer like Adam would make steps of full size of what is rounding.
        largest = torch.maximum(of_rows.amax(dim=-1), -of_rows.amin(dim=-1))
        is_rounding = largest <= _ROUNDING[kind]
        of_rows.mul_(weights.masked_fill(is_rounding, 0.0)[:, None])
        if into is None:
            gradient.copy_(of_rows)
    return found


class _KLDivergence(torch.autograd.Function):
    """The divergence of each row, for gradients that are wanted of each on its own."""

    @staticmethod
    def forward(ctx: Any, model_logits: Tensor, baseline_logits: Tensor) -> Tensor:
        kind = _computed_in(model_logits)
        found = torch.empty(len(model_logits), dtype=kind, device=model_logits.device)
        gradient = torch.empty_like(model_logits) if ctx.needs_input_grad[0] else None
        for block in _blocks(model_logits):
            found[block] = divergence(
                model_logits[block],
                baseline_logits[block],
                torch.ones_like(found[block]),
                gradient[block] if gradient is not None else None,
            )
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return found

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[:, None].to(gradient.dtype), None


def kl_divergence(model_logits: Tensor, baseline_logits: Tensor) -> Tensor:
    """KL(baseline || model) of each row, in nats.

    Computed in float32 (in float64 for such logits), whatever the precision of the logits.

    Args:
        model_logits: (k, vocabulary). Gradients go to these only.
        baseline_logits: (k, vocabulary).

    Returns:
        (k,).

    Example:
        >>> p = torch.tensor([[0.5, 0.5]]).log()
        >>> q = torch.tensor([[0.25, 0.75]]).log()
        >>> round(kl_divergence(q, p).item(), 4)  # 0.5 ln(0.5/0.25) + 0.5 ln(0.5/0.75)
        0.1438
    """
    found: Tensor = _KLDivergence.apply(model_logits, baseline_logits)  # type: ignore[no-untyped-call]
    return found


def _blocks(logits: Tensor) -> Iterator[slice]:
    on_cpu = logits.device.type == "cpu"
    at_once = _LOGITS_AT_ONCE if on_cpu else _LOGITS_AT_ONCE_ON_A_GPU
    n_at_once = max(1, at_once // logits.shape[-1])
    return (slice(begin, begin + n_at_once) for begin in range(0, len(logits), n_at_once))


def _computed_in(logits: Tensor) -> torch.dtype:
    return torch.float64 if logits.dtype == torch.float64 else torch.float32
