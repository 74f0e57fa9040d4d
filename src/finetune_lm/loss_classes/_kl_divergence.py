"""KL(baseline || model) of rows of logits, with its gradient, in little memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# How many logits are looked at together: rows that stay in a processor's cache while they are gone
# through several times, and temporaries that are small beside the logits.
_LOGITS_AT_ONCE = 2**18


class _KLDivergence(torch.autograd.Function):
    """The divergence and its gradient in one pass over blocks of rows.

    With p the baseline's and q the model's probabilities, KL = sum_v p_v (ln p_v - ln q_v), and its
    derivative by the model's logit of v is q_v - p_v.
    """

    @staticmethod
    def forward(ctx: Any, model_logits: Tensor, baseline_logits: Tensor) -> Tensor:
        n, width = model_logits.shape
        divergence = torch.empty(n, dtype=_computed_in(model_logits), device=model_logits.device)
        wants_gradient = ctx.needs_input_grad[0]
        gradient = torch.empty_like(model_logits) if wants_gradient else None
        n_at_once = max(1, _LOGITS_AT_ONCE // width)
        for begin in range(0, n, n_at_once):
            block = slice(begin, begin + n_at_once)
            log_q = model_logits[block].to(divergence.dtype).log_softmax(dim=-1)
            log_p = baseline_logits[block].to(divergence.dtype).log_softmax(dim=-1)
            p = log_p.exp()
            # A token that the baseline rules out (a logit of -inf) adds nothing: 0 ln 0 is 0.
            terms = p * (log_p - log_q)
            divergence[block] = terms.masked_fill_(p == 0, 0.0).sum(dim=-1)
            if gradient is not None:
                gradient[block] = log_q.exp_().sub_(p)
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return divergence

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
    divergence: Tensor = _KLDivergence.apply(model_logits, baseline_logits)  # type: ignore[no-untyped-call]
    return divergence


def _computed_in(logits: Tensor) -> torch.dtype:
    return torch.float64 if logits.dtype == torch.float64 else torch.float32
