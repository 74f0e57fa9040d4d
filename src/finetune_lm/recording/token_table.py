"""``metrics.csv.gz``: what every token costs in every batch of every epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from finetune_lm.recording.columns import table_columns
from finetune_lm.recording.recorder import Measured, Recorder
from finetune_lm.recording.tables import TableState, TableWriter
from finetune_lm.recording.token_rows import RunColumns


class TokenTable(Recorder):
    """Writes the rows of each batch, and ends a piece of the table with each validation.

    Args:
        path: The table.
        run: What all rows have in common.
        state: How far it had come, as `state_dict` told, if it is gone on with; None for a new one.
    """

    def __init__(self, path: Path, run: RunColumns, state: Mapping[str, Any] | None = None) -> None:
        columns = table_columns(
            with_sequence_type=run.task.reports_greedy_rows,
            losses=run.losses,
            metadata=run.metadata.names,
        )
        self._table = TableWriter(path, columns, None if state is None else TableState(**state))

    @property
    def n_rows(self) -> int:
        """How many rows there are."""
        return self._table.n_rows

    def batch(self, measured: Measured) -> None:
        """Write its rows."""
        self._table.write(measured.split.rows.of_batch(measured))

    def pass_over(self, dataset_type: str, epoch: int, means: Mapping[str, float]) -> None:
        """Put an epoch on disk."""
        if dataset_type == "validation":
            self._table.end_piece()

    def end(self) -> None:
        """Close the table."""
        self._table.close()

    def state_dict(self) -> dict[str, Any]:
        """How far it has come."""
        return asdict(self._table.state())
