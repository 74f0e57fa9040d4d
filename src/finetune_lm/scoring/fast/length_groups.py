"""A batch as two, of short and of long examples, so that the short ones have less padding.

For models that need their padding, but to which it does not matter how much of it there is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetune_lm.scoring.fast.ragged import split

if TYPE_CHECKING:
    from torch import Tensor

# How many places the groups may take, relative to the batch: calling a model twice costs, too.
_MOST = 0.75


@dataclass(frozen=True)
class Group:
    """Some examples of a batch, and where in them something is asked about.

    Attributes:
        inputs: What the model is called with for them.
        rows: The example of each position that is asked about, as its row in the group: (k,).
        positions: Its place in that example: (k,).
        asked: Which of the batch's positions these are: (k,).
    """

    inputs: dict[str, Tensor]
    rows: Tensor
    positions: Tensor
    asked: Tensor


def in_groups(inputs: dict[str, Tensor], rows: Tensor, positions: Tensor) -> list[Group]:
    """The examples of a batch in one group or in two, without those that nothing is asked about.

    Args:
        inputs: What the model is called with, without labels, padded on the right: on the CPU.
        rows: The example of each position that is asked about: (k,).
        positions: Its place in that example: (k,).
    """
    import torch

    lengths = inputs["attention_mask"].sum(dim=1)
    n, longest = inputs["attention_mask"].shape
    last = positions.new_zeros(n).scatter_reduce(0, rows, positions + 1, "amax")
    cost, padded = lengths, longest
    if "decoder_input_ids" in inputs:
        cost, padded = lengths + last, longest + inputs["decoder_input_ids"].shape[1]
    parts = split(cost.numpy())
    if len(parts) == 1 or sum(len(p) * int(cost[p].max()) for p in parts) > _MOST * n * padded:
        return [Group(inputs, rows, positions, torch.arange(len(rows)))]
    groups = []
    for part in map(torch.from_numpy, parts):
        place = torch.full((n,), -1)
        place[part] = torch.arange(len(part))
        asked = (place[rows] >= 0).nonzero().squeeze(-1)
        if not len(asked):
            continue
        longest = max(int(lengths[part].max()), 1)
        widths = dict.fromkeys(("input_ids", "attention_mask"), longest)
        widths["decoder_input_ids"] = int(last[part].max())
        chosen = {name: tensor[part, : widths.get(name)] for name, tensor in inputs.items()}
        groups.append(Group(chosen, place[rows[asked]], positions[asked], asked))
    return groups
