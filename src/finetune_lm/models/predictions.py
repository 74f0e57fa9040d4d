"""Whether a change of a model has changed what it predicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune_lm.models.inference import without_learning
from finetune_lm.models.loading import length_limit
from finetune_lm.models.model_calls import called
from finetune_lm.models.tasks import sample_inputs

if TYPE_CHECKING:
    from torch import Tensor

_N_TEXTS, _LENGTH = 4, 24


def sample_predictions(model: Any, tokenizer: Any, with_ids: list[int] | None = None) -> Tensor:
    """What a model predicts in a few sequences of tokens, the same each time.

    The tokens are drawn from the whole vocabulary, without touching torch's generator.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        with_ids: Tokens that are to be among them.

    Returns:
        Log-probabilities in nats, in float32 on the CPU: (n, length, vocabulary).
    """
    import torch

    known = sorted(set(tokenizer.get_vocab().values()))
    length = min(_LENGTH, length_limit(model, tokenizer) or _LENGTH)
    drawn = torch.randint(
        len(known), (_N_TEXTS * length,), generator=torch.Generator().manual_seed(0)
    )
    ids = torch.tensor(known)[drawn]
    special = [tokenizer.mask_token_id, *(with_ids or [])]
    wanted = [i for i in dict.fromkeys(special) if i is not None][: len(ids)]
    ids[: len(wanted)] = torch.tensor(wanted, dtype=ids.dtype)
    # Spread, so that some of them have others on both sides.
    ids = ids.reshape(length, _N_TEXTS).T.contiguous()
    with without_learning(model):
        device = next(model.parameters()).device
        logits: Tensor = called(model, sample_inputs(model, ids.to(device))).logits
    return logits.float().log_softmax(dim=-1).cpu()


def largest_difference(one: Tensor, other: Tensor) -> float:
    """By how many nats two predictions differ at most; infinite if one is no number."""
    import torch

    if one.shape != other.shape:
        return float("inf")
    # What both rule out is the same in both.
    difference = torch.where(one == other, torch.zeros_like(one), (one - other).abs())
    return float(difference.nan_to_num(nan=float("inf")).max())
