"""The sum of several losses, with the gradients of one at a time in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from finetune_lm.loss_scale import scaled, unscaled


class SumInPieces:
    """A sum of functions of a model's parameters, added one by one.

    The graph of one is in memory at a time, and one gradient for each parameter besides. The value
    can be put to backward once.

    Args:
        parameters: All that a gradient may be wanted for.
        n: How many pieces there will be. One keeps its graph.
    """

    def __init__(self, parameters: Iterable[Tensor], n: int) -> None:
        self._wanted = [each for each in parameters if each.requires_grad]
        self._goes_backward = n > 1 and torch.is_grad_enabled() and bool(self._wanted)
        self._total: Tensor | None = None
        self._gradients: list[Tensor | None] = [None] * len(self._wanted)

    def add(self, value: Tensor) -> None:
        """Add a piece, a tensor of one value, and go backward through it at once."""
        if self._goes_backward:
            found = torch.autograd.grad(scaled(value), self._wanted, allow_unused=True)
            value = value.detach()
            for i, gradient in enumerate(found):
                if gradient is not None:
                    before = self._gradients[i]
                    # Not in place: autograd may return one tensor for two parameters.
                    self._gradients[i] = gradient if before is None else before + gradient
        self._total = value if self._total is None else self._total + value

    def total(self) -> Tensor:
        """The sum, with its gradients: a tensor of one value."""
        assert self._total is not None
        if not self._goes_backward:
            return self._total
        total: Tensor = _WithGradients.apply(  # type: ignore[no-untyped-call]
            self._total, unscaled(self._gradients), *self._wanted
        )
        return total


class _WithGradients(torch.autograd.Function):
    """A value whose gradients by some parameters are known."""

    @staticmethod
    def forward(
        ctx: Any, value: Tensor, gradients: Sequence[Tensor | None], *parameters: Tensor
    ) -> Tensor:
        del parameters
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.gradients
        del ctx.gradients
        return (None, None, *(g if g is None else g * upstream for g in gradients))
