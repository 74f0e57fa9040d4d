"""Embeddings that share their weights with the last layer, and one gradient for both.

torch makes a gradient for each, of which that of the embeddings is zero but for the rows of a few
tokens, and adds them: two passes over the largest weights of a small model. Here the embeddings
hand the weights on to the last layer, so that its gradient comes back through them, and they add
their rows to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from finetune_lm.scoring.fast.watched import is_watched


@contextmanager
def weights_handed_on(model: Any, layer: Any) -> Iterator[list[Tensor]]:
    """Let a model's embeddings hand their weights on, if they share them with a layer.

    Args:
        model: The model. What it computes is what it does otherwise.
        layer: Its last layer.

    Yields:
        The weights for the last layer, one tensor, once the model was called; nothing if they are
        not shared. If they are used, they are used alone: not beside the layer's own.
    """
    handed: list[Tensor] = []
    embeddings = model.get_input_embeddings()
    if not torch.is_grad_enabled() or not _is_shared(embeddings, layer):
        yield handed
        return

    def hand_on(_: Any, args: tuple[Any, ...], embedded: Tensor) -> Tensor:
        # Embeddings may be called more than once, as by an encoder and by a decoder.
        weight = handed[0] if handed else embeddings.weight
        ids, padding = args[0], embeddings.padding_idx
        found: Tensor
        found, handed[:1] = _lookup(weight, ids, embedded, padding)
        return found

    handle = embeddings.register_forward_hook(hand_on)
    try:
        yield handed
    finally:
        handle.remove()


def _is_shared(embeddings: Any, layer: Any) -> bool:
    return (
        type(embeddings) is torch.nn.Embedding
        and embeddings.weight is getattr(layer, "weight", None)
        and embeddings.weight.requires_grad
        and not embeddings.scale_grad_by_freq
        and not is_watched(embeddings)
    )


def _lookup(
    weight: Tensor, ids: Tensor, embedded: Tensor, padding: int | None
) -> tuple[Tensor, list[Tensor]]:
    found, weight = _Lookup.apply(weight, ids, embedded, padding)  # type: ignore[no-untyped-call]
    return found, [weight]


class _Lookup(torch.autograd.Function):
    """The rows of weights that ids name, and the weights: (vocabulary, width) -> both."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, ids: Tensor, embedded: Tensor, padding: int | None
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.shape, ctx.ids, ctx.padding = weight.shape, ids.reshape(-1), padding
        return embedded.detach(), weight.detach()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, of_rows: Tensor | None, of_weight: Tensor | None
    ) -> tuple[Tensor | None, None, None, None]:
        if of_rows is not None:
            rows, ids = of_rows.reshape(len(ctx.ids), -1), ctx.ids
            if ctx.padding is not None:
                kept = ids != ctx.padding
                rows, ids = rows[kept], ids[kept]
            if of_weight is None:
                of_weight = of_rows.new_zeros(ctx.shape)
            # In place, since nothing but the last layer has made it and nothing else has it.
            of_weight.index_add_(0, ids, rows)
        return of_weight, None, None, None
