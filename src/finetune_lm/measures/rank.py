"""How many tokens the model finds likelier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_lm.measures._measure import Measure
from finetune_lm.scoring.measuring import LogitRows

if TYPE_CHECKING:
    from torch import Tensor


class Rank(Measure):
    """The rank of a token: 1 + the number of entries with a strictly higher logit.

    Args:
        model: The model.
        tokenizer: Its tokenizer.

    Example:
        >>> Rank(model=None, tokenizer=None)(torch.tensor([[0.1, 0.3, 0.2]]), torch.tensor([0]))
        {'rank': tensor([3.])}
    """

    columns = ("rank",)
    integers = frozenset({"rank"})
    reads_logits = True

    def __init__(self, model: Any, tokenizer: Any) -> None:
        del model, tokenizer

    def of_rows(self, rows: LogitRows, beside: Any = None) -> dict[str, Tensor]:
        """See `Measure.of_rows`."""
        import torch

        logits, targets = rows.logits, rows.targets
        row = torch.arange(len(targets), device=targets.device) if rows.row is None else rows.row
        bounds = logits[row, targets]
        if logits.device.type != "cpu":
            found = (rows.of_targets(logits) > bounds[:, None]).sum(dim=-1)
            return {"rank": (found + 1).float().masked_fill_(bounds.isnan(), torch.nan)}
        values, which, least = logits.numpy(), row.numpy(), bounds.numpy()
        width = values.shape[-1]
        # Texts that begin alike ask for the same token of the same row.
        pairs, first, inverse = np.unique(
            which * width + targets.numpy(), return_index=True, return_inverse=True
        )
        higher = np.empty(width, dtype=bool)
        ranks = np.empty(len(pairs), dtype=np.float32)
        # A row at a time, numpy counts bytes that are still in the processor's cache.
        for i, place in enumerate(first):
            np.greater(values[which[place]], least[place], out=higher)
            ranks[i] = np.count_nonzero(higher) + 1
        # A logit that is no number has no rank.
        ranks[np.isnan(least[first])] = np.nan
        return {"rank": torch.from_numpy(ranks[inverse])}
