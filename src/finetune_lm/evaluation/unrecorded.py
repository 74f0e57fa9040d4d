"""Training and validation of which no table is kept: no row is even made.

The losses are the same with them and without.
"""

from __future__ import annotations

from typing import Any

from finetune_lm.data.batch import Batch
from finetune_lm.recording.tables import TableState, TableWriter
from finetune_lm.recording.token_rows import TokenRows
from finetune_lm.scoring.scorer import Score


class NoRows(TokenRows):
    """Takes the place of `TokenRows` in a split whose tokens are not put on record."""

    def __init__(self) -> None:
        pass

    def scored(self, batch: Batch, score: Score) -> Score:
        """As it came: nobody will ask."""
        return score

    def of_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Nothing, for a `NoTable` to write."""

    def warn_if_empty(self) -> None:
        """Nothing is missing from a table that is not there."""


class NoTable(TableWriter):
    """Takes the place of a `TableWriter` and writes nothing."""

    def __init__(self) -> None:
        pass

    @property
    def n_rows(self) -> int:
        """None are written."""
        return 0

    def state(self) -> TableState:
        """That of a table at its beginning."""
        return TableState()

    def write(self, rows: Any) -> None:
        """Do nothing."""

    def end_piece(self) -> None:
        """Do nothing."""
