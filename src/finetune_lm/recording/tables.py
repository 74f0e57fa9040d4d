"""Tables written as their rows come, and read back."""

from __future__ import annotations

import os
import shutil
import tempfile
import zlib
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

import pyarrow as pa
import pyarrow.csv

from finetune_lm.errors import UserError
from finetune_lm.recording.csv_text import csv_parts
from finetune_lm.recording.shared_rows import Rows
from finetune_lm.recording.table_text import TableText
from finetune_lm.recording.typed_rows import TypedRows

if TYPE_CHECKING:
    import pandas as pd

try:
    # Compresses three times as fast.
    from isal import isal_zlib as compression
except ImportError:  # It is not built for every machine.
    import zlib as compression  # type: ignore[no-redef]

# Level 1 is three times as fast as gzip's own default for a seventh more bytes.
_COMPRESSION_LEVEL = 1
# How much text goes into the compressor at a time. What it makes of a text may depend on the parts
# in which it is given, and must not depend on how many rows come together.
_CHUNK = 2**20
_KEPT_IN_MEMORY = 16 * 2**20
# A gzip member without name and time, so that equal tables are equal files.
_GZIP = 16 + zlib.MAX_WBITS
# A byte that no text in UTF-8 has.
_NEVER_IN_TEXT = b"\xff"


@dataclass
class TableState:
    """How far a table has come, so that it can be taken up there and end up the same to the byte.

    Attributes:
        n_rows: How many rows it has, those of the piece under way among them.
        has_header: Whether its header is written.
        n_bytes: How long the file is, without the piece under way.
        checksum: The CRC-32 of so much of the file.
        piece: The compressed part of the piece under way, a gzip member without its end; None if
            nothing is compressed yet.
        text: The rest of that piece; None if there is none.
    """

    n_rows: int = 0
    has_header: bool = False
    n_bytes: int = 0
    checksum: int = 0
    piece: bytes | None = None
    text: bytes | None = None


