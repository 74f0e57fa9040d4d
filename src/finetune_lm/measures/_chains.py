"""What words of several tokens cost a causal model behind a context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from finetune_lm.constants import LM
from finetune_lm.models.baseline import origin_of
from finetune_lm.models.compiling import is_compiled
from finetune_lm.models.inference import without_learning
from finetune_lm.models.spelling import Spelling
from finetune_lm.models.tasks import TASKS
from finetune_lm.scoring.scorer import scorer_of

if TYPE_CHECKING:
    from torch import Tensor

# How many tokens go through the model together.
_TOKENS_TOGETHER = 4096


def costs_of_chains(
    model: Any,
    inputs: Mapping[str, Tensor],
    places: tuple[Tensor, Tensor],
    chains: Sequence[Spelling],
) -> Tensor:
    """What each chain of tokens costs behind each position, in nats, in eval mode.

    Args:
        model: A causal model.
        inputs: What it is called with: ``input_ids``, (n, length).
        places: The example of each position and its place in it: (k,) each.
        chains: The ids of each chain, at least one.

    Returns:
        (k, number of chains).
    """
    import torch

    layer = _layer_of(model)
    rows, positions = places
    ids = inputs["input_ids"]
    costs = torch.zeros(len(rows), len(chains))
    with without_learning(model):
        for j, chain in enumerate(chains):
            for part in _parts(positions, len(chain)):
                costs[part, j] = _costs(layer, ids[rows[part]], positions[part], chain)
    return costs


def _layer_of(model: Any) -> Any:
    fast = origin_of(model).fast and not is_compiled(model)
    return scorer_of(model, TASKS[LM], fast=fast).layer()


def _parts(positions: Tensor, n: int) -> Sequence[slice]:
    longest = int(positions.max()) + 1 + n if len(positions) else 1
    size = max(1, _TOKENS_TOGETHER // longest)
    return [slice(begin, begin + size) for begin in range(0, len(positions), size)]


def _costs(layer: Any, ids: Tensor, positions: Tensor, chain: Spelling) -> Tensor:
    """What a chain costs behind position ``positions[i]`` of the text ``ids[i]``: (n,)."""
    import torch

    n, m = len(ids), len(chain)
    length = int(positions.max()) + m
    tokens = torch.zeros(n, length, dtype=ids.dtype)
    width = min(length, ids.shape[1])
    tokens[:, :width] = ids[:, :width]
    place = positions[:, None] + torch.arange(1, m)
    tokens[torch.arange(n)[:, None], place] = torch.tensor(chain[:-1], dtype=ids.dtype)
    mask = (torch.arange(length) < (positions + m)[:, None]).long()
    tokens = tokens * mask
    asked_rows = torch.arange(n).repeat_interleave(m)
    asked = (positions[:, None] + torch.arange(m)).reshape(-1)
    logits = layer.logits({"input_ids": tokens, "attention_mask": mask}, asked_rows, asked).float()
    targets = torch.tensor(chain, device=logits.device).repeat(n)
    cost = logits.logsumexp(-1) - logits.gather(-1, targets[:, None])[:, 0]
    costs: Tensor = cost.view(n, m).sum(dim=1).cpu()
    return costs
