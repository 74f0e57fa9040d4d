"""Rows as CSV that every reader takes for what they are."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.csv

MISSING = "NA"

# pyarrow writes true and false, which R reads as text. So they are written as text between two
# marks, which are taken out afterwards with the quotes around them. UTF-8 has no such byte.
_MARK = 0xFF
_BOOLEANS = pa.array([b"\xffFALSE\xff", b"\xffTRUE\xff"]).view(pa.string())


def csv_text(rows: pa.Table, *, header: bool = True) -> bytes:
    r"""Rows as CSV: text quoted, ``TRUE`` and ``FALSE``, and an unquoted ``NA`` for no value.

    Args:
        rows: The rows.
        header: Whether the names of the columns stand before them.

    Example:
        >>> csv_text(pa.table({"word": ["NA", None], "is_word": [True, None]}))
        b'"word","is_word"\n"NA",TRUE\nNA,NA\n'
    """
    # pyarrow writes anything for a part without rows that others follow.
    rows = rows.combine_chunks()
    is_marked = False
    for number, field in enumerate(rows.schema):
        if pa.types.is_boolean(field.type):
            values = rows[number].combine_chunks().cast(pa.int8())
            rows = rows.set_column(number, field.name, _BOOLEANS.take(values))
            is_marked = True
    out = pa.BufferOutputStream()
    options = pyarrow.csv.WriteOptions(include_header=header, null_string=MISSING)
    pyarrow.csv.write_csv(rows, out, options)
    text = out.getvalue()
    return _without_marks(text) if is_marked else bytes(text.to_pybytes())


def _without_marks(text: pa.Buffer) -> bytes:
    """A text without marks and the quotes outside of each two."""
    characters = np.frombuffer(text, dtype=np.uint8)
    marks = np.flatnonzero(characters == _MARK)
    keep = np.ones(len(characters), dtype=bool)
    keep[marks] = False
    keep[marks[0::2] - 1] = False
    keep[marks[1::2] + 1] = False
    return characters[keep].tobytes()
