"""Attention within sentences for tokens that stand in one row, see `ragged`.

On a CPU torch's own function takes ten times as long for sentences of twenty tokens as products of
matrices do, which it is not made for. Their scores are in memory all at once, so where these would
take much of it, torch's function does the work.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from finetune_lm.scoring.fast.ragged import Layout

ATTENTION = "finetune_lm_ragged"

# What attention layers may be told besides that changes nothing in what they compute here.
_HARMLESS = frozenset(
    {"position_ids", "use_cache", "is_causal", "cache_position", "output_attentions",
     "position_embeddings", "num_items_in_batch", "past_key_values", "output_router_logits"}
)  # fmt: skip

# How many scores there may be at once: 32 MB in float32, for each layer of a model that is trained.
_MOST_SCORES = 2**23


class UnsupportedAttentionError(Exception):
    """A layer attends in a way that is not known here."""


@dataclass(frozen=True)
class Weighting:
    """How scores become weights.

    Attributes:
        scaling: The factor of products of queries and keys.
        dropout: How many of the weights are left out, by chance.
        softcap: A bound on scores: ``softcap * tanh(scores / softcap)``; None for no bound.
    """

    scaling: float
    dropout: float = 0.0
    softcap: float | None = None


@dataclass(frozen=True)
class Rows:
    """What stands in the row of a model, or in those of an encoder and a decoder.

    Attributes:
        layout: What predicts: all that the model is fed, or what its decoder is.
        encoder: What its encoder is fed, if it has one. Its rectangles have the same sentences.
        masks: By the place in memory of a bias that layers share: it with what is not seen taken
            out, for each rectangle.
    """

    layout: Layout
    encoder: Layout | None = None
    masks: dict[int, tuple[Tensor, list[Tensor]]] = field(default_factory=dict)

    def of(self, module: Any) -> tuple[Layout, Layout]:
        """Where the queries, and where the keys of an attention layer stand."""
        if self.encoder is None:
            return self.layout, self.layout
        if not module.is_decoder:
            return self.encoder, self.encoder
        return self.layout, self.layout if module.is_causal else self.encoder

    def to(self, device: torch.device) -> Rows:
        """The same on a device."""
        encoder = None if self.encoder is None else self.encoder.to(device)
        return Rows(self.layout.to(device), encoder)


_rows: ContextVar[Rows] = ContextVar("rows")


@contextmanager
def laid_out(model: Any, rows: Rows) -> Iterator[None]:
    """Let a model's attention layers see sentences while all else sees one row."""
    import transformers

    if ATTENTION not in transformers.AttentionInterface._global_mapping:
        transformers.AttentionInterface.register(ATTENTION, _attend)
    configs = [model.config]
    if rows.encoder is not None:
        # T5's encoder and decoder have copies of their own.
        configs += [part.config for part in (model.get_encoder(), model.get_decoder())]
    usual = [config._attn_implementation for config in configs]
    token = _rows.set(rows)
    try:
        # No mask is registered under this name, so transformers makes none.
        for config in configs:
            config._attn_implementation = ATTENTION
        yield
    finally:
        for config, name in zip(configs, usual, strict=True):
            config._attn_implementation = name
        _rows.reset(token)


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention within sentences, for queries, keys and values in one row: (1, heads, k, width)."""
    rows = _rows.get()
    layout, of_keys = rows.of(module)
    unknown = [name for name, given in kwargs.items() if given is not None]
    unknown = [name for name in unknown if name not in _HARMLESS]
    if sliding_window is not None and of_keys.longest > sliding_window:
        unknown.append(f"a window of {sliding_window}")
    if attention_mask is not None or unknown:
        raise UnsupportedAttentionError(unknown)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    masks = _seen(of_keys)
    if position_bias is not None and position_bias.numel() > 1:
        masks = _biased(rows, position_bias, layout, masks)
    spread = _spread(query, layout), _spread(key, of_keys), _spread(value, of_keys)
    weighting = Weighting(scaling, dropout, softcap)
    attended = [
        attend(q, k, v, seen, weighting) for q, k, v, seen in zip(*spread, masks, strict=True)
    ]
    return _collect(attended, layout), None


def _seen(layout: Layout) -> list[Tensor | None]:
    """Which places of a sentence are seen, (n, 1, 1, length), for each rectangle.

    None where a token sees those up to its own.
    """
    if layout.is_real is None:
        return [None] * len(layout.shapes)
    sizes = [n * length for n, length in layout.shapes]
    parts = torch.split(layout.is_real, sizes)
    return [part.view(n, 1, 1, -1) for part, (n, _) in zip(parts, layout.shapes, strict=True)]


def _biased(
    rows: Rows, bias: Tensor, layout: Layout, masks: list[Tensor | None]
) -> list[Tensor | None]:
    """What is added to scores in each rectangle: a bias, (1, heads, longest, longest).

    Layers share it, so it is made once.
    """
    kept = rows.masks.get(id(bias))
    if kept is None:
        found = []
        for seen, (_, length) in zip(masks, layout.shapes, strict=True):
            if seen is None:
                seen = torch.ones(length, length, dtype=torch.bool, device=bias.device).tril()
            part = bias[:, :, :length, :length]
            found.append(part.masked_fill(~seen, torch.finfo(bias.dtype).min))
        # The bias is kept, so that no other takes its place in memory.
        kept = rows.masks[id(bias)] = bias, found
    return list(kept[1])


def attend(
    query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None, weighting: Weighting
) -> Tensor:
    """What queries attend to.

    Args:
        query: (n, heads, length, width).
        key: (n, some heads, length of what is attended to, width). Several heads in turn of the
            queries share one.
        value: Of the same shape.
        seen: Which keys are seen, or what is added to the scores, to be broadcast to (n, heads,
            length, length); None where a query sees the keys up to its own.
        weighting: How scores become weights.

    Returns:
        (n, heads, length, width).
    """
    if weighting.softcap is not None or _is_better_by_products(query, key):
        return _by_products(query, key, value, seen, weighting)
    from torch.nn.functional import scaled_dot_product_attention

    return scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=seen,
        dropout_p=weighting.dropout,
        is_causal=seen is None,
        scale=weighting.scaling,
        enable_gqa=key.shape[1] != query.shape[1],
    )


def _is_better_by_products(query: Tensor, key: Tensor) -> bool:
    n, heads, length, _ = query.shape
    return (
        query.device.type == "cpu"
        # In half precision torch's function rounds less.
        and query.dtype in (torch.float32, torch.float64)
        and n * heads * length * key.shape[2] <= _MOST_SCORES
    )


def _by_products(
    query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None, weighting: Weighting
) -> Tensor:
    n, heads, length, width = query.shape
    shared, of_keys = key.shape[1:3]
    # Heads that share keys are rows of one product.
    if weighting.scaling != 1.0:
        query = query * weighting.scaling
    rows = query.reshape(n, shared, -1, width)
    scores = (rows @ key.transpose(2, 3)).view(n, heads, length, of_keys)
    if (softcap := weighting.softcap) is not None:
        scores = (scores / softcap).tanh() * softcap
    if seen is None:
        seen = torch.ones(length, of_keys, dtype=torch.bool, device=query.device).tril()
    if seen.dtype == torch.bool:
        seen = scores.new_zeros(seen.shape).masked_fill(~seen, -torch.inf)
    weights = (scores + seen).softmax(
        dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)
    )
    weights = torch.nn.functional.dropout(weights.to(query.dtype), weighting.dropout)
    found: Tensor = weights.view(n, shared, -1, of_keys) @ value
    return found.view(n, heads, length, width)


def _spread(states: Tensor, layout: Layout) -> list[Tensor]:
    """(1, heads, k, width) -> (n, heads, length, width) each, padding filled with anything."""
    _, heads, _, width = states.shape
    in_row = states[0].transpose(0, 1).reshape(-1, width)
    spread: Tensor = _Spread.apply(in_row, *layout.cells(heads))  # type: ignore[no-untyped-call]
    shapes = [(n, heads, length) for n, length in layout.shapes]
    if len(shapes) == 1:
        return [spread.view(*shapes[0], width)]
    parts = torch.split(spread, [math.prod(shape) for shape in shapes])
    return [part.view(*shape, width) for part, shape in zip(parts, shapes, strict=True)]


def _collect(rectangles: list[Tensor], layout: Layout) -> Tensor:
    """(n, heads, length, width) each -> (1, k, heads, width)."""
    _, heads, _, width = rectangles[0].shape
    parts = [states.reshape(-1, width) for states in rectangles]
    cells = parts[0] if len(parts) == 1 else torch.cat(parts)
    _, cell_of_node = layout.cells(heads)
    in_row: Tensor = _Collect.apply(cells, cell_of_node)  # type: ignore[no-untyped-call]
    return in_row.view(1, -1, heads, width)


class _Spread(torch.autograd.Function):
    """Each cell of rectangles filled with its row: (k, width) -> (cells, width).

    torch's own gradient of ``index_select`` adds up, for an index may occur more than once. Here
    each row has one cell of its own when there are gradients, and what is in padding goes
    nowhere.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, node_of_cell: Tensor, cell_of_node: Tensor) -> Tensor:
        ctx.cell_of_node = cell_of_node
        return rows.index_select(0, node_of_cell)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        return upstream.index_select(0, ctx.cell_of_node), None, None


class _Collect(torch.autograd.Function):
    """Each row from its cell in rectangles: (cells, width) -> (k, width)."""

    @staticmethod
    def forward(ctx: Any, cells: Tensor, cell_of_node: Tensor) -> Tensor:
        ctx.cell_of_node = cell_of_node
        ctx.shape = cells.shape
        return cells.index_select(0, cell_of_node)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return upstream.new_zeros(ctx.shape).index_copy_(0, ctx.cell_of_node, upstream), None
