"""Tables written as their rows come, and read back."""

from __future__ import annotations

import io
import os
import re
import shutil
import tempfile
import zlib
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self

import pyarrow as pa
import pyarrow.csv

from finetune_lm.errors import UserError
from finetune_lm.results.columns import BOOL_COLUMNS, INTEGER_COLUMNS, STRING_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

MISSING = "NA"

# Level 1 is three times as fast as gzip's own default for a seventh more bytes.
_COMPRESSION_LEVEL = 1
_KEPT_IN_MEMORY = 16 * 2**20


class TableWriter:
    """A gzipped CSV file that grows by whole pieces.

    Each piece (an epoch's rows, say) is one gzip member; members one after another are one gzip
    file, so every reader takes it. A piece is put together aside and appended at its end, so that a
    run that is killed leaves a file that reads back whole up to the last finished piece. Memory
    does not grow with the number of pieces.

    Strings are quoted and missing values are an unquoted ``NA``: a token or word ``NA`` stays
    distinct from no value.

    Args:
        path: The file, which must not be there yet.
        columns: The names of the columns, in order.

    Example:
        >>> with TableWriter(Path("t.csv.gz"), ["word"]) as writer:  # doctest: +SKIP
        ...     writer.write(pa.table({"word": ["so"]}))
        ...     writer.end_piece()
    """

    def __init__(self, path: Path, columns: list[str]) -> None:
        self.path = path
        self.columns = columns
        self.n_rows = 0
        self._has_header = False
        self._piece: IO[bytes] | None = None
        self._compressor = zlib.compressobj()
        # One that is empty is left of a run that ended before its first piece.
        path.touch(exist_ok=not path.exists() or path.stat().st_size == 0)

    def write(self, rows: pa.Table) -> None:
        """Add rows to the piece under way; they need the table's columns, in any order."""
        if self._piece is None:
            self._begin_piece()
        text = io.BytesIO()
        pyarrow.csv.write_csv(
            rows.select(self.columns),
            text,
            pyarrow.csv.WriteOptions(include_header=not self._has_header, null_string=MISSING),
        )
        self._has_header = True
        self.n_rows += rows.num_rows
        assert self._piece is not None
        self._piece.write(self._compressor.compress(text.getbuffer()))

    def end_piece(self) -> None:
        """Append the piece under way to the file and see it safely on disk.

        A piece that cannot be appended whole leaves the file as it was.
        """
        if self._piece is None:
            return
        piece, self._piece = self._piece, None
        size = self.path.stat().st_size
        with piece:
            piece.write(self._compressor.flush())
            piece.seek(0)
            try:
                with self.path.open("ab") as file:
                    shutil.copyfileobj(piece, file)
                    file.flush()
                    os.fsync(file.fileno())
            except BaseException:
                os.truncate(self.path, size)
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Keep what was measured, also of a piece that was not finished."""
        self.end_piece()

    def _begin_piece(self) -> None:
        self._piece = tempfile.SpooledTemporaryFile(  # noqa: SIM115
            _KEPT_IN_MEMORY, dir=str(self.path.parent)
        )
        # A gzip member without name and time, so that equal tables are equal files.
        self._compressor = zlib.compressobj(_COMPRESSION_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)


def load_metrics(path: str | Path) -> pd.DataFrame:
    """Read a table of results with proper types.

    A table of a run that was killed is read up to the last piece that is whole.

    Args:
        path: A ``.csv.gz`` file, or the output directory of a run, whose ``metrics.csv.gz`` is
            meant.

    Returns:
        A data frame: text as strings, counts as nullable integers (``Int64``), surprisals and
        losses as floats, flags as nullable booleans; what is missing is ``NA``.

    Raises:
        UserError: If there is no such table.

    Example:
        >>> metrics = load_metrics("outputs/train/tiny-lm/2026-01-31_12_00_00.000000000")
        ... # doctest: +SKIP
        >>> metrics.groupby("epoch")["surprisal"].mean()  # doctest: +SKIP
    """
    import pandas as pd

    file = Path(path)
    if file.is_dir():
        file = file / "metrics.csv.gz"
    if not file.is_file():
        raise UserError(f"there is no table {file}.")
    members = _decompress_whole_members(file)
    text = b"".join(members)
    if not text:
        return pd.DataFrame()
    names = pyarrow.csv.read_csv(io.BytesIO(text[: text.index(b"\n") + 1])).column_names
    types = {name: pa.string() for name in STRING_COLUMNS.union(_quoted_columns(members, names))}
    types |= {name: pa.bool_() for name in BOOL_COLUMNS}
    types |= {name: pa.int64() for name in INTEGER_COLUMNS}
    table = pyarrow.csv.read_csv(
        io.BytesIO(text),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=types,
            null_values=[MISSING],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    nullable = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    frame: pd.DataFrame = table.to_pandas(types_mapper=nullable.get)
    return frame


def _decompress_whole_members(file: Path) -> list[bytes]:
    """The text of each gzip member of a file, without a last one that is cut off."""
    data = file.read_bytes()
    text: list[bytes] = []
    while data:
        decompressor = zlib.decompressobj(16 + zlib.MAX_WBITS)
        try:
            member = decompressor.decompress(data)
        except zlib.error as error:
            if not text:
                raise UserError(f"{file} is not a gzipped table: {error}.") from None
            break
        if not decompressor.eof:
            break
        text.append(member)
        data = decompressor.unused_data
    return text


_FIELD = re.compile(rb'("(?:[^"]|"")*"|[^,\n]*)(,|\n)')
_SNIFFED_BYTES = 2**18
_SNIFFED_MEMBERS = 50


def _quoted_columns(members: list[bytes], names: list[str]) -> set[str]:
    """Columns that are text though their values may look like numbers: those that are quoted.

    Looked for at both ends of each piece, where other data sets than before may begin.
    """
    quoted: set[str] = set()
    for number, member in enumerate(members[:_SNIFFED_MEMBERS]):
        begin = member.index(b"\n") + 1 if number == 0 else 0
        rest = max(member.find(b"\n", max(len(member) - _SNIFFED_BYTES, begin)) + 1, begin)
        for part in (member[begin : begin + _SNIFFED_BYTES], member[rest:]):
            quoted |= _quoted_in(part, names)
    return quoted


def _quoted_in(text: bytes, names: list[str]) -> set[str]:
    quoted: set[str] = set()
    row: list[bytes] = []
    for found in _FIELD.finditer(text):
        row.append(found[1])
        if found[2] == b"\n":
            # A part that begins within a quoted line feed has rows that are not whole.
            if len(row) == len(names):
                quoted |= {n for n, value in zip(names, row, strict=True) if value[:1] == b'"'}
            row = []
    return quoted
