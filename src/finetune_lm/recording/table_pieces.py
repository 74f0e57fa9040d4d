"""A gzipped table read piece by piece, with the types that its columns have."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from finetune_lm.errors import UserError
from finetune_lm.recording.columns import BOOL_COLUMNS, INTEGER_COLUMNS, STRING_COLUMNS
from finetune_lm.recording.csv_text import MISSING

_BLOCK = 2**20


def whole_members(file: Path) -> Iterator[bytes]:
    """The text of each gzip member of a file, without a last one that is cut off.

    Raises:
        UserError: If the file is not gzipped.
    """
    decompressor, parts = zlib.decompressobj(16 + zlib.MAX_WBITS), []
    is_first = True
    with file.open("rb") as blocks:
        while block := blocks.read(_BLOCK):
            while block:
                try:
                    parts.append(decompressor.decompress(block))
                except zlib.error as error:
                    if is_first:
                        raise UserError(f"{file} is not a gzipped table: {error}.") from None
                    return
                if not decompressor.eof:
                    break
                yield b"".join(parts)
                block = decompressor.unused_data
                decompressor, parts = zlib.decompressobj(16 + zlib.MAX_WBITS), []
                is_first = False


def table_pieces(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Read a table piece by piece, as it was written: an epoch, a pass or a data set each.

    Memory is that of the largest piece.

    Args:
        path: A ``.csv.gz`` file that a run has written.
        columns: The columns to read, those of them that there are; by default all.

    Raises:
        UserError: If there is no such table.
    """
    if not path.is_file():
        raise UserError(f"there is no table {path}.")
    names: list[str] = []
    for member in whole_members(path):
        text = member
        if not names:
            end = text.index(b"\n") + 1 if b"\n" in text else len(text)
            names, text = names_in(text), text[end:]
        if text:
            quoted = quoted_columns([text], names, has_header=False)
            yield table_of(text, names, quoted, columns)


def names_in(text: bytes) -> list[str]:
    """The names of the columns, which a table's first line has."""
    header = text[: text.index(b"\n") + 1] if b"\n" in text else text
    return list(pyarrow.csv.read_csv(io.BytesIO(header)).column_names)


def table_of(
    text: bytes, names: Sequence[str], quoted: Iterable[str], columns: Sequence[str] | None = None
) -> pa.Table:
    """Rows in CSV with proper types.

    Args:
        text: The rows, without a line of names.
        names: The names of all columns.
        quoted: Those that are text though their values may look like numbers.
        columns: Those that are wanted, as far as they are there; by default all.
    """
    types = {name: pa.string() for name in STRING_COLUMNS.union(quoted)}
    types |= {name: pa.bool_() for name in BOOL_COLUMNS}
    types |= {name: pa.int64() for name in INTEGER_COLUMNS}
    wanted = [name for name in names if columns is None or name in columns]
    if not text:
        empty = {name: pa.array([], types.get(name, pa.null())) for name in wanted}
        return pa.table(empty)
    return pyarrow.csv.read_csv(
        io.BytesIO(text),
        read_options=pyarrow.csv.ReadOptions(column_names=list(names)),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=types,
            include_columns=wanted,
            null_values=[MISSING],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )


_FIELD = re.compile(rb'("(?:[^"]|"")*"|[^,\n]*)(,|\n)')
_SNIFFED_BYTES = 2**18
_SNIFFED_MEMBERS = 50


def quoted_columns(
    members: Sequence[bytes], names: Sequence[str], *, has_header: bool = True
) -> set[str]:
    """Columns that are text though their values may look like numbers: those that are quoted.

    Looked for at both ends of each piece, where other data sets than before may begin.

    Args:
        members: The text of each piece.
        names: The names of the columns.
        has_header: Whether the first piece begins with a line of names.
    """
    quoted: set[str] = set()
    for number, member in enumerate(members[:_SNIFFED_MEMBERS]):
        begin = member.index(b"\n") + 1 if number == 0 and has_header else 0
        rest = max(member.find(b"\n", max(len(member) - _SNIFFED_BYTES, begin)) + 1, begin)
        for part in (member[begin : begin + _SNIFFED_BYTES], member[rest:]):
            quoted |= _quoted_in(part, names)
    return quoted


def _quoted_in(text: bytes, names: Sequence[str]) -> set[str]:
    quoted: set[str] = set()
    row: list[bytes] = []
    place = 0
    # Not finditer, which after a field that is cut off tries again at each of its characters.
    while found := _FIELD.match(text, place):
        place = found.end()
        row.append(found[1])
        if found[2] == b"\n":
            # A part that begins within a quoted line feed has rows that are not whole.
            if len(row) == len(names):
                quoted |= {n for n, value in zip(names, row, strict=True) if value[:1] == b'"'}
            row = []
    return quoted
