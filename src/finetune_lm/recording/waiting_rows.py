"""Batches whose rows are made and written together, since most of that costs by the call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

    from finetune_lm.recording.recorder import Measured

MOST_ROWS = 2**13
"""How many rows wait at most, so that memory does not grow with the data. A batch that has more of
them is written at once."""


class WaitingRows:
    """Batches of one data set that were measured, whose rows wait to be written.

    What comes to a table does not depend on how many of them are written together.

    Args:
        writers: Are given rows, in the columns of `TokenRows`.
        at_most: How many rows wait at most; none if each batch is to be written as it comes.
    """

    def __init__(
        self, writers: Sequence[Callable[[pa.Table], object]], at_most: int = MOST_ROWS
    ) -> None:
        self._writers, self._at_most = writers, at_most
        self._batches: list[Measured] = []
        self._n_rows = 0

    def add(self, measured: Measured) -> None:
        """Let the rows of a batch wait, if somebody is to be given them."""
        if not self._writers or measured.tokens is None or measured.split.rows is None:
            return
        if self._batches and self._batches[0].split is not measured.split:
            self.write()
        self._batches.append(measured)
        self._n_rows += len(measured.tokens)
        if self._n_rows >= self._at_most:
            self.write()

    def write(self) -> None:
        """Write all that wait."""
        if not self._batches:
            return
        batches, self._batches, self._n_rows = self._batches, [], 0
        try:
            rows = batches[0].split.rows.of_batches(batches)
        except KeyboardInterrupt:
            self._batches = batches  # for the end of the table, which is still to come
            raise
        for write in self._writers:
            write(rows)
