"""Gradients of tied embeddings, of those rows only that a batch has.

An output layer's gradient has a row for each entry of the vocabulary. Where embeddings have the
same weights, torch makes another such matrix for each lookup, nearly all zeros, and adds it. Here a
lookup hands the weights on, at last to the output layer, so that the layer's gradient comes back
through it and gets the rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


@contextmanager
def handed_on(tied: Tensor) -> Iterator[list[Tensor]]:
    """Let embeddings hand on the weights that they share with an output layer. On a CPU.

    Args:
        tied: These weights: (vocabulary, width).

    Yields:
        The weights, one tensor, for the layer to use alone once the embeddings were called.
    """
    handed = [tied]
    if tied.device.type != "cpu" or not tied.requires_grad:
        yield handed
        return
    usual = functional.embedding

    def embedding(
        input: Tensor, weight: Tensor, padding_idx: int | None = None, *args: Any, **kwargs: Any
    ) -> Tensor:
        # Further arguments may change rows, or their gradients.
        is_plain = not (any(args[:1] + args[2:]) or kwargs)
        if weight is not tied or not torch.is_grad_enabled() or not is_plain:
            return usual(input, weight, padding_idx, *args, **kwargs)
        if padding_idx is not None:
            padding_idx %= len(weight)
        rows = usual(input, weight.detach(), padding_idx)
        found: Tensor
        found, handed[0] = _Lookup.apply(rows, handed[0], input, padding_idx)  # type: ignore[no-untyped-call]
        return found

    functional.embedding = embedding
    try:
        yield handed
    finally:
        functional.embedding = usual


class _Lookup(torch.autograd.Function):
    """Rows of weights, and the weights: (..., width) and (vocabulary, width)."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weight: Tensor, ids: Tensor, padding: int | None
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.shape, ctx.ids, ctx.padding = weight.shape, ids.flatten(), padding
        return rows.detach(), weight.detach()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, of_rows: Tensor | None, of_weight: Tensor | None
    ) -> tuple[None, Tensor | None, None, None]:
        if of_rows is not None:
            of_rows, ids = of_rows.flatten(0, -2), ctx.ids
            if ctx.padding is not None:
                is_counted = ids != ctx.padding
                of_rows, ids = of_rows[is_counted], ids[is_counted]
            if of_weight is None:
                of_weight = of_rows.new_zeros(ctx.shape)
            # In place: it comes from the layer, or from another lookup, and nobody else has it.
            of_weight.index_add_(0, ids, of_rows)
        return None, of_weight, None, None
