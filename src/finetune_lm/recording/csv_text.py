"""Rows as CSV that every reader takes for what they are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from finetune_lm.recording.csv_cells import cells
from finetune_lm.recording.shared_rows import Rows

_AT_ONCE = 2**26
"""How much text is made at a time, in bytes."""


def csv_text(rows: Rows | pa.Table, *, header: bool = True) -> bytes:
    r"""Rows as CSV: text quoted, ``TRUE`` and ``FALSE``, and an unquoted ``NA`` for no value.

    Args:
        rows: The rows.
        header: Whether the names of the columns stand before them.

    Example:
        >>> csv_text(pa.table({"word": ["NA", None], "is_word": [True, None]}))
        b'"word","is_word"\n"NA",TRUE\nNA,NA\n'
    """
    return b"".join(csv_parts(rows, header=header))


def csv_parts(rows: Rows | pa.Table, *, header: bool = True) -> Iterator[bytes | memoryview]:
    """The text of `csv_text`, in parts that are not too large."""
    n = len(rows)
    rows = rows if isinstance(rows, Rows) else Rows.of(rows)
    head = b""
    if header:
        names = cells(pa.array(rows.names, pa.string())).to_pylist()
        head = f"{','.join(names)}\n".encode()
    at_once = max(1, _AT_ONCE // max(rows.widest, 1))
    for begin in range(0, n, at_once):
        part = rows if n <= at_once else rows.between(begin, begin + at_once)
        text = _characters(part.text(part.names, end="\n"))
        # Together with the first rows, so that nobody is stopped between them.
        yield b"".join([head, text]) if head else text
        head = b""
    if head:
        yield head


def _characters(texts: pa.StringArray) -> memoryview:
    """Texts, none of which is missing, one behind the other."""
    _, offsets, characters = texts.buffers()
    begin, end = np.frombuffer(offsets, np.int32)[[texts.offset, texts.offset + len(texts)]]
    return memoryview(characters)[begin:end]
