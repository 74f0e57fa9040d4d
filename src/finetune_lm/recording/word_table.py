"""Tables of words, written as the rows of their tokens come."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from finetune_lm.messages import say
from finetune_lm.recording.shared_rows import Rows
from finetune_lm.recording.tables import TableState, TableWriter
from finetune_lm.recording.word_rows import WordCount, WordRows


class WordTable:
    """Writes the words of the rows of tokens that it is given.

    Args:
        path: The table.
        words: Makes the rows.
        state: How far it had come, as `state_dict` told, if it is gone on with; None for a new one.
        name: What it is called, for messages; by default as its file.
        as_written: Is given words before they are written, and returns them in other types.
    """

    def __init__(
        self,
        path: Path,
        words: WordRows,
        state: Mapping[str, Any] | None = None,
        name: str | None = None,
        as_written: Callable[[pa.Table], pa.Table] | None = None,
    ) -> None:
        self._as_written = as_written
        self._name = name or path.name
        self._words = words
        if state:
            words.count = WordCount(**state["count"])
            words.kept = _rows_of_bytes(state["kept"])
        taken_up = None if state is None else TableState(**state.get("table", {}))
        self._table = TableWriter(path, words.columns, taken_up)

    @property
    def n_rows(self) -> int:
        """How many rows there are."""
        return self._table.n_rows

    def write(self, rows: Rows | pa.Table) -> None:
        """Take in rows of tokens, and write the words that are complete by now."""
        self._write(self._words.add(rows))

    def end_piece(self) -> None:
        """Write the words that wait, and put all of them on disk."""
        self._write(self._words.finish())
        self._table.end_piece()

    def close(self) -> None:
        """Keep what was measured, and say how many words have no surprisal."""
        self._write(self._words.finish())
        self._table.close()

    def tell(self) -> None:
        """Say how many words have no surprisal, if there are any."""
        count = self._words.count
        if count.n_missing:
            say(
                f"{self._name}: {count.n_missing:,} of {count.n_words:,} words have no surprisal "
                f"(NA), since not all of their tokens have one (cut off, or not masked) or a token "
                f"is part of several words."
            )

    def state_dict(self) -> dict[str, Any]:
        """How far it has come."""
        return {
            "table": asdict(self._table.state()),
            "count": asdict(self._words.count),
            "kept": _bytes_of_rows(self._words.kept),
        }

    def _write(self, words: pa.Table | None) -> None:
        if words is not None:
            self._table.write(self._as_written(words) if self._as_written else words)


def _bytes_of_rows(rows: pa.Table | None) -> bytes | None:
    if rows is None:
        return None
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, rows.schema) as stream:
        stream.write_table(rows)
    return bytes(out.getvalue().to_pybytes())


def _rows_of_bytes(content: bytes | None) -> pa.Table | None:
    if content is None:
        return None
    with pa.ipc.open_stream(content) as stream:
        return stream.read_all()
