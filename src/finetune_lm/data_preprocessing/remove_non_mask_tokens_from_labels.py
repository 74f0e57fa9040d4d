"""Score only the masks that a data file brings with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune_lm.constants import IGNORED_LABEL, MLM
from finetune_lm.data_preprocessing._settings import for_tasks
from finetune_lm.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


@for_tasks(MLM, needs_masks=True)
def remove_non_mask_tokens_from_labels(
    inputs: dict[str, Tensor], tokenizer: Any
) -> dict[str, Tensor]:
    """Ignore the label of every position whose input is not the mask token.

    For data whose texts have mask tokens in them and whose labels say what belongs there: only the
    masked positions then count in the loss, and only they have rows.

    Args:
        inputs: ``input_ids`` and ``labels``, each (n, length), and what else there is.
        tokenizer: A tokenizer with a mask token.

    Returns:
        The same with -100 in ``labels`` wherever ``input_ids`` is not the mask token.

    Raises:
        UserError: If the tokenizer has no mask token, or there are no labels of the inputs' shape.

    Example:
        >>> import torch
        >>> from types import SimpleNamespace
        >>> inputs = {"input_ids": torch.tensor([[7, 4, 8]]), "labels": torch.tensor([[7, 9, 8]])}
        >>> tokenizer = SimpleNamespace(mask_token_id=4)
        >>> remove_non_mask_tokens_from_labels(inputs, tokenizer)["labels"]
        tensor([[-100,    9, -100]])
    """
    if tokenizer.mask_token_id is None:
        raise UserError(
            "remove_non_mask_tokens_from_labels needs a tokenizer with a mask token but this one "
            "has none: it is for masked language models."
        )
    if "labels" not in inputs:
        raise UserError(
            "remove_non_mask_tokens_from_labels needs labels but the data file gives none. "
            "Use a .json.gz file with 'text' (masks in it) and 'labels' (what they stand for)."
        )
    if inputs["labels"].shape != inputs["input_ids"].shape:
        raise UserError(
            "remove_non_mask_tokens_from_labels needs a label for each input token but got inputs "
            f"of shape {tuple(inputs['input_ids'].shape)} and labels of shape "
            f"{tuple(inputs['labels'].shape)}."
        )
    masked = inputs["input_ids"] == tokenizer.mask_token_id
    return {**inputs, "labels": inputs["labels"].masked_fill(~masked, IGNORED_LABEL)}
