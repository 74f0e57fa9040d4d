"""Attention within sentences for tokens that stand in one row, see `ragged`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from finetune_lm.scoring.fast.ragged import Layout
from finetune_lm.scoring.fast.ragged_kinds import COUNTED_BEHIND_PADDING, is_causal

if TYPE_CHECKING:
    from torch import Tensor

ATTENTION = "finetune_lm_ragged"

# What attention layers may be told besides that changes nothing in what they compute here.
_HARMLESS = frozenset(
    {"position_ids", "use_cache", "is_causal", "cache_position", "output_attentions",
     "position_embeddings", "num_items_in_batch", "past_key_values", "output_router_logits"}
)  # fmt: skip

_layout: ContextVar[Layout] = ContextVar("layout")


class UnsupportedAttentionError(Exception):
    """A layer attends in a way that is not known here."""


@contextmanager
def laid_out(model: Any, layout: Layout) -> Iterator[None]:
    """Let a model's attention layers see sentences while all else sees one row."""
    import transformers

    if ATTENTION not in transformers.AttentionInterface._global_mapping:
        transformers.AttentionInterface.register(ATTENTION, _attend)
    config = model.config
    usual = config._attn_implementation
    token = _layout.set(layout)
    # No mask is registered under this name, so transformers makes none.
    config._attn_implementation = ATTENTION
    try:
        yield
    finally:
        config._attn_implementation = usual
        _layout.reset(token)


def row_inputs(model: Any, input_ids: Tensor, layout: Layout) -> dict[str, Any]:
    """What to call a model with for a batch in one row.

    Args:
        model: The model.
        input_ids: The batch, (n, length).
        layout: Where its tokens stand in the row.
    """
    import torch

    ids = input_ids[layout.rows, layout.positions][None]
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "position_ids": _position_ids(model, input_ids, layout)[None],
    }
    return {**inputs, "use_cache": False} if is_causal(model) else inputs


def _position_ids(model: Any, input_ids: Tensor, layout: Layout) -> Tensor:
    """The number by which a model knows the position of each token in the row: (k,)."""
    if model.config.model_type not in COUNTED_BEHIND_PADDING:
        return layout.positions
    padding = model.get_input_embeddings().padding_idx
    # A text may have the padding token in it: the model does not count it either.
    counts = input_ids != padding
    position_ids: Tensor = counts.cumsum(dim=1) * counts + padding
    return position_ids[layout.rows, layout.positions]


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
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention within sentences, for queries, keys and values in one row: (1, heads, k, width)."""
    layout = _layout.get()
    unknown = [name for name, given in kwargs.items() if given is not None]
    unknown = [name for name in unknown if name not in _HARMLESS]
    if sliding_window is not None and layout.longest > sliding_window:
        unknown.append(f"a window of {sliding_window}")
    if attention_mask is not None or unknown:
        raise UnsupportedAttentionError(unknown)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    spread = (_spread(states, layout) for states in (query, key, value))
    attended = [
        _attend_in_rectangle(q, k, v, seen, dropout, scaling)
        if softcap is None
        else _attend_capped(q, k, v, seen, dropout, scaling, softcap)
        for q, k, v, seen in zip(*spread, _seen(layout), strict=True)
    ]
    return _collect(attended, layout), None


def _seen(layout: Layout) -> list[Tensor | None]:
    """Which places of a sentence its tokens see, (n, 1, 1, length), for each rectangle.

    None where a token sees those up to its own.
    """
    import torch

    if layout.is_real is None:
        return [None] * len(layout.shapes)
    sizes = [n * length for n, length in layout.shapes]
    parts = torch.split(layout.is_real, sizes)
    return [part.view(n, 1, 1, -1) for part, (n, _) in zip(parts, layout.shapes, strict=True)]


def _attend_in_rectangle(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    seen: Tensor | None,
    dropout: float,
    scaling: float,
) -> Tensor:
    """(n, heads, length, width) each."""
    from torch.nn.functional import scaled_dot_product_attention

    return scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=seen,
        dropout_p=dropout,
        is_causal=seen is None,
        scale=scaling,
        enable_gqa=key.shape[1] != query.shape[1],
    )


def _attend_capped(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    seen: Tensor | None,
    dropout: float,
    scaling: float,
    softcap: float,
) -> Tensor:
    """The same with a bound on what is attended by: ``softcap * tanh(scores / softcap)``."""
    import torch

    groups = query.shape[1] // key.shape[1]
    key, value = (states.repeat_interleave(groups, dim=1) for states in (key, value))
    scores = (query @ key.transpose(2, 3)) * (scaling / softcap)
    scores = scores.tanh() * softcap
    if seen is None:
        length = query.shape[2]
        seen = torch.ones(length, length, dtype=torch.bool, device=query.device).tril()
    weights = scores.masked_fill(~seen, -torch.inf).softmax(dim=-1, dtype=torch.float32)
    weights = torch.nn.functional.dropout(weights.to(query.dtype), dropout)
    return weights @ value


def _spread(states: Tensor, layout: Layout) -> list[Tensor]:
    """(1, heads, k, width) -> (n, heads, length, width) each, padding filled with anything."""
    import torch

    _, heads, _, width = states.shape
    in_row = states[0].transpose(0, 1)
    spread: Tensor = _functions()[0].apply(in_row, layout.node_of_place, layout.place_of_node)
    parts = torch.split(spread, [n * length for n, length in layout.shapes])
    return [
        part.view(*shape, heads, width).transpose(1, 2)
        for part, shape in zip(parts, layout.shapes, strict=True)
    ]


def _collect(rectangles: list[Tensor], layout: Layout) -> Tensor:
    """(n, heads, length, width) each -> (1, k, heads, width)."""
    import torch

    parts = [states.transpose(1, 2).flatten(0, 1) for states in rectangles]
    places = parts[0] if len(parts) == 1 else torch.cat(parts)
    in_row: Tensor = _functions()[1].apply(places, layout.place_of_node)
    return in_row[None]


def _functions() -> tuple[Any, Any]:
    from finetune_lm.scoring.fast import _gather

    return _gather.Spread, _gather.Collect
