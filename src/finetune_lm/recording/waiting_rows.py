"""Batches whose rows are made and written together, since most of that costs by the call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from finetune_lm.recording.recorder import Measured
    from finetune_lm.recording.shared_rows import Rows

MOST_ROWS = 2**13
"""How many rows wait at most, so that memory does not grow with the data. A batch that has more of
them is written at once."""


class WaitingRows:
    """Batches that were measured, whose rows wait to be written.

    Those of one data set are made together. What comes to a table does not depend on how many of
    them are.

    Args:
        writers: Are given rows, in the columns of `TokenRows`.
        at_most: How many rows wait at most; none if each batch is to be written as it comes.
    """

    def __init__(
        self, writers: Sequence[Callable[[Rows], object]], at_most: int = MOST_ROWS
    ) -> None:
        self._writers, self._at_most = writers, at_most
        self._batches: list[Measured] = []
        self._n_rows = 0

    def add(self, measured: Measured) -> None:
        """Let the rows of a batch wait, if somebody is to be given them."""
        if not self._writers or measured.tokens is None or measured.split.rows is None:
            return
        self._batches.append(measured)
        self._n_rows += len(measured.tokens)
        if self._n_rows >= self._at_most:
            self.write()

    def write(self) -> None:
        """Write all that wait."""
        self._n_rows = 0
        while self._batches:
            batches = _of_one_split(self._batches)
            del self._batches[: len(batches)]
            try:
                rows = batches[0].split.rows.of_batches(batches)
            except KeyboardInterrupt:
                self._batches[:0] = batches  # for the end of the table, which is still to come
                raise
            for write in self._writers:
                write(rows)


def _of_one_split(batches: Sequence[Measured]) -> list[Measured]:
    """The first of some batches, up to one of other data."""
    return list(takewhile(lambda each: each.split is batches[0].split, batches))
