"""The text of a gzipped table, in parts of whole rows."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow.csv

from finetune_lm.errors import UserError

_READ = 2**18
_BLOCK = 2**23
"""Of text, in bytes, that is kept at a time. What it is makes no difference to what is read."""
_GZIP = 16 + zlib.MAX_WBITS


class TableText:
    """The text of those pieces of a table that are whole.

    A piece is what a table grows by (an epoch, a pass, a data set): a gzip member. A run that was
    killed may leave a part of one at the end, which is not read.

    Args:
        path: A ``.csv.gz`` file that a run has written.
        bounded: Whether a large piece comes in several parts, so that memory does not grow with
            it. The file is read twice then.

    Raises:
        UserError: As soon as something is read, if there is no such table.
    """

    def __init__(self, path: Path, *, bounded: bool = False) -> None:
        self._path = path
        self._bounded = bounded
        self._columns: list[str] | None = None
        self._n_whole = 0

    @property
    def columns(self) -> list[str]:
        """The names of the columns; none if no piece is whole."""
        if self._columns is None:
            self._columns, header = [], b""
            for text, ends_piece in self._texts():
                if not end_of_rows(header):
                    header = first_row(header + text)
                if ends_piece:
                    self._n_whole += 1
                    self._columns = names_in(header) if header else []
                    if self._columns and not self._bounded:
                        break
        return self._columns

    def parts(self) -> Iterator[tuple[int, bytes]]:
        """The rows, piece by piece, and the number of the piece."""
        is_first = True
        for piece, text in self._blocks() if self._bounded else self._pieces():
            header = first_row(text) if is_first else b""
            if is_first:
                self._columns, is_first = names_in(header), False
            if len(text) > len(header):
                yield piece, text[len(header) :]

    def _pieces(self) -> Iterator[tuple[int, bytes]]:
        """Whole pieces that are not empty."""
        piece, parts = 0, []
        for text, ends_piece in self._texts():
            parts.append(text)
            if ends_piece:
                if whole := b"".join(parts):
                    yield piece, whole
                piece, parts = piece + 1, []

    def _blocks(self) -> Iterator[tuple[int, bytes]]:
        """Whole rows of them, so many bytes at a time."""
        piece, waiting = 0, b""
        n_whole = self._n_whole if self.columns else 0
        for text, ends_piece in self._texts():
            if piece == n_whole:
                return
            waiting += text
            if ends_piece:
                if waiting:
                    yield piece, waiting
                piece, waiting = piece + 1, b""
            elif len(waiting) >= _BLOCK and (end := end_of_rows(waiting)):
                yield piece, waiting[:end]
                waiting = waiting[end:]

    def _texts(self) -> Iterator[tuple[bytes, bool]]:
        """Parts of the text, and whether a part is the last of its piece."""
        if not self._path.is_file():
            raise UserError(f"there is no table {self._path}.")
        data, is_first = b"", True
        decompressor = zlib.decompressobj(_GZIP)
        with self._path.open("rb") as file:
            while data := data or file.read(_READ):
                try:
                    text = decompressor.decompress(data, _BLOCK)
                except zlib.error as error:
                    if is_first:
                        raise UserError(f"{self._path} is not a gzipped table: {error}.") from None
                    return  # what another program has written behind it
                if decompressor.eof:
                    yield text, True
                    data, is_first = decompressor.unused_data, False
                    decompressor = zlib.decompressobj(_GZIP)
                else:
                    yield text, False
                    data = decompressor.unconsumed_tail


def names_in(text: bytes) -> list[str]:
    """The names of the columns, which a table's first row has."""
    options = pyarrow.csv.ParseOptions(newlines_in_values=True)
    header = io.BytesIO(first_row(text))
    return list(pyarrow.csv.read_csv(header, parse_options=options).column_names)


def first_row(text: bytes, begin: int = 0) -> bytes:
    """The row that begins at a place in a text, with its line end."""
    end = text.find(b"\n", begin) + 1
    # A line feed within quotation marks ends no row: there is an odd number of them before it.
    while end and text.count(b'"', begin, end) % 2:
        end = text.find(b"\n", end) + 1
    return text[begin : end or len(text)]


def read_row(file: IO[bytes]) -> bytes:
    """The next row of a file, with its line end; nothing at the end."""
    row = file.readline()
    while row.count(b'"') % 2 and (more := file.readline()):
        row += more
    return row


def end_of_rows(text: bytes) -> int:
    """Where the last whole row of a text ends that begins with one; 0 if none does."""
    end = text.rfind(b"\n")
    quotes = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == ord('"'))
    while end >= 0:
        if np.searchsorted(quotes, end) % 2 == 0:
            return end + 1
        end = text.rfind(b"\n", 0, end)
    return 0
