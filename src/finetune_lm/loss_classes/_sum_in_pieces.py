"""The sum of several losses, with the gradients of one at a time in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from finetune_lm.loss_scale import scaled, unscaled


class _SumInPieces(torch.autograd.Function):
    """Goes backward through each piece as soon as it is there, and hands the gradients on later."""

    @staticmethod
    def forward(ctx: Any, pieces: Sequence[Callable[[], Tensor]], *parameters: Tensor) -> Tensor:
        gradients: list[Tensor | None] = [None] * len(parameters)
        total: Tensor | None = None
        for piece in pieces:
            with torch.enable_grad():
                value = piece()
                found = torch.autograd.grad(scaled(value), parameters, allow_unused=True)
            total = value.detach() if total is None else total + value.detach()
            for i, gradient in enumerate(found):
                if gradient is not None:
                    before = gradients[i]
                    # Not in place: autograd may return one tensor for two parameters.
                    gradients[i] = gradient if before is None else before + gradient
        assert total is not None
        ctx.gradients = unscaled(gradients)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.gradients
        del ctx.gradients
        return (None, *(g if g is None else g * upstream for g in gradients))


def sum_in_pieces(pieces: Sequence[Callable[[], Tensor]], parameters: Iterable[Tensor]) -> Tensor:
    """The sum of the values of some functions of a model's parameters.

    The graph of one piece is in memory at a time, and one gradient for each parameter besides. The
    value can be put to backward once.

    Args:
        pieces: Each returns a tensor of one value.
        parameters: All that a gradient may be wanted for.

    Returns:
        A tensor of one value.
    """
    wanted = [parameter for parameter in parameters if parameter.requires_grad]
    if len(pieces) == 1 or not torch.is_grad_enabled() or not wanted:
        return torch.stack([piece() for piece in pieces]).sum()
    total: Tensor = _SumInPieces.apply(pieces, *wanted)  # type: ignore[no-untyped-call]
    return total
