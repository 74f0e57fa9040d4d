"""Sequences of different lengths, end to end in one array."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

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
        lengths = np.array([len(array) for array in arrays], dtype=np.int64)
        values = np.concatenate(arrays) if arrays else np.empty(0, dtype=np.int64)
        return cls(values, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))

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
        return Ragged.of(self[int(row)] for row in rows)
