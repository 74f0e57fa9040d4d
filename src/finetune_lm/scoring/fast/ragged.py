"""A batch through a model without its padding, and without computing anything twice.

All tokens of a batch go through the model in one row, so that its linear layers see no padding.
Only attention looks at sentences: there the tokens are laid out as a rectangle again, sentence by
sentence, and what comes out is put back in the row. Where sentences begin alike, which is the rule
in templated materials, the tokens of a shared beginning can stand in the row once (a *tree* of
beginnings) if the model is causal, since then they are the same whatever follows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_lm.scoring.fast.activations import computes_again

if TYPE_CHECKING:
    import torch
    from torch import Tensor

ATTENTION = "finetune_lm_ragged"

CAUSAL_TYPES = frozenset(
    {"gpt2", "gpt_neox", "llama", "olmo", "olmo2", "olmo3", "qwen2", "qwen3", "mistral", "smollm3"}
)
"""Architectures whose layers are told positions by ``position_ids`` and attend by transformers'
attention interface, over everything before a token. Whether that holds for a model's configuration
is looked at by its first batch."""

_COUNTED_BEHIND_PADDING = frozenset({"roberta", "xlm-roberta", "camembert"})
# Their first position is the one behind the id of the padding token.

BIDIRECTIONAL_TYPES = _COUNTED_BEHIND_PADDING | {"bert", "distilbert", "electra", "albert"}
"""Architectures of which the same holds, but that each token sees the whole sentence."""

# What attention layers may be told besides that changes nothing in what they compute here.
_HARMLESS = frozenset(
    {"position_ids", "use_cache", "is_causal", "cache_position", "output_attentions",
     "position_embeddings", "num_items_in_batch", "past_key_values"}
)  # fmt: skip


class UnsupportedAttentionError(Exception):
    """A layer attends in a way that is not known here."""


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a rectangle of sentences stand in the row.

    Attributes:
        shape: Sentences and the longest one's length, (n, length).
        node_of_slot: For each place of the rectangle, row by row, its token's place in the row; for
            padding any: (n * length,).
        slot_of_node: For each token in the row one place of the rectangle that has it: (k,).
        positions: Each token's place in its sentence: (k,).
        seen: Which places of the rectangle each token of its row sees, (n, 1, 1, length); None if
            it sees those up to its own.
    """

    shape: tuple[int, int]
    node_of_slot: Tensor
    slot_of_node: Tensor
    positions: Tensor
    seen: Tensor | None = None

    def to(self, device: torch.device) -> Layout:
        """The same on a device."""
        return Layout(
            self.shape,
            self.node_of_slot.to(device),
            self.slot_of_node.to(device),
            self.positions.to(device),
            self.seen.to(device) if self.seen is not None else None,
        )


_layout: ContextVar[Layout] = ContextVar("layout")


def lay_out(attention_mask: Tensor, *, is_causal: bool = True) -> Layout:
    """Every real token of a batch in the row, sentence after sentence.

    Args:
        attention_mask: 1 for tokens, 0 for padding on the right: (n, length).
        is_causal: Whether a token sees those before it only.
    """
    import torch

    n, length = attention_mask.shape
    slots = attention_mask.reshape(-1).nonzero().squeeze(-1)
    nodes = torch.zeros(n * length, dtype=torch.int64, device=slots.device)
    nodes[slots] = torch.arange(len(slots), device=slots.device)
    seen = None if is_causal else attention_mask.bool()[:, None, None, :]
    return Layout((n, length), nodes, slots, slots % length, seen)


def lay_out_tree(input_ids: Tensor, attention_mask: Tensor) -> Layout:
    """Every distinct beginning of a sentence in the row once, for causal models, no gradients.

    Args:
        input_ids: Token ids, (n, length).
        attention_mask: 1 for tokens, 0 for padding on the right: (n, length).
    """
    import torch

    device = input_ids.device
    ids, real = input_ids.cpu().numpy(), attention_mask.cpu().numpy().astype(bool)
    n, length = ids.shape
    node_of_slot = np.zeros((n, length), dtype=np.int64)
    slots = []
    n_nodes = 0
    # Token by token: two sentences share a node if they shared the one before and go on alike.
    before = np.zeros(n, dtype=np.int64)
    for position in range(length):
        rows = np.flatnonzero(real[:, position])
        if not len(rows):
            break
        # Nodes are numbered below the number of slots, so the pair is one number.
        pairs = before[rows] * (int(ids.max()) + 1) + ids[rows, position]
        _, first, inverse = np.unique(pairs, return_index=True, return_inverse=True)
        before[rows] = n_nodes + inverse
        node_of_slot[rows, position] = before[rows]
        slots.append(rows[first] * length + position)
        n_nodes += len(first)
    slot_of_node = np.concatenate(slots) if slots else np.zeros(0, dtype=np.int64)
    return Layout(
        (n, length),
        torch.from_numpy(node_of_slot.reshape(-1)).to(device),
        torch.from_numpy(slot_of_node).to(device),
        torch.from_numpy(slot_of_node % length).to(device),
    )


