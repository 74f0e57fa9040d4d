"""Tables of pairs and their summary, written as token rows come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import pyarrow as pa

from finetune_lm.analysis.item_columns import metadata_columns
from finetune_lm.analysis.pairs import (
    Asked,
    PassResult,
    PassSplitter,
    columns_of_pass,
    pair_columns,
    summary_columns,
)
from finetune_lm.recording.csv_text import csv_text
from finetune_lm.recording.tables import TableWriter
from finetune_lm.whole_files import write_whole

RESULTS_SUFFIX = "_results.csv.gz"
PAIRS_SUFFIX = "_pairs.csv.gz"
SUMMARY_SUFFIX = "_summary.csv"
"""How the name of a table of tokens ends, and in place of that those of its tables of pairs."""


class PairTables:
    """Takes in rows of tokens, and writes what is compared in them, a pass after another.

    Args:
        pairs: Where the table of pairs goes.
        summary: Where the summary goes.
        asked: What is asked.
        columns: The columns of the token table, in order.
    """

    def __init__(self, pairs: Path, summary: Path, asked: Asked, columns: Sequence[str]) -> None:
        metadata, of_pass = metadata_columns(columns), columns_of_pass(columns)
        self._splitter = PassSplitter(asked, metadata)
        self._pairs = TableWriter(pairs, pair_columns(of_pass, metadata))
        self._summary: IO[bytes] = summary.open("wb")
        self._summary_columns = summary_columns(of_pass)
        self._has_header = False
        self.n_rows = 0
        """How many rows the table of pairs has."""
        self.names: set[str | None] = set()
        """The predictions and contrasts that were worked out."""

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
            self.n_rows += len(result.pairs)
            self.names.update(result.summary["comparison_name"].to_pylist())
            rows = with_columns(result.summary, self._summary_columns)
            self._summary.write(csv_text(rows, header=not self._has_header))
            self._has_header = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pairs.close()
        self._summary.close()


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
        PairTables(pairs_aside, summary_aside, asked, columns) as tables,
    ):
        yield tables
        tables.end_pass()
        if not tables.n_rows:
            raise _NothingComparedError
