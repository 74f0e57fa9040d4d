"""Which tokens may be masked, and exact random choices among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from finetune_lm.models.vocabulary import Vocabulary

if TYPE_CHECKING:
    from torch import Tensor


def maskable(inputs: dict[str, Tensor], vocabulary: Vocabulary) -> Tensor:
    """Which positions hold tokens of the text itself: no padding, no special tokens.

    An unknown token is a token of the text.

    Returns:
        Booleans, (n, length).
    """
    import torch

    ids = inputs["input_ids"]
    special = torch.tensor(sorted(vocabulary.special_ids), dtype=ids.dtype, device=ids.device)
    return real(inputs) & ~torch.isin(ids, special)


def real(inputs: dict[str, Tensor]) -> Tensor:
    """Which positions are not padding; all of them where there is no attention mask.

    Returns:
        Booleans, (n, length).
    """
    import torch

    if "attention_mask" in inputs:
        return inputs["attention_mask"] != 0
    return torch.ones_like(inputs["input_ids"], dtype=torch.bool)


def n_to_mask(n: Tensor, mask_prop: float) -> Tensor:
    """``max(round(mask_prop * n), 1)``, but never more than there are.

    ``round`` takes a half to the even neighbour.

    Args:
        n: How many tokens of each example may be masked: (n_examples,).
        mask_prop: The share of them to mask.

    Example:
        >>> import torch
        >>> n_to_mask(torch.tensor([0, 1, 30, 50]), 0.15)  # 4.5 and 7.5 are halves
        tensor([0, 1, 4, 8])
    """
    import torch

    return torch.minimum(round_half_even(n * np.float64(mask_prop)).clamp(min=1), n)


def round_half_even(values: Tensor) -> Tensor:
    """Whole numbers, halves rounded to the even neighbour, as by Python's ``round``."""
    return values.double().round().long()


def choose(allowed: Tensor, k: Tensor) -> Tensor:
    """Choose exactly ``k[i]`` of the allowed places of row ``i``, each choice equally likely.

    Draws from torch's global generator.

    Args:
        allowed: Booleans, (n, length).
        k: Not more than are allowed: (n,).

    Returns:
        Booleans, (n, length).
    """
    import torch

    keys = torch.rand(allowed.shape, dtype=torch.float64).to(allowed.device)
    order = keys.masked_fill_(~allowed, 2.0).argsort(dim=1)
    first = torch.arange(allowed.shape[1], device=allowed.device) < k[:, None]
    return torch.zeros_like(allowed).scatter_(1, order, first)
