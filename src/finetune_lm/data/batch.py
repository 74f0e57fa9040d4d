"""One batch: what a model is called with, and where each part of it comes from.

Its way to a model's device, and that of numbers back, is not waited for if that is a CUDA GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from finetune_lm.constants import IGNORED_LABEL
from finetune_lm.data.ragged_arrays import IntArray, as_tensor

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Some examples of a data set, ready for the model; n of them.

    Attributes:
        inputs: ``input_ids`` and ``attention_mask``, (n, length), and ``labels``,
            (n, label_length).
        example: The row of the data set that each comes from: (n,).
        is_label: False where a label is padding: (n, label_length).
        n_start: How many of an example's first labels are start tokens, not of its text: (n,).
        aligned: Whether label ``j`` of an example is still token ``j`` of its labels' text: (n,).
        input_texts: What the model is fed, as text.
        input_labels: What it is to predict, as text.
        is_last_part: False where preprocessing made so many examples of one batch that they go to
            the model in several, and this is not the last of them.
    """

    inputs: dict[str, Tensor]
    example: IntArray
    is_label: Tensor
    n_start: Tensor
    aligned: npt.NDArray[np.bool_]
    input_texts: list[str]
    input_labels: list[str]
    is_last_part: bool = True

    def __len__(self) -> int:
        return len(self.example)

    def select(self, part: slice | IntArray) -> Batch:
        """Some of the examples, as wide as all of them."""
        rows = np.arange(len(self))[part]
        return replace(
            self,
            inputs={name: tensor[rows] for name, tensor in self.inputs.items()},
            example=self.example[rows],
            is_label=self.is_label[rows],
            n_start=self.n_start[rows],
            aligned=self.aligned[rows],
            input_texts=[self.input_texts[i] for i in rows],
            input_labels=[self.input_labels[i] for i in rows],
        )

    @classmethod
    def joined(cls, batches: Sequence[Batch]) -> Batch:
        """Several batches of a data set as one, as wide as the widest."""
        import torch

        if len(batches) == 1:
            return batches[0]
        fills = {"input_ids": 0, "attention_mask": 0, "labels": IGNORED_LABEL}
        inputs = {
            name: _stacked([batch.inputs[name] for batch in batches], fill)
            for name, fill in fills.items()
        }
        return cls(
            inputs,
            np.concatenate([batch.example for batch in batches]),
            _stacked([batch.is_label for batch in batches], fill=False),
            torch.cat([batch.n_start for batch in batches]),
            np.concatenate([batch.aligned for batch in batches]),
            [text for batch in batches for text in batch.input_texts],
            [text for batch in batches for text in batch.input_labels],
        )

    def without_padding(self) -> list[tuple[Tensor, Batch]]:
        """The examples of each length, as a batch that needs no padding.

        Returns:
            The rows that they have here, (n,), and they themselves.
        """
        import torch

        n_inputs = self.inputs["attention_mask"].sum(dim=1).clamp(min=1)
        n_labels = self.is_label.sum(dim=1).clamp(min=1)
        # A model cannot be called with inputs or labels of no width.
        lengths = torch.stack([n_inputs, n_labels], dim=1)
        found = []
        for n_input, n_label in lengths.unique(dim=0).tolist():  # type: ignore[no-untyped-call]
            [rows] = ((n_inputs == n_input) & (n_labels == n_label)).nonzero(as_tuple=True)
            part = self.select(rows.numpy())
            widths = {"input_ids": n_input, "attention_mask": n_input, "labels": n_label}
            part = replace(
                part,
                inputs={
                    name: tensor[:, : widths[name]].contiguous()
                    for name, tensor in part.inputs.items()
                },
                is_label=part.is_label[:, :n_label],
            )
            found.append((rows, part))
        return found


def _stacked(rectangles: Sequence[Tensor], fill: int) -> Tensor:
    """Rectangles one below the other, filled up on the right to the width of the widest."""
    arrays = [each.numpy() for each in rectangles]
    width = max(each.shape[1] for each in arrays)
    stacked = np.full((sum(map(len, arrays)), width), fill, dtype=arrays[0].dtype)
    begin = 0
    for each in arrays:
        stacked[begin : begin + len(each), : each.shape[1]] = each
        begin += len(each)
    return as_tensor(stacked)


def to_device(tensor: Tensor, device: torch.device, *, copy: bool = False) -> Tensor:
    """A tensor where the model is.

    Memory that may be changed afterwards may be given: CUDA has read it when this returns.

    Args:
        tensor: It.
        device: Where the model is.
        copy: Whether it is to be a copy in any case.
    """
    return tensor.to(device, non_blocking=device.type == "cuda", copy=copy)


def on_device(tensors: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """What a model is called with, where the model is."""
    return {name: to_device(tensor, device) for name, tensor in tensors.items()}


def from_device(tensor: Tensor) -> Callable[[], npt.NDArray[Any]]:
    """Begin to copy a tensor to where numpy can read it.

    Args:
        tensor: It, without gradients. It may be changed afterwards, unless it is on the CPU.

    Returns:
        Waits for what is computed before the copy, and returns the numbers.
    """
    import torch

    if tensor.device.type != "cuda":
        numbers: npt.NDArray[Any] = tensor.cpu().numpy()
        return lambda: numbers
    arrived = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    arrived.copy_(tensor, non_blocking=True)
    is_there = torch.cuda.Event()  # type: ignore[no-untyped-call]
    is_there.record()

    def wait() -> npt.NDArray[Any]:
        is_there.synchronize()
        found: npt.NDArray[Any] = arrived.numpy()
        return found

    return wait
