"""What tokens and words cost as a model learns: the tables of training, validation and probes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from finetune_lm.recording.recorder import ProbePass, Recorder
from finetune_lm.recording.run_columns import RunColumns
from finetune_lm.recording.tables import TableState, TableWriter
from finetune_lm.recording.word_rows import WordRows
from finetune_lm.recording.word_table import WordTable

if TYPE_CHECKING:
    from finetune_lm.recording.shared_rows import Rows


class _GrowingTable(Recorder):
    """A table that grows while a model learns.

    Args:
        path: The table.
        run: What all rows have in common.
        state: How far it had come, as `state_dict` told, if it is gone on with; None for a new one.
    """

    with_step: ClassVar[bool] = False

    def __init__(self, path: Path, run: RunColumns, state: Mapping[str, Any] | None = None) -> None:
        columns = run.names(with_step=self.with_step)
        self._table = TableWriter(path, columns, None if state is None else TableState(**state))

    @property
    def n_rows(self) -> int:
        """How many rows there are."""
        return self._table.n_rows

    def end(self) -> None:
        """Close the table."""
        self._table.close()

    def state_dict(self) -> dict[str, Any]:
        """How far it has come."""
        return asdict(self._table.state())


class TokenTable(_GrowingTable):
    """Writes rows as they come, and ends a piece of the table with each validation."""

    def token_rows(self, rows: Rows) -> None:
        """Write them."""
        self._table.write(rows)

    def pass_over(
        self, dataset_type: str, epoch: int, means: Mapping[str, float], mode: str | None = None
    ) -> None:
        """Put an epoch on disk."""
        if dataset_type == "validation":
            self._table.end_piece()


class ProbeTable(_GrowingTable):
    """Writes the rows of probes, and ends a piece of the table with each pass."""

    with_step = True

    def probe_rows(self, rows: Rows) -> None:
        """Write them."""
        self._table.write(rows)

    def probes_over(self, at: ProbePass) -> None:
        """Put a pass on disk."""
        self._table.end_piece()


def word_rows(run: RunColumns, *, with_step: bool = False) -> WordRows:
    """Makes the words of a table of tokens."""
    columns = run.names(with_step=with_step)
    return WordRows(columns, run.over_word, with_pll=run.with_pll)


class _GrowingWords(Recorder):
    """A table of words that grows while a model learns.

    Args:
        path: The table.
        run: What all rows of the table of tokens have in common.
        state: How far it had come, as `state_dict` told, if it is gone on with; None for a new one.
    """

    with_step: ClassVar[bool] = False

    def __init__(self, path: Path, run: RunColumns, state: Mapping[str, Any] | None = None) -> None:
        self._table = WordTable(path, word_rows(run, with_step=self.with_step), state)

    @property
    def n_rows(self) -> int:
        """How many rows there are."""
        return self._table.n_rows

    def end(self) -> None:
        """Close the table, and say of how many words there is no surprisal."""
        self._table.close()
        self._table.tell()

    def state_dict(self) -> dict[str, Any]:
        """How far it has come."""
        return self._table.state_dict()


class TrainingWords(_GrowingWords):
    """Writes the words of rows as they come, and ends a piece with each validation."""

    def token_rows(self, rows: Rows) -> None:
        """Write their words."""
        self._table.write(rows)

    def pass_over(
        self, dataset_type: str, epoch: int, means: Mapping[str, float], mode: str | None = None
    ) -> None:
        """Put an epoch on disk."""
        if dataset_type == "validation":
            self._table.end_piece()


class ProbeWords(_GrowingWords):
    """Writes the words of probes, and ends a piece of the table with each pass."""

    with_step = True

    def probe_rows(self, rows: Rows) -> None:
        """Write their words."""
        self._table.write(rows)

    def probes_over(self, at: ProbePass) -> None:
        """Put a pass on disk."""
        self._table.end_piece()
