"""Sequences of different lengths, end to end in one array, and padded tensors of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from finetune_lm.constants import IGNORED_LABEL

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from finetune_lm.models.tasks import Task

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Ragged:
    """Integer sequences stored end to end, so that a batch is cut out without a loop over tokens.

    Attributes:
        values: All sequences, one after another.
        starts: Where each begins in ``values``, with the end of the last one behind: (n + 1,).
    """

    values: IntArray
    starts: IntArray

    @classmethod
    def of(cls, sequences: Iterable[Sequence[int] | npt.NDArray[Any]]) -> Ragged:
        """Store sequences.

        Example:
            >>> Ragged.of([[5, 6], [7]]).padded(np.array([1, 0]), fill=0)
            array([[7, 0],
                   [5, 6]])
        """
        arrays = [np.asarray(sequence, dtype=np.int64) for sequence in sequences]
        return cls._of_values(_joined(arrays), np.array([len(array) for array in arrays]))

    @classmethod
    def of_column(cls, column: pa.ChunkedArray) -> Ragged:
        """Store the lists of a column of Arrow, read whole."""
        chunks = column.chunks
        lengths = [np.diff(chunk.offsets.to_numpy()) for chunk in chunks]
        values = [chunk.flatten().to_numpy() for chunk in chunks]
        return cls._of_values(_joined(values), _joined(lengths))

    @classmethod
    def of_padded(cls, rectangle: npt.NDArray[Any], lengths: npt.NDArray[Any]) -> Ragged:
        """Store what stands at the beginning of each row: (n, width), (n,)."""
        real = np.arange(rectangle.shape[1]) < lengths[:, None]
        return cls._of_values(rectangle[real], lengths)

    @classmethod
    def joined(cls, parts: Sequence[Ragged]) -> Ragged:
        """The sequences of several, one after another."""
        return cls._of_values(
            _joined([part.values for part in parts]), _joined([part.lengths for part in parts])
        )

    @classmethod
    def _of_values(cls, values: npt.NDArray[Any], lengths: npt.NDArray[Any]) -> Ragged:
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return cls(values.astype(np.int64, copy=False), starts)

    @property
    def lengths(self) -> IntArray:
        """The length of each sequence: (n,)."""
        return np.diff(self.starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> IntArray:
        return self.values[self.starts[row] : self.starts[row + 1]]

    def padded(self, rows: IntArray, fill: int, length: int | None = None) -> IntArray:
        """The given sequences as a rectangle, padded on the right.

        Args:
            rows: Which sequences, in order: (n,).
            fill: What padding holds.
            length: How wide to make it; by default as wide as the longest.

        Returns:
            An array of shape (n, length).
        """
        lengths = self.lengths[rows]
        width = int(lengths.max(initial=0)) if length is None else length
        real = np.arange(width) < lengths[:, None]
        rectangle = np.full((len(rows), width), fill, dtype=np.int64)
        rectangle[real] = self.values[(self.starts[rows][:, None] + np.arange(width))[real]]
        return rectangle

    def select(self, rows: IntArray) -> Ragged:
        """The given sequences, in that order."""
        lengths = self.lengths[rows]
        before = np.cumsum(lengths) - lengths
        places = np.arange(lengths.sum()) + np.repeat(self.starts[rows] - before, lengths)
        return self._of_values(self.values[places], lengths)

    def ones(self) -> Ragged:
        """A one in each place."""
        return Ragged(np.ones_like(self.values), self.starts)

    def column(self, kind: pa.DataType) -> pa.ListArray:
        """The sequences as a column of Arrow, of items of a type."""
        import pyarrow as pa

        offsets = pa.array(self.starts, pa.int32())
        return pa.ListArray.from_arrays(offsets, pa.array(self.values, kind))

    def tolist(self) -> list[list[int]]:
        """The sequences as lists."""
        values, starts = self.values.tolist(), self.starts.tolist()
        return [values[begin:end] for begin, end in itertools.pairwise(starts)]


def _joined(arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return np.concatenate(arrays) if arrays else np.empty(0, dtype=np.int64)


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
    return Ragged.of_padded(input_ids, lengths), Ragged.of_padded(labels, label_lengths)
