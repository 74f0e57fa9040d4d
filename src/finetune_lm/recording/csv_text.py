"""Rows as CSV that every reader takes for what they are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv

MISSING = "NA"

_PIECE = 2**15
"""How much text is looked through at a time, in bytes."""
_ROWS = 2**13
"""How many rows pyarrow puts into text at a time: by its default of 1,024 it takes longer."""


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
    booleans = [column for column in rows.columns if pa.types.is_boolean(column.type)]
    out = pa.BufferOutputStream()
    options = pyarrow.csv.WriteOptions(include_header=header, batch_size=_ROWS, null_string=MISSING)
    pyarrow.csv.write_csv(rows, out, options)
    text = out.getvalue()
    n = sum(len(column) - column.null_count for column in booleans)
    return _with_capitals(text, n) if n else bytes(text.to_pybytes())


def _with_capitals(text: pa.Buffer, n: int) -> bytes:
    """A text whose booleans, of which there are so many, are in capitals.

    pyarrow writes ``true`` and ``false``, which R reads as text.
    """
    characters = np.array(np.frombuffer(text, dtype=np.uint8))
    # At each place the four characters from there, to be looked at and written together.
    fours = np.ndarray((len(characters) - 3,), np.uint32, characters.data, strides=(1,))
    places = _behind_separators(characters, b"tf")
    # Behind the last of the fours there is nothing but the end of a line, which is in no word.
    begin_with = fours[np.minimum(places, len(fours) - 1)]
    cells = []
    for word in (b"true", b"false"):
        begins = places[begin_with == np.frombuffer(word[:4], np.uint32)]
        for letter in word[4:]:
            begins = begins[characters[begins + 4] == letter]
        cells.append(begins[_is_separator(characters[begins + len(word)])])
    if sum(map(len, cells)) > n:
        # Some are between commas or at the ends of lines in a text, which stands in quotes.
        quotes = np.flatnonzero(characters == ord('"'))
        cells = [begins[np.searchsorted(quotes, begins) % 2 == 0] for begins in cells]
    for begins, word in zip(cells, (b"TRUE", b"FALSE"), strict=True):
        fours[begins] = np.frombuffer(word[:4], np.uint32)
        for letter in word[4:]:
            characters[begins + 4] = letter
    return characters.tobytes()


def _behind_separators(characters: npt.NDArray[np.uint8], letters: bytes) -> npt.NDArray[np.int64]:
    """Where one of two letters is first in a line or behind a comma, in or out of quotes."""
    found = [np.flatnonzero([characters[0] in letters])]
    # Piece by piece, since to get large pieces of memory costs more than to look through them.
    for begin in range(0, len(characters), _PIECE):
        piece = characters[begin : begin + _PIECE + 1]
        is_place = piece[1:] == letters[0]
        is_place |= piece[1:] == letters[1]
        is_place &= _is_separator(piece[:-1])
        found.append(np.flatnonzero(is_place) + (begin + 1))
    return np.concatenate(found)


def _is_separator(characters: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = characters == ord(",")
    found |= characters == ord("\n")
    return found
