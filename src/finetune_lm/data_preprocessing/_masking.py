"""Turning chosen tokens into masks or sentinels, and into labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune_lm.constants import IGNORED_LABEL
from finetune_lm.data_preprocessing._selection import real
from finetune_lm.data_preprocessing._spans import corrupt
from finetune_lm.errors import UserError
from finetune_lm.models.vocabulary import Vocabulary

if TYPE_CHECKING:
    from torch import Tensor


def needs_mask_token(vocabulary: Vocabulary, function: str) -> int:
    """The id of the mask token.

    Raises:
        UserError: If there is none.
    """
    if vocabulary.mask_id is None:
        raise UserError(
            f"{function} needs a tokenizer with a mask token but this one has none: it is for "
            f"masked language models."
        )
    return vocabulary.mask_id


def needs_sentinels(vocabulary: Vocabulary, function: str) -> None:
    """See that there are the two sentinels that the shortest labels take.

    Raises:
        UserError: If not.
    """
    if len(vocabulary.sentinel_ids) < 2:
        raise UserError(
            f"{function} needs a tokenizer with sentinels (<extra_id_0>, <extra_id_1>, ...) but "
            f"this one has none: it is for span-denoising models such as T5."
        )


def mask_or_corrupt(
    inputs: dict[str, Tensor],
    tokenizer: Any,
    vocabulary: Vocabulary,
    chosen: Tensor,
    begins: Tensor,
    function: str,
) -> dict[str, Tensor]:
    """Put masks or sentinels in place of the chosen tokens, as the tokenizer has them.

    Args:
        inputs: ``input_ids``, ``attention_mask``, perhaps ``labels``.
        tokenizer: The tokenizer that made them.
        vocabulary: Its entries.
        chosen: Which tokens to mask, (n, length).
        begins: Which of them get a sentinel; the others belong to the sentinel before.
        function: The function's name, for messages.

    Returns:
        The inputs with masks, and labels: those that were given, else new ones.

    Raises:
        UserError: If the tokenizer has neither a mask token nor sentinels.
    """
    if vocabulary.mask_id is not None:
        return mask(inputs, chosen, vocabulary.mask_id)
    if len(vocabulary.sentinel_ids) < 2:
        raise UserError(
            f"{function} needs a tokenizer with a mask token or with sentinels (<extra_id_0>, ...) "
            f"but this one has neither: it is for masked language models and for span-denoising "
            f"sequence-to-sequence models."
        )
    return corrupt(inputs, tokenizer, vocabulary, chosen, begins)


def mask(inputs: dict[str, Tensor], chosen: Tensor, mask_id: int) -> dict[str, Tensor]:
    """Put the mask token in place of the chosen tokens; without labels, those tokens are them."""
    masked = inputs["input_ids"].masked_fill(chosen, mask_id)
    return {**with_labels(inputs, chosen), "input_ids": masked}


def with_labels(inputs: dict[str, Tensor], scored: Tensor) -> dict[str, Tensor]:
    """The inputs with labels at the given positions, unless there are labels already.

    There is an attention mask afterwards in any case.
    """
    labels = inputs.get("labels")
    if labels is None:
        labels = inputs["input_ids"].masked_fill(~scored, IGNORED_LABEL)
    return {"attention_mask": real(inputs).long(), **inputs, "labels": labels}
