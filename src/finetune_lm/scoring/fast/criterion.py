"""Losses that read each row of logits once, and leave its gradient in the same memory.

A *criterion* is such a loss. It is applied to logits, or to what a linear last layer is fed. Then
not even the logits are kept: some rows at a time are computed, judged, and turned into gradients of
what the layer is fed and of its weights, which takes no more products of matrices than a backward
pass later would.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import torch
from torch import Tensor

from finetune_lm.scoring.fast import scratch

# How many logits of a linear layer there are at a time: 256 MB in float32.
_LOGITS_AT_ONCE = 2**26
# How many columns of a gradient by logits are multiplied at a time on a CPU. oneDNN takes a quarter
# less time for products with so many than for those with a whole vocabulary, MKL as much.
_COLUMNS_AT_ONCE = 1024
# A block of rows in float32, in bytes, that stays in a processor's cache.
_BLOCK = 3 * 2**20
# Of more rows than this oneDNN takes up to twice as long for logits if their number has no small
# factors. Rows of zeros are put behind them, up to a multiple of the other number.
_ROWS_AS_THEY_ARE = 256
_ROWS = 8


_factor: ContextVar[float] = ContextVar("factor", default=1.0)


@contextmanager
def to_be_multiplied(factor: float) -> Iterator[None]:
    """Inside, `of_linear` expects that its loss will be multiplied by this before it is minimised.

    If it is, no pass over the gradient of the weights is needed to multiply that. On a CPU.
    """
    token = _factor.set(factor)
    try:
        yield
    finally:
        _factor.reset(token)


class Criterion(Protocol):
    """A loss of rows of logits that is a sum over the rows."""

    def judge(self, rows: slice, logits: Tensor, gradient: Tensor | None) -> None:
        """Take some rows in.

        Args:
            rows: Which these are of all.
            logits: Their logits, (n, vocabulary).
            gradient: Where to leave the loss's derivative by the logits, of the same shape; perhaps
                in the logits themselves. None if it is not wanted.
        """

    def results(self) -> tuple[Tensor, ...]:
        """The loss, a tensor of one value, and whatever else is known after the last row."""


def of_logits(logits: Tensor, criterion: Criterion) -> tuple[Tensor, ...]:
    """The results of a criterion for logits; gradients come from the first of them only.

    Args:
        logits: (k, vocabulary).
        criterion: The criterion.
    """
    if not torch.is_grad_enabled():
        # A function of autograd is not told so: it would compute gradients for nobody.
        logits = logits.detach()
    results: tuple[Tensor, ...] = _OfLogits.apply(  # type: ignore[no-untyped-call]
        logits, criterion
    )
    return results


def of_linear(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, criterion: Criterion
) -> tuple[Tensor, ...]:
    """The results of a criterion for the logits ``hidden @ weight.T + bias``.

    Gradients come from the first of them only.

    Args:
        hidden: (k, width), of the same precision as the weights.
        weight: (vocabulary, width).
        bias: (vocabulary,), or None.
        criterion: The criterion.
    """
    if not torch.is_grad_enabled():
        hidden, weight = hidden.detach(), weight.detach()
        bias = bias.detach() if bias is not None else None
    results: tuple[Tensor, ...] = _OfLinear.apply(  # type: ignore[no-untyped-call]
        hidden, weight, bias, criterion
    )
    return results


def blocks(logits: Tensor) -> Iterator[slice]:
    """Rows that fit in a processor's cache; on a GPU all of them."""
    n, width = logits.shape
    n_at_once = max(1, _BLOCK // (4 * width)) if logits.device.type == "cpu" else max(n, 1)
    return (slice(begin, begin + n_at_once) for begin in range(0, n, n_at_once))


class _OfLogits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, criterion: Criterion) -> Any:
        ctx.gradient = torch.empty_like(logits) if ctx.needs_input_grad[0] else None
        criterion.judge(slice(0, len(logits)), logits, ctx.gradient)
        return _first_with_gradient(ctx, criterion)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor, *_: Any) -> tuple[Tensor, None]:
        gradient = ctx.gradient
        del ctx.gradient
        return _times(gradient, upstream), None


