"""Between padded tensors and sequences of different lengths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from finetune_lm.constants import IGNORED_LABEL
from finetune_lm.data.ragged_arrays import IntArray, Ragged
from finetune_lm.models.tasks import Task

if TYPE_CHECKING:
    from torch import Tensor


def as_tensor(array: npt.NDArray[Any]) -> Tensor:
    """An array as a tensor, without a copy where that is possible."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(array))


def real_mask(lengths: IntArray, width: int) -> Tensor:
    """True for the first ``lengths[i]`` places of row ``i``: (n, width)."""
    return as_tensor(np.arange(width) < lengths[:, None])


def unpadded(outputs: dict[str, Tensor], task: Task) -> tuple[Ragged, Ragged]:
    """Inputs and labels without their padding.

    Input padding is where attention is 0. Labels that lie beside the inputs are as long as these;
    others end with their last label that is not ignored.

    Args:
        outputs: ``input_ids`` and ``attention_mask``, (n, length), and ``labels``.
        task: The kind of model that they are for.
    """
    input_ids = outputs["input_ids"].numpy()
    labels = outputs["labels"].numpy()
    lengths = outputs["attention_mask"].numpy().sum(axis=1)
    beside = labels.shape == input_ids.shape and (
        task.labels_parallel_inputs or bool((labels == input_ids).all())
    )
    if beside:
        label_lengths = lengths
    else:
        scored = labels != IGNORED_LABEL
        last = labels.shape[1] - np.argmax(scored[:, ::-1], axis=1)
        label_lengths = np.where(scored.any(axis=1), last, 0)
    return (
        Ragged.of(row[:length] for row, length in zip(input_ids, lengths, strict=True)),
        Ragged.of(row[:length] for row, length in zip(labels, label_lengths, strict=True)),
    )