def supports(model: Any) -> bool:
    """Whether a model is of a kind that is known here."""
    config = getattr(model, "config", None)
    return (
        (is_causal(model) or _is_bidirectional(config))
        # What is computed again for the backward pass would be computed without the layout.
        and not computes_again(model)
        # Some compute a sentence in chunks, of which its length must be a multiple.
        and not getattr(config, "chunk_size_feed_forward", 0)
        and not getattr(config, "add_cross_attention", False)
        and getattr(config, "_attn_implementation", None) in ("sdpa", "eager")
    )


def is_causal(model: Any) -> bool:
    """Whether a model is of a kind that is known here and whose tokens see those before them."""
    return getattr(getattr(model, "config", None), "model_type", None) in CAUSAL_TYPES


def _is_bidirectional(config: Any) -> bool:
    # Some can be told to be decoders.
    return getattr(config, "model_type", None) in BIDIRECTIONAL_TYPES and not getattr(
        config, "is_decoder", False
    )


def kind_of(model: Any) -> str:
    """What a model is, for messages."""
    name = getattr(getattr(model, "config", None), "model_type", None)
    return f"models of type {name}" if name else "models of this type"


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

    ids = input_ids.reshape(-1)[layout.slot_of_node][None]
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "position_ids": _position_ids(model, input_ids, layout)[None],
    }
    return {**inputs, "use_cache": False} if is_causal(model) else inputs


def _position_ids(model: Any, input_ids: Tensor, layout: Layout) -> Tensor:
    """The number by which a model knows the position of each token in the row: (k,)."""
    if model.config.model_type not in _COUNTED_BEHIND_PADDING:
        return layout.positions
    padding = model.get_input_embeddings().padding_idx
    # A text may have the padding token in it: the model does not count it either.
    counts = input_ids != padding
    position_ids: Tensor = counts.cumsum(dim=1) * counts + padding
    return position_ids.reshape(-1)[layout.slot_of_node]


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention within sentences, for queries, keys and values in one row: (1, heads, k, width)."""
    from torch.nn.functional import scaled_dot_product_attention

    known = _HARMLESS
    if attention_mask is not None or any(
        value is not None and name not in known for name, value in kwargs.items()
    ):
        raise UnsupportedAttentionError(sorted(kwargs))
    layout = _layout.get()
    attended = scaled_dot_product_attention(
        _spread(query, layout),
        _spread(key, layout),
        _spread(value, layout),
        attn_mask=layout.seen,
        dropout_p=dropout,
        is_causal=layout.seen is None,
        scale=scaling,
        enable_gqa=key.shape[1] != query.shape[1],
    )
    return _collect(attended, layout), None


def _spread(states: Tensor, layout: Layout) -> Tensor:
    """(1, heads, k, width) -> (n, heads, length, width), padding filled with anything."""
    _, heads, _, width = states.shape
    in_row = states[0].transpose(0, 1)
    rectangle: Tensor = _functions()[0].apply(in_row, layout.node_of_slot, layout.slot_of_node)
    return rectangle.view(*layout.shape, heads, width).transpose(1, 2)


def _collect(states: Tensor, layout: Layout) -> Tensor:
    """(n, heads, length, width) -> (1, k, heads, width)."""
    n, heads, length, width = states.shape
    rectangle = states.transpose(1, 2).reshape(n * length, heads, width)
    in_row: Tensor = _functions()[1].apply(rectangle, layout.slot_of_node)
    return in_row[None]


def _functions() -> tuple[Any, Any]:
    from finetune_lm.scoring.fast import _gather

    return _gather.Spread, _gather.Collect
