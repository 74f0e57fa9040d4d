"""What a model is called with for tokens that stand in one row, and how it is told positions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from finetune_lm.scoring.fast.ragged import Layout
from finetune_lm.scoring.fast.ragged_attention import Rows
from finetune_lm.scoring.fast.ragged_kinds import COUNTED_BEHIND_PADDING, COUNTED_IN_TEXTS

if TYPE_CHECKING:
    from torch import Tensor


def row_inputs(model: Any, inputs: dict[str, Tensor], rows: Rows) -> dict[str, Any]:
    """What to call a model with for a batch in one row.

    Args:
        model: The model.
        inputs: What it is called with for the batch as it is.
        rows: Where its tokens stand.
    """
    import torch

    fed = rows.layout if rows.encoder is None else rows.encoder
    ids = inputs["input_ids"][fed.rows, fed.positions][None]
    found: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if rows.encoder is not None:
        decoded = inputs["decoder_input_ids"][rows.layout.rows, rows.layout.positions]
        return {**found, "decoder_input_ids": decoded[None]}
    return {**found, "position_ids": _position_ids(model, inputs["input_ids"], rows.layout)[None]}


def _position_ids(model: Any, input_ids: Tensor, layout: Layout) -> Tensor:
    """The number by which a model knows the position of each token in the row: (k,)."""
    if model.config.model_type not in COUNTED_BEHIND_PADDING:
        return layout.positions
    padding = model.get_input_embeddings().padding_idx
    # A text may have the padding token in it: the model does not count it either.
    counts = input_ids != padding
    position_ids: Tensor = counts.cumsum(dim=1) * counts + padding
    return position_ids[layout.rows, layout.positions]


@contextmanager
def told_positions(model: Any, inputs: dict[str, Tensor], rows: Rows) -> Iterator[None]:
    """Let an encoder and a decoder know positions in sentences, which they count themselves.

    BART looks up an embedding for each position, T5 a bias for each pair of them. M2M100 counts
    the tokens of a text itself.

    Args:
        model: The model.
        inputs: What it is called with for the batch as it is.
        rows: Where its tokens stand.
    """
    if rows.encoder is None:
        yield
        return
    parts = (
        (model.get_encoder(), rows.encoder, "input_ids"),
        (model.get_decoder(), rows.layout, "decoder_input_ids"),
    )
    with ExitStack() as stack:
        for part, layout, name in parts:
            if model.config.model_type in COUNTED_IN_TEXTS:
                stack.enter_context(_counted(part.embed_positions, inputs[name], layout))
            elif hasattr(part, "embed_positions"):
                hook = _Numbers(layout)
                handle = part.embed_positions.register_forward_pre_hook(hook, with_kwargs=True)
                stack.callback(handle.remove)
            for layer in part.block[0].layer if hasattr(part, "block") else []:
                for module in layer.children():
                    if hasattr(module, "has_relative_attention_bias"):
                        handle = module.register_forward_pre_hook(_Bias(layout), with_kwargs=True)
                        stack.callback(handle.remove)
        yield


@contextmanager
def _counted(embed_positions: Any, ids: Tensor, layout: Layout) -> Iterator[None]:
    """Let embeddings of positions see texts as they are, of which they count the tokens."""
    handles = (
        embed_positions.register_forward_pre_hook(lambda _, args: (ids, *args[1:])),
        embed_positions.register_forward_hook(
            lambda _, args, found: found[layout.rows, layout.positions][None]
        ),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Numbers:
    """Gives embeddings of positions the number of each token in its sentence."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def __call__(self, module: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        return args, {**kwargs, "position_ids": self._layout.positions}


class _Bias:
    """Gives T5's first layers a bias for sentences instead of one for the whole row.

    (1, heads, longest, longest); those behind them are given the same by the model.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def __call__(self, module: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        if module.has_relative_attention_bias:
            bias = module.compute_bias(self._layout.longest, self._layout.longest)
        else:
            bias = module.q.weight.new_zeros(1)
        return args, {**kwargs, "position_bias": bias}
