"""What came out of a model for the parts of a batch, as what comes out for the whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from finetune_lm.scoring.fast.cross_entropy import TargetScores


def joined_outputs(parts: list[Any], sizes: list[int], order: Tensor | None = None) -> Any:
    """The outputs for several parts of a batch as those for the whole.

    Tensors with a row for each example, and collections of such, are put together, those of shorter
    examples with zeros behind; the loss is the mean over labels. What is left out are caches, and
    single values such as other losses.

    Args:
        parts: The outputs for each part.
        sizes: How many labels of each count.
        order: Where in the parts, one behind the other, each example of the batch is.
    """
    import torch

    counted = [(part.loss, n) for part, n in zip(parts, sizes, strict=True) if n]
    total = sum(loss * n for loss, n in counted) / max(sum(sizes), 1)
    fields = {
        name: _joined([part[name] for part in parts], order)
        for name, value in parts[0].items()
        if isinstance(value, (torch.Tensor, tuple, list)) and getattr(value, "ndim", 1) > 0
    }
    return type(parts[0])(loss=torch.as_tensor(total), **fields)


def joined_scores(parts: list[TargetScores], sizes: list[int]) -> TargetScores:
    """The scores for several parts of a batch as those for the whole.

    Args:
        parts: The scores for each part.
        sizes: How many labels of each count, which the scores tell as well.
    """
    import torch

    from finetune_lm.scoring.fast.cross_entropy import TargetScores

    del sizes
    nll, best_id, best_nll = (
        torch.cat([getattr(part, name) for part in parts])
        for name in ("nll", "best_id", "best_nll")
    )
    # What is of positions behind the labels comes last, of all parts.
    measured = {
        name: torch.cat(
            [
                *(part.measured[name][: len(part.nll)] for part in parts),
                *(part.measured[name][len(part.nll) :] for part in parts),
            ]
        )
        for name in parts[0].measured
    }
    return TargetScores(nll.mean(), nll, best_id, best_nll, measured)


def _joined(values: list[Any], order: Tensor | None) -> Any:
    import torch

    if not isinstance(values[0], torch.Tensor):
        return tuple(_joined(list(each), order) for each in zip(*values, strict=True))
    if order is None:
        return torch.cat(values)
    shape = [sum(map(len, values)), *map(max, zip(*(v.shape[1:] for v in values), strict=True))]
    joined = values[0].new_zeros(shape)
    begin = 0
    for value in values:
        joined[(slice(begin, begin + len(value)), *map(slice, value.shape[1:]))] = value
        begin += len(value)
    return joined[order.to(joined.device)]
