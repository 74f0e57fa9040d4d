"""The columns of many tables as one has them all: their order and their types."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import pyarrow as pa
import pyarrow.csv

from finetune_lm.errors import UserError
from finetune_lm.recording.table_text import end_of_rows, names_in, read_row
from finetune_lm.recording.typed_rows import TypedRows, csv_options

_BLOCK = 2**23
"""Of text that is read at a time, in bytes."""
_SNIFFED = 2**18
_WIDER = {
    pa.null(): pa.int64(),
    pa.int64(): pa.float64(),
    pa.float64(): pa.bool_(),
    pa.bool_(): pa.string(),
}
"""What is tried next where a value is not of a type."""

_ERROR = re.compile(r"column #(\d+): .*conversion error", re.DOTALL)


class WrongTypeError(Exception):
    """A column has a value that is not of the type that it was taken to have.

    Args:
        name: The column.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Types:
    """The columns that some of many tables have, in order, and the type of each in all of them.

    What every table has by documented names is known. Of the rest the beginning of a table tells,
    and as much more of it as is needed for each column to have a value.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self._types: dict[str, pa.DataType] = {}
        self._seen: set[tuple[str, ...]] = set()

    def take_in(self, path: Path, about: str = "") -> None:
        """Look at one more table.

        Args:
            path: The table.
            about: What its data are. Of tables with the same columns about the same data one is
                looked at.
        """
        with _opened(path) as file:
            names = names_in(read_row(file))
            key = (*names, about)
            if about and key in self._seen:
                return
            self._seen.add(key)
            self._place(names)
            found: dict[str, pa.DataType] = dict.fromkeys(names, pa.null())
            reader = TypedRows(names)
            for text in _whole_rows(file):
                for name, kind in zip(names, reader.typed(text).schema.types, strict=True):
                    found[name] = _common(found[name], kind if kind in _WIDER else pa.string())
                if not any(map(pa.types.is_null, found.values())):
                    break
        for name, kind in found.items():
            self._types[name] = _common(self._types.get(name, pa.null()), kind)

    def _place(self, names: Sequence[str]) -> None:
        """Put columns that are new behind those before them."""
        place = 0
        for name in names:
            if name in self.names:
                place = self.names.index(name) + 1
            else:
                self.names.insert(place, name)
                place += 1

    def widen(self, error: WrongTypeError) -> None:
        """Take a column for one that can have more values."""
        self._types[error.name] = _WIDER[self._types[error.name]]

    def of(self, name: str) -> pa.DataType:
        """The type of a column; of one that has no value anywhere, that of numbers."""
        return self._types[name]

    def fields(self) -> list[pa.Field]:
        """The columns with their types. Where there is no value at all, it is that of numbers."""
        return [pa.field(name, _written(self._types[name])) for name in self.names]


def pieces_of(path: Path, types: Types) -> Iterator[pa.Table]:
    """The rows of a table, piece by piece, in the types that they have in all.

    Raises:
        WrongTypeError: If one has another.
        UserError: If the table cannot be read.
    """
    with _opened(path) as file:
        names = names_in(read_row(file))
        # Of truth values not also 1 and 0.
        truth = {"true_values": ["TRUE"], "false_values": ["FALSE"]}
        options = csv_options(names, {name: types.of(name) for name in names}, **truth)
        options["read_options"].block_size = _BLOCK
        try:
            for batch in pyarrow.csv.open_csv(file, **options):
                rows = pa.Table.from_batches([batch])
                yield rows.cast(pa.schema([(n, _written(types.of(n))) for n in names]))
        except pa.ArrowInvalid as error:
            if "Empty CSV file" in str(error):
                return
            found = _ERROR.search(str(error))
            if found is None:
                raise
            raise WrongTypeError(names[int(found[1])]) from error


def _whole_rows(file: IO[bytes]) -> Iterator[bytes]:
    """The rows of a table in parts of some size, none of which ends in the middle of a row."""
    rest = b""
    while block := file.read(_SNIFFED):
        text = rest + block
        end = end_of_rows(text)
        rest = text[end:]
        if end:
            yield text[:end]
    if rest:
        yield rest


def type_of_texts(texts: Sequence[str]) -> pa.DataType:
    """The type of values that are given as texts: whole numbers, numbers, or text.

    Example:
        >>> [str(type_of_texts(texts)) for texts in (["1", "20"], ["1e-4", "2"], ["1", "a"])]
        ['int64', 'double', 'string']
    """
    for kind in (pa.int64(), pa.float64()):
        try:
            pa.array(texts, pa.string()).cast(kind)
        except pa.ArrowInvalid:
            continue
        return kind
    return pa.string()


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The text of a table.

    Raises:
        UserError: Instead of an error that says that the table is no such text.
    """
    try:
        with gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb") as file:
            yield cast("IO[bytes]", file)
    except (pa.ArrowInvalid, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is damaged: {error}.") from error


def _common(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """A type that has the values of both."""
    if pa.types.is_null(one) or one == other:
        return other
    if pa.types.is_null(other):
        return one
    numbers = (pa.int64(), pa.float64())
    return pa.float64() if one in numbers and other in numbers else pa.string()


def _written(kind: pa.DataType) -> pa.DataType:
    return pa.float64() if pa.types.is_null(kind) else kind
