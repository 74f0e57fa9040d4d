"""The text of a table as rows, with the types that its columns have."""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from finetune_lm.recording.columns import BOOL_COLUMNS, INTEGER_COLUMNS, STRING_COLUMNS
from finetune_lm.recording.csv_cells import MISSING
from finetune_lm.recording.table_text import TableText, end_of_rows, first_row

KNOWN_TYPES: Mapping[str, pa.DataType] = {
    **dict.fromkeys(STRING_COLUMNS, pa.string()),
    **dict.fromkeys(BOOL_COLUMNS, pa.bool_()),
    **dict.fromkeys(INTEGER_COLUMNS, pa.int64()),
}
"""The types of the columns that tables have by documented names."""

_BEGINNING = 2**16
"""Of text, in bytes, that is looked at before the rest is read."""
_FIELD = re.compile(rb'("(?:[^"]|"")*"|[^,\n]*)(?:,|\n|\Z)')


class TypedRows:
    """Makes rows of the text of a table, part by part.

    Columns of documented names have known types. Of any other its first value tells whether it is
    text: only text stands in quotation marks. So a number and a text that looks like one stay
    apart.

    Args:
        columns: The names of all columns of the table.
        texts: Those that are text whatever they have.
    """

    def __init__(self, columns: Sequence[str], texts: Iterable[str] = ()) -> None:
        self._columns = list(columns)
        self._is_text = dict.fromkeys(KNOWN_TYPES, False)
        self._is_text |= dict.fromkeys((*STRING_COLUMNS, *texts), True)

    def typed(self, text: bytes, wanted: Collection[str] | None = None) -> pa.Table:
        """Rows in proper types.

        Those of numbers and truth values that are not known are of the values in this part.

        Args:
            text: Whole rows.
            wanted: The columns to read, as far as they are there; by default all.
        """
        names = [name for name in self._columns if wanted is None or name in wanted]
        if any(name not in self._is_text for name in names):
            # So that hardly any column is read twice.
            beginning = text[: end_of_rows(text[:_BEGINNING])]
            self._look_at(self._read(beginning, names), beginning)
        rows = self._read(text, names)
        self._look_at(rows, text)
        wrong = [n for n in names if self._is_text.get(n) and not pa.types.is_string(rows[n].type)]
        if wrong:
            texts = self._read(text, wrong)
            for name in wrong:
                rows = rows.set_column(names.index(name), name, texts[name])
        return rows

    def plain(self, text: bytes) -> pa.Table:
        """Rows in which columns whose types are not known are text, as it stands in the table.

        `as_written` gives them types in which they are written as they were.
        """
        types = {**dict.fromkeys(self._columns, pa.string()), **KNOWN_TYPES}
        rows = _read_csv(text, self._columns, types)
        self._look_at(rows, text)
        return rows

    def as_written(self, rows: pa.Table) -> pa.Table:
        """Rows of such columns, in types in which they are written as they were.

        Only of values that were read before this is asked can it be told.
        """
        for number, name in enumerate(rows.column_names):
            if pa.types.is_string(rows[name].type) and not self._is_text.get(name, True):
                rows = rows.set_column(number, name, _as_written(rows[name]))
        return rows

    def _read(self, text: bytes, names: Sequence[str]) -> pa.Table:
        texts = {name: pa.string() for name, is_text in self._is_text.items() if is_text}
        return _read_csv(text, self._columns, {**KNOWN_TYPES, **texts}, names)

    def _look_at(self, rows: pa.Table, text: bytes) -> None:
        """Find out which columns are text, of those of which that is not known yet."""
        places: dict[int, list[str]] = {}
        for name in rows.column_names:
            if name not in self._is_text and rows[name].null_count < len(rows):
                place = pc.index(pc.is_valid(rows[name]), True).as_py()
                places.setdefault(place, []).append(name)
        for place, row in enumerate(_rows_in(text) if places else ()):
            if place in places:
                fields = _FIELD.findall(row)
                for name in places.pop(place):
                    self._is_text[name] = fields[self._columns.index(name)].startswith(b'"')
            if not places:
                return


def table_pieces(
    path: Path, wanted: Collection[str] | None = None, texts: Iterable[str] = ()
) -> Iterator[pa.Table]:
    """Read a table piece by piece, as it was written: an epoch, a pass or a data set each.

    Memory is that of the largest piece.

    Args:
        path: A ``.csv.gz`` file that a run has written.
        wanted: The columns to read, as far as they are there; by default all.
        texts: Those of them that are text whatever they have.

    Raises:
        UserError: If there is no such table.
    """
    table = TableText(path)
    reader: TypedRows | None = None
    for _, text in table.parts():
        reader = reader or TypedRows(table.columns, texts)
        yield reader.typed(text, wanted)


def csv_options(
    columns: Sequence[str], types: Mapping[str, pa.DataType], **convert: Any
) -> dict[str, Any]:
    """How pyarrow is to read rows as they are written, without the names of the columns.

    Args:
        columns: The names.
        types: The types of some of them.
        **convert: More about how values are converted.
    """
    return {
        "read_options": pyarrow.csv.ReadOptions(column_names=list(columns)),
        "parse_options": pyarrow.csv.ParseOptions(newlines_in_values=True),
        "convert_options": pyarrow.csv.ConvertOptions(
            column_types=dict(types),
            null_values=[MISSING],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            **convert,
        ),
    }


def _read_csv(
    text: bytes,
    columns: Sequence[str],
    types: Mapping[str, pa.DataType],
    wanted: Sequence[str] | None = None,
) -> pa.Table:
    wanted = columns if wanted is None else wanted
    if not text:
        return pa.table({name: pa.array([], types.get(name, pa.null())) for name in wanted})
    options = csv_options(columns, types, include_columns=list(wanted))
    return pyarrow.csv.read_csv(io.BytesIO(text), **options)


def _rows_in(text: bytes) -> Iterator[bytes]:
    """The text of each row; pyarrow makes none of an empty line."""
    place = 0
    while row := first_row(text, place):
        place += len(row)
        if row.strip(b"\r\n"):
            yield row


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