class _OfLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, criterion: Criterion
    ) -> Any:
        wanted = ctx.needs_input_grad[:3]
        ctx.factor = _factor.get() if weight.device.type == "cpu" else 1.0
        of_hidden = torch.zeros_like(hidden) if wanted[0] else None
        of_weight = scratch.lasting(weight) if wanted[1] else None
        of_bias = torch.empty_like(bias) if bias is not None and wanted[2] else None
        n_at_once = max(1, _LOGITS_AT_ONCE // len(weight))
        for begin in range(0, max(len(hidden), 1), n_at_once):
            fed = hidden[begin : begin + n_at_once]
            rows = slice(begin, begin + len(fed))
            with linear(fed, weight, bias) as logits:
                criterion.judge(rows, logits, logits if any(wanted) else None)
                if of_weight is not None and ctx.factor != 1.0:
                    fed = fed * ctx.factor
                for columns in _columns(weight):
                    part = logits[:, columns]
                    if of_hidden is not None:
                        of_hidden[rows].addmm_(part, weight[columns])
                    # The first rows are written (by mm: addmm is slower), the others added.
                    if of_weight is not None and not begin:
                        torch.mm(part.T, fed, out=of_weight[columns])
                    elif of_weight is not None:
                        of_weight[columns].addmm_(part.T, fed)
                if of_bias is not None:
                    of_bias = logits.sum(0) + (of_bias if begin else 0.0)
        ctx.gradients = (of_hidden, of_weight, of_bias)
        return _first_with_gradient(ctx, criterion)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        gradients = ctx.gradients
        del ctx.gradients
        left = upstream if ctx.factor == 1.0 else upstream / upstream.new_tensor(ctx.factor)
        factors = (upstream, left, upstream)
        times = (g if g is None else _times(g, f) for g, f in zip(gradients, factors, strict=True))
        return (*times, None)


@contextmanager
def linear(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Iterator[Tensor]:
    """``hidden @ weight.T + bias`` in memory that is used again, for as long as the context lasts.

    Args:
        hidden: (k, width).
        weight: (vocabulary, width).
        bias: (vocabulary,), or None.

    Yields:
        The logits: (k, vocabulary).
    """
    k = len(hidden)
    if k > _ROWS_AS_THEY_ARE and k % _ROWS and hidden.device.type == "cpu":
        hidden = torch.nn.functional.pad(hidden, (0, 0, 0, -k % _ROWS))
    with scratch.borrowed((len(hidden), len(weight)), hidden) as filled_up:
        if bias is None:
            torch.mm(hidden, weight.T, out=filled_up)
        else:
            torch.addmm(bias, hidden, weight.T, out=filled_up)
        yield filled_up[:k]


def _columns(weight: Tensor) -> Iterator[slice]:
    """The parts of a vocabulary by which gradients are multiplied."""
    # Where sums are rounded to 16 bits, they are to be so once.
    in_parts = weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.float64)
    n = len(weight)
    n_at_once = _COLUMNS_AT_ONCE if in_parts else max(n, 1)
    return (slice(begin, begin + n_at_once) for begin in range(0, n, n_at_once))


def _first_with_gradient(ctx: Any, criterion: Criterion) -> tuple[Tensor, ...]:
    loss, *others = criterion.results()
    ctx.mark_non_differentiable(*others)
    return loss, *others


def _times(gradient: Tensor, upstream: Tensor) -> Tensor:
    # Most often the loss is minimised as it is, and a pass over all of the gradient is saved.
    if upstream.device.type != "cpu" or upstream.item() != 1.0:
        gradient.mul_(upstream.to(gradient.dtype))
    return gradient
