"""Mask tokens at random, as BERT was trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from finetune_lm.constants import MLM
from finetune_lm.data_preprocessing._masking import needs_mask_token, with_labels
from finetune_lm.data_preprocessing._selection import choose, maskable, n_to_mask
from finetune_lm.data_preprocessing._settings import (
    MASK_PROP,
    REPLACEMENT_PROPS,
    check_mask_prop,
    check_replacement_props,
    for_tasks,
)
from finetune_lm.models.vocabulary import vocabulary_of

if TYPE_CHECKING:
    from torch import Tensor


def _check(
    mask_prop: float = MASK_PROP,
    replacement_props: Mapping[str, float] | None = None,
    tokenizer: Any = None,
) -> None:
    check_mask_prop(mask_prop)
    if replacement_props is not None:
        check_replacement_props(replacement_props)
    if tokenizer is not None:
        needs_mask_token(vocabulary_of(tokenizer), "mask_random_tokens")


@for_tasks(MLM, check=_check, needs_masks=True)
def mask_random_tokens(
    inputs: dict[str, Tensor],
    tokenizer: Any,
    mask_prop: float = MASK_PROP,
    replacement_props: Mapping[str, float] | None = None,
) -> dict[str, Tensor]:
    """Choose tokens at random to be predicted, and hide most of them.

    Of the n tokens of an example that are its text's own (no special tokens, no padding; unknown
    tokens are), exactly ``max(round(mask_prop * n), 1)`` are chosen, a half rounded to the even
    neighbour. For each of them it is drawn anew what stands in its place. Where no labels are given
    they are the original tokens at the chosen positions and -100 elsewhere.

    Args:
        inputs: ``input_ids``, ``attention_mask`` and perhaps ``labels``, each (n, length).
        tokenizer: A tokenizer with a mask token.
        mask_prop: The share of tokens to choose.
        replacement_props: How often a chosen token becomes the mask token (``mask``), becomes a
            token drawn from the vocabulary without its special tokens (``random``), or stays
            (``original``). They add up to 1. By default 0.8, 0.1 and 0.1.

    Returns:
        ``input_ids``, ``attention_mask`` and ``labels``, each (n, length).

    Raises:
        UserError: If the tokenizer has no mask token, or a value is out of range.

    Example:
        >>> inputs = tokenizer(["The man drank water."], return_tensors="pt")  # doctest: +SKIP
        >>> masked = mask_random_tokens(inputs, tokenizer, mask_prop=0.2)  # doctest: +SKIP
        >>> tokenizer.decode(masked["input_ids"][0])  # doctest: +SKIP
        '[CLS] the man drank [MASK]. [SEP]'
    """
    import torch

    _check(mask_prop, replacement_props, tokenizer)
    vocabulary = vocabulary_of(tokenizer)
    mask_id = needs_mask_token(vocabulary, "mask_random_tokens")
    props = replacement_props or REPLACEMENT_PROPS
    total = sum(props.values())

    ids = inputs["input_ids"]
    allowed = maskable(dict(inputs), vocabulary)
    chosen = choose(allowed, n_to_mask(allowed.sum(dim=1), mask_prop))
    fate = torch.rand(ids.shape, dtype=torch.float64).to(ids.device)
    drawn = torch.randint(len(vocabulary.ordinary_ids), ids.shape)
    others = torch.as_tensor(vocabulary.ordinary_ids)[drawn].to(ids)
    becomes_mask = chosen & (fate < props["mask"] / total)
    stays = fate >= (props["mask"] + props["random"]) / total
    replaced = torch.where(chosen & ~stays & ~becomes_mask, others, ids)
    return {
        **with_labels(dict(inputs), chosen),
        "input_ids": replaced.masked_fill(becomes_mask, mask_id),
    }
