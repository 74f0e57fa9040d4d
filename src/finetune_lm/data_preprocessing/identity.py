"""Feed the data as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def identity(inputs: dict[str, Tensor], tokenizer: Any) -> dict[str, Tensor]:
    """Leave inputs as they are; where no labels are given, the inputs are the labels.

    Args:
        inputs: ``input_ids``, ``attention_mask`` and perhaps ``labels``, each (n, length).
        tokenizer: Not used; every preprocessing function is given it.

    Returns:
        The same with ``labels``.

    Example:
        >>> import torch
        >>> identity({"input_ids": torch.tensor([[7, 8]])}, tokenizer=None)["labels"]
        tensor([[7, 8]])
    """
    return {"labels": inputs["input_ids"].clone(), **inputs}
