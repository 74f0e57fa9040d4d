"""Tables of pairs and their summary, written as token rows come."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc

from finetune_lm.analysis.item_columns import metadata_columns
from finetune_lm.analysis.pair_summary import numbers_of
from finetune_lm.analysis.pairs import (
    Asked,
    PassResult,
    PassSplitter,
    columns_of_pass,
    needed_columns,
    pair_columns,
    summary_columns,
)
from finetune_lm.errors import UserError
from finetune_lm.recording.columns import MODE, has_modes
from finetune_lm.recording.csv_text import csv_text
from finetune_lm.recording.recorder import ProbePass, Recorder
from finetune_lm.recording.shared_rows import Rows
from finetune_lm.recording.tables import TableState, TableWriter
from finetune_lm.whole_files import write_whole

RESULTS_SUFFIX = "_results.csv.gz"
PAIRS_SUFFIX = "_pairs.csv.gz"
SUMMARY_SUFFIX = "_summary.csv"
"""How the name of a table of tokens ends, and in place of that those of its tables of pairs."""


class _GrowingText:
    """A plain CSV file that rows are put behind, a pass's at a time.

    Args:
        path: The file.
        columns: The columns, in order.
        n_bytes: How long it was, if it is gone on with. What came after is cut off.

    Raises:
        UserError: If it is gone on with and is shorter.
    """

    def __init__(self, path: Path, columns: Sequence[str], n_bytes: int = 0) -> None:
        self._path, self._columns = path, columns
        self.n_bytes = n_bytes
        path.touch()
        size = path.stat().st_size
        if size < self.n_bytes:
            raise UserError(
                f"{path} must have the {self.n_bytes} bytes that the run had written when its "
                f"checkpoint was made, but has {size}. Put it back, or start again in another "
                f"output_dir."
            )
        os.truncate(path, self.n_bytes)

    def write(self, rows: pa.Table) -> None:
        """Put rows behind those that are there, and see them safely on disk."""
        text = csv_text(with_columns(rows, self._columns), header=not self.n_bytes)
        with self._path.open("ab") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        self.n_bytes += len(text)


class PairTables:
    """Takes in rows of tokens, and writes what is compared in them, a pass after another.

    Args:
        paths: Where the table of pairs and where the summary goes.
        asked: What is asked.
        columns: The columns of the token table, in order.
        state: How far both had come, as `state_dict` told, if they are gone on with.
    """

    def __init__(
        self,
        paths: tuple[Path, Path],
        asked: Asked,
        columns: Sequence[str],
        state: Mapping[str, Any] | None = None,
    ) -> None:
        metadata, of_pass = metadata_columns(columns), columns_of_pass(columns)
        self._splitter = PassSplitter(asked, metadata, of_pass)
        taken_up = None if state is None else TableState(**state.get("pairs", {}))
        self._pairs = TableWriter(paths[0], pair_columns(of_pass, metadata), taken_up)
        n_bytes = 0 if state is None else state.get("summary", 0)
        self._summary = _GrowingText(paths[1], summary_columns(of_pass), n_bytes)
        self.names: set[str | None] = set()
        """The predictions and contrasts that were worked out."""
        self.numbers: dict[str, float] = dict((state or {}).get("numbers", {}))
        """Accuracies and mean differences of the last pass over each data set, by name."""

    @property
    def n_rows(self) -> int:
        """How many rows the table of pairs has."""
        return self._pairs.n_rows

    def add(self, rows: pa.Table) -> None:
        """Take in rows of tokens."""
        self._write(self._splitter.add(rows))

    def end_pass(self) -> None:
        """All rows of a pass over a data set were taken in."""
        self._write(self._splitter.finish())

    def _write(self, results: Iterable[PassResult]) -> None:
        for result in results:
            self._pairs.write(with_columns(result.pairs, self._pairs.columns))
            self._pairs.end_piece()
            self._summary.write(result.summary)
            self.names.update(result.summary["comparison_name"].to_pylist())
            self.numbers.update(numbers_of(result.summary))

    def state_dict(self) -> dict[str, Any]:
        """How far both tables have come."""
        return {
            "pairs": asdict(self._pairs.state()),
            "summary": self._summary.n_bytes,
            "numbers": self.numbers,
        }

    def close(self) -> None:
        """Close the tables."""
        self._pairs.close()


class ProbePairs(Recorder):
    """Leaves pairs and their summary of each pass over the probes.

    Rows of a data set are kept until it is gone through. A training that is stopped in its middle
    has them in its checkpoint.

    Args:
        paths: Where the table of pairs and where the summary goes.
        asked: What is asked.
        columns: The columns of the table of probes, in order.
        state: How far it had come, as `state_dict` told, if it is gone on with.
    """

    def __init__(
        self,
        paths: tuple[Path, Path],
        asked: Asked,
        columns: Sequence[str],
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self._tables = PairTables(paths, asked, columns, state)
        self._needed = needed_columns(columns)
        self._of_dataset = ["dataset_name", *([MODE] if has_modes(columns) else [])]
        self._rows: list[pa.Table] = []
        if (kept := (state or {}).get("rows")) is not None:
            self._rows = [pa.ipc.open_stream(kept).read_all()]

    @property
    def numbers(self) -> dict[str, float]:
        """Accuracies and mean differences of the last pass over each data set, by name."""
        return self._tables.numbers

    def probe_rows(self, rows: Rows) -> None:
        """Keep rows, and score those of the data set before."""
        if not len(rows):
            return
        table = rows.select([name for name in self._needed if name in rows.names]).table
        if self._rows and self._dataset_of(self._rows[0]) != self._dataset_of(table):
            self._score()
        self._rows.append(table)

    def probes_over(self, at: ProbePass) -> None:
        """Score those of the last data set."""
        self._score()

    def _dataset_of(self, rows: pa.Table) -> list[Any]:
        return [rows[name][0].as_py() for name in self._of_dataset]

    def _score(self) -> None:
        rows, self._rows = self._rows, []
        for part in rows:
            self._tables.add(part)
        self._tables.end_pass()

    def end(self) -> None:
        """Close the tables."""
        self._tables.close()

    def state_dict(self) -> dict[str, Any]:
        """How far it has come."""
        rows = None
        if self._rows:
            sink = pa.BufferOutputStream()
            whole = pa.concat_tables(self._rows)
            with pa.ipc.new_stream(sink, whole.schema) as stream:
                stream.write_table(whole)
            rows = sink.getvalue().to_pybytes()
        return {**self._tables.state_dict(), "rows": rows}


def with_columns(rows: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Rows with these columns, those that they lack missing."""
    for name in columns:
        if name not in rows.column_names:
            rows = rows.append_column(name, pa.nulls(len(rows), pa.string()))
    return rows.select(list(columns))


class _NothingComparedError(Exception):
    """No data set has anything to compare, so that no table is left."""


@contextmanager
def pair_tables(stem: Path, asked: Asked, columns: Sequence[str]) -> Iterator[PairTables | None]:
    """Write tables of pairs whole, beside a table of tokens.

    Args:
        stem: Path and beginning of the names of both.
        asked: What is asked.
        columns: The columns of the token table, in order.

    Yields:
        Who takes in the rows; None if no data set has pairs. Where nothing is compared there are
        no such tables.
    """
    if asked.datasets is not None and not asked.datasets:
        yield None
        return
    pairs, summary = (stem.with_name(stem.name + end) for end in (PAIRS_SUFFIX, SUMMARY_SUFFIX))
    with (
        suppress(_NothingComparedError),
        write_whole(summary) as summary_aside,
        write_whole(pairs) as pairs_aside,
        closing(PairTables((pairs_aside, summary_aside), asked, columns)) as tables,
    ):
        yield tables
        tables.end_pass()
        if not tables.n_rows:
            raise _NothingComparedError