class TableWriter:
    """A gzipped CSV file that grows by whole pieces.

    Each piece (an epoch's rows, say) is one gzip member; members one after another are one gzip
    file, so every reader takes it. A piece is put together aside and appended at its end, so that a
    run that is killed leaves a file that reads back whole up to the last finished piece. Memory
    does not grow with the number of pieces.

    Strings are quoted and missing values are an unquoted ``NA``: a token or word ``NA`` stays
    distinct from no value. Booleans are ``TRUE`` and ``FALSE``.

    Args:
        path: The file, which must not be there yet, unless it is to be taken up.
        columns: The names of the columns, in order.
        taken_up: What `state` said of an earlier writer of this file. What came after is cut off.

    Raises:
        UserError: If the file is to be taken up and is not what that writer left.

    Example:
        >>> with TableWriter(Path("t.csv.gz"), ["word"]) as writer:  # doctest: +SKIP
        ...     writer.write(pa.table({"word": ["so"]}))
        ...     writer.end_piece()
    """

    def __init__(self, path: Path, columns: list[str], taken_up: TableState | None = None) -> None:
        self.path = path
        self.columns = columns
        self._state = TableState()
        self._piece: IO[bytes] | None = None
        self._is_whole = True
        self._compressor = _compressor()
        self._text: list[bytes | memoryview] = []
        if taken_up is None:
            # One that is empty is left of a run that ended before its first piece.
            path.touch(exist_ok=not path.exists() or path.stat().st_size == 0)
        else:
            self._take_up(taken_up)

    @property
    def n_rows(self) -> int:
        """How many rows were written."""
        return self._state.n_rows

    def write(self, rows: Rows | pa.Table) -> None:
        """Add rows to the piece under way; they need the table's columns, in any order."""
        for text in csv_parts(rows.select(self.columns), header=not self._state.has_header):
            self._add(text)
        self._state.has_header = True
        self._state.n_rows += len(rows)

    def end_piece(self) -> None:
        """Append the piece under way to the file and see it safely on disk.

        A piece that cannot be appended whole leaves the file as it was.

        Raises:
            UserError: If somebody else has changed the file. It is left as it is then.
        """
        if self._piece is None:
            return
        piece, self._piece = self._piece, None
        with piece:
            if not self._is_whole:
                return
            size = self._size()
            piece.write(self._compressor.compress(b"".join(self._text)))
            piece.write(self._compressor.flush())
            piece.seek(0)
            try:
                with self.path.open("ab") as file:
                    shutil.copyfileobj(piece, file)
                    file.flush()
                    os.fsync(file.fileno())
            except BaseException:
                with suppress(OSError):  # what went wrong matters, not that it cannot be undone
                    os.truncate(self.path, size)
                raise
            piece.seek(0)
            self._state.checksum, n_bytes = _checksum(piece, start=self._state.checksum)
            self._state.n_bytes += n_bytes

    def _size(self) -> int:
        """How long the file is, which nobody else must have changed."""
        size = self.path.stat().st_size
        if size != self._state.n_bytes:
            raise UserError(
                f"{self.path} must have the {self._state.n_bytes} bytes that were written into it "
                f"but has {size}: another program has changed it while the run was writing. Start "
                f"the run again in another output_dir."
            )
        return size

    def state(self) -> TableState:
        """How far the table has come, with the piece under way."""
        if self._piece is None:
            return replace(self._state)
        self._piece.seek(0)
        piece, text = self._piece.read(), b"".join(self._text)
        return replace(self._state, piece=piece or None, text=text or None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Keep what was measured, also of a piece that was not finished."""
        self.end_piece()

    def _add(self, text: bytes | memoryview) -> None:
        """Add a text to the piece under way."""
        if not text:
            return
        if self._piece is None:
            self._begin_piece()
        self._text.append(text)
        if sum(map(len, self._text)) >= _CHUNK:
            waiting = memoryview(b"".join(self._text))
            for end in range(_CHUNK, len(waiting) + 1, _CHUNK):
                self._compress(waiting[end - _CHUNK : end], rest=waiting[end:])

    def _compress(self, chunk: memoryview, rest: memoryview) -> None:
        """Compress a chunk of text, after which the rest waits."""
        assert self._piece is not None
        # A signal or a full disk may come in between, and half a chunk would spoil the piece.
        self._is_whole = False
        self._piece.write(self._compressor.compress(chunk))
        # All of it, so that the piece can be put together again from what is written.
        self._piece.write(self._compressor.flush(zlib.Z_SYNC_FLUSH))
        self._text = [rest] if rest else []
        self._is_whole = True

    def _begin_piece(self) -> None:
        self._piece = tempfile.SpooledTemporaryFile(  # noqa: SIM115
            _KEPT_IN_MEMORY, dir=str(self.path.parent)
        )
        self._compressor = _compressor()
        self._text = []
        self._is_whole = True

    def _take_up(self, state: TableState) -> None:
        """Cut the file back to where it was, and put the piece under way together again."""
        try:
            with self.path.open("rb") as file:
                checksum, n_bytes = _checksum(file, at_most=state.n_bytes)
        except FileNotFoundError:
            checksum, n_bytes = 0, 0
        if (checksum, n_bytes) != (state.checksum, state.n_bytes):
            raise UserError(
                f"{self.path} must begin with the {state.n_bytes} bytes that the run had written "
                f"when its checkpoint was made, but it has {n_bytes} or has changed. Put it "
                "back, or start again in another output_dir."
            )
        self.path.touch()
        os.truncate(self.path, state.n_bytes)
        if state.piece is not None or state.text is not None:
            self._add(zlib.decompressobj(_GZIP).decompress(state.piece or b""))
            self._add(state.text or b"")
        self._state = replace(state, piece=None, text=None)


def _compressor() -> Any:
    """A compressor whose bytes depend on the text alone."""
    settings = (_COMPRESSION_LEVEL, zlib.DEFLATED, _GZIP)
    if compression is zlib:
        return compression.compressobj(*settings)
    # ISA-L begins a text by entering its third place in the table of places under a hash of the
    # stream's address (write_first_byte in igzip_icf_body_h1_gr_bt.asm). At one address in some
    # thousands this is the entry of the text's beginning, whose repetition is then not found, and
    # the file is a byte longer. It does not do so after a dictionary. Nothing in a text can refer
    # to this one, so every reader understands the file.
    return compression.compressobj(*settings, zdict=_NEVER_IN_TEXT)


def _checksum(file: IO[bytes], start: int = 0, at_most: int | None = None) -> tuple[int, int]:
    """The CRC-32 of a file, going on from that of what stands before it, and how long it is."""
    checksum, n_bytes = start, 0
    while block := file.read(2**20 if at_most is None else min(2**20, at_most - n_bytes)):
        checksum = zlib.crc32(block, checksum)
        n_bytes += len(block)
    return checksum, n_bytes


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
    return _load(Path(path), "metrics.csv.gz")


def load_probes(path: str | Path) -> pd.DataFrame:
    """Read a run's table of probes: what their tokens cost before and during the training.

    ``epoch`` is -1 before the training, and ``step`` says after how many updates a row was
    measured. Types are those of `load_metrics`. Of a run that was killed, the passes that were
    finished are read.

    Args:
        path: A run's ``probe_results.csv.gz``, or its output directory.

    Raises:
        UserError: If there is no such table.

    Example:
        >>> probes = load_probes("outputs/mine")  # doctest: +SKIP
        >>> probes.groupby(["step", "word"])["surprisal"].mean()  # doctest: +SKIP
    """
    return _load(Path(path), "probe_results.csv.gz")


def _load(file: Path, name: str) -> pd.DataFrame:
    """Read a table, which has this name if a directory is given."""
    import pandas as pd

    if file.is_dir():
        file = file / name
    table = TableText(file)
    text = b"".join(rows for _, rows in table.parts())
    if not table.columns:
        return pd.DataFrame()
    return as_frame(TypedRows(table.columns).typed(text))


def as_frame(table: pa.Table) -> pd.DataFrame:
    """A table as a data frame: integers and truth values may be missing.

    A column in which nothing is known is one of floats, which can be averaged.
    """
    import pandas as pd

    for i, field in enumerate(table.schema):
        if pa.types.is_null(field.type):
            table = table.set_column(i, field.name, table.column(i).cast(pa.float64()))

    nullable = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    frame: pd.DataFrame = table.to_pandas(types_mapper=nullable.get)
    return frame
