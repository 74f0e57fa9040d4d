"""Values as cells of a CSV file: text in quotes, ``TRUE`` and ``FALSE``, ``NA`` for no value."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

MISSING = "NA"


def cells(values: pa.Array) -> pa.StringArray:
    """Values of a column as they stand in a CSV file, null where there is none: (n,)."""
    kind = values.type
    if pa.types.is_large_string(kind):
        values = values.cast(pa.string())
    if pa.types.is_string(values.type):
        return pc.binary_join_element_wise('"', _with_doubled_quotes(values), '"', "")
    if pa.types.is_boolean(kind):
        # As R knows them: what pyarrow writes, `true` and `false`, is text to it.
        return pc.if_else(values, "TRUE", "FALSE")
    return values.cast(pa.string())


def _with_doubled_quotes(texts: pa.StringArray) -> pa.StringArray:
    """Texts as they stand in quotes: each quotation mark in them twice."""
    characters = texts.buffers()[2]
    if characters is None or not (np.frombuffer(characters, np.uint8) == ord('"')).any():
        return texts
    return pc.replace_substring(texts, '"', '""')


def joined(columns: Sequence[pa.StringArray], end: str = "") -> pa.StringArray:
    """The cells of several columns with commas between them: (n,).

    Args:
        columns: The cells of each, (n,) each; at least one.
        end: What stands behind the last one.
    """
    *others, last = columns
    nulls = {"null_handling": "replace", "null_replacement": MISSING}
    if end:
        last = pc.binary_join_element_wise(last, end, "", **nulls)
    return pc.binary_join_element_wise(*others, last, ",", **nulls) if others else last
