"""A table read back block by block, with values that are written again as they were."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from finetune_lm.errors import UserError
from finetune_lm.recording.columns import BOOL_COLUMNS, INTEGER_COLUMNS, STRING_COLUMNS
from finetune_lm.recording.csv_text import MISSING
from finetune_lm.recording.table_pieces import names_in

_READ = 2**18
_BLOCK = 2**23
"""Of text, in bytes, that is parsed at a time. What it is makes no difference to what is read."""
_GZIP = 16 + zlib.MAX_WBITS

_FIELD = re.compile(rb'("(?:[^"]|"")*"|[^,\n]*)(,|\n)')


@dataclass
class TableBlocks:
    """The rows of a table, block by block.

    Columns of which the type is not known by their names come as text, as it stands in the table.
    `as_written` gives them types in which they are written as they were.

    Args:
        path: A table, of which the pieces that are whole are read.

    Attributes:
        columns: The names of its columns; empty for a table without rows.

    Raises:
        UserError: If it is none.
    """

    path: Path
    columns: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._is_text: dict[str, bool] = dict.fromkeys(STRING_COLUMNS, True)
        try:
            self._n_pieces = sum(is_whole for is_whole in _pieces_end(self.path))
            with self.path.open("rb") as file:
                first = next(_blocks_of_pieces(file, self._n_pieces), (0, b""))[1]
        except (OSError, zlib.error) as error:
            raise UserError(f"{self.path} is not a gzipped table: {error}.") from None
        if first:
            self.columns = names_in(first)

    def __iter__(self) -> Iterator[tuple[int, pa.Table]]:
        """The rows, with the number of the piece that they are of."""
        with self.path.open("rb") as file:
            is_first = True
            for piece, text in _blocks_of_pieces(file, self._n_pieces):
                rest = text[text.index(b"\n") + 1 :] if is_first else text
                is_first = False
                if rest:
                    yield piece, self._parsed(rest)

    def _parsed(self, text: bytes) -> pa.Table:
        kinds = dict.fromkeys(self.columns, pa.string())
        kinds |= {name: pa.bool_() for name in self.columns if name in BOOL_COLUMNS}
        kinds |= {name: pa.int64() for name in self.columns if name in INTEGER_COLUMNS}
        rows = pyarrow.csv.read_csv(
            io.BytesIO(text),
            read_options=pyarrow.csv.ReadOptions(column_names=self.columns),
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=kinds,
                null_values=[MISSING],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
        self._find_text(rows, text)
        return rows

    def as_written(self, rows: pa.Table) -> pa.Table:
        """Rows of columns of the table, in types in which they are written as they were.

        Text is known by its quotation marks, so that a number and a text that looks like one stay
        apart. Only rows that were read before this is asked can be told.
        """
        for number, name in enumerate(rows.column_names):
            if pa.types.is_string(rows[name].type) and not self._is_text.get(name, True):
                rows = rows.set_column(number, name, _as_written(rows[name]))
        return rows

    def _find_text(self, rows: pa.Table, text: bytes) -> None:
        """Find out which columns are text, of those of which that is not known yet."""
        open_ = {
            name
            for name in self.columns
            if name not in self._is_text
            and pa.types.is_string(rows[name].type)
            and rows[name].null_count < len(rows)
        }
        fields = ((found[1], found[2] == b"\n") for found in _FIELD.finditer(text))
        number = 0
        for value, ends_row in fields:
            if not open_:
                return
            name = self.columns[number]
            if name in open_ and value != MISSING.encode():
                self._is_text[name] = value.startswith(b'"')
                open_.discard(name)
            number = 0 if ends_row else number + 1


def _as_written(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Values that stand in a table without quotation marks, in a type that is written alike."""
    texts = column.combine_chunks()
    present = texts.drop_null()
    if pc.all(pc.is_in(present, pa.array(["TRUE", "FALSE"]))).as_py():
        return pc.equal(texts, "TRUE")
    looks_whole = pc.match_substring_regex(present, r"^(0|-?[1-9][0-9]{0,18})$")
    if pc.all(looks_whole).as_py():
        try:
            return pc.cast(texts, pa.int64())
        except pa.ArrowInvalid:  # beyond 64 bits
            pass
    return pc.cast(texts, pa.float64())


def _pieces_end(path: Path) -> Iterator[bool]:
    """Of each gzip member of a file, whether it is whole."""
    with path.open("rb") as file:
        for _, is_last_of_piece in _texts(file):
            if is_last_of_piece:
                yield True


def _blocks_of_pieces(file: IO[bytes], n_pieces: int) -> Iterator[tuple[int, bytes]]:
    """Whole rows of the first pieces, so many bytes at a time, and the piece that they are of."""
    piece, waiting = 0, b""
    for text, is_last_of_piece in _texts(file):
        if piece == n_pieces:
            return
        waiting += text
        if is_last_of_piece:
            if waiting:
                yield piece, waiting
            piece, waiting = piece + 1, b""
        elif len(waiting) >= _BLOCK and (end := _end_of_rows(waiting)):
            yield piece, waiting[:end]
            waiting = waiting[end:]


def _texts(file: IO[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Parts of the text of gzip members, and whether a part is the last of its member."""
    data = b""
    decompressor = zlib.decompressobj(_GZIP)
    is_first = True
    while True:
        data = data or file.read(_READ)
        if not data:
            return
        try:
            text = decompressor.decompress(data, _BLOCK)
        except zlib.error:
            if is_first:
                raise
            return  # what another program has written behind it
        data = decompressor.unconsumed_tail
        if decompressor.eof:
            data = decompressor.unused_data
            decompressor = zlib.decompressobj(_GZIP)
            is_first = False
            yield text, True
        else:
            yield text, False


def _end_of_rows(text: bytes) -> int:
    """Where the last whole row of a text ends that begins with one; 0 if none does.

    A line feed within quotation marks ends no row: there is an odd number of them before it.
    """
    end = text.rfind(b"\n")
    quotes = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == ord('"'))
    while end >= 0:
        if np.searchsorted(quotes, end) % 2 == 0:
            return end + 1
        end = text.rfind(b"\n", 0, end)
    return 0
