"""Rows of a table many of which share values, so that these become text only once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import groupby

import pyarrow as pa
import pyarrow.compute as pc

from finetune_lm.data.ragged_arrays import IntArray
from finetune_lm.recording.csv_cells import cells, joined

MOST_KEPT = 2**24
"""Of how much text no more is kept for the next time, in bytes."""
_NUMBER = 32
"""More characters than a number has in a CSV file."""


class Columns:
    """Columns that stand side by side: n values each.

    Args:
        arrays: They, by name: (n,) each.
        is_kept: Whether their text is kept, since it will be asked for again.
    """

    def __init__(self, arrays: Mapping[str, pa.Array], *, is_kept: bool = False) -> None:
        self._arrays = arrays
        self.is_kept = is_kept
        """Whether their text is kept."""
        self._texts: dict[tuple[tuple[str, ...], str], pa.StringArray] = {}

    def __len__(self) -> int:
        return len(next(iter(self._arrays.values()), ()))

    @property
    def names(self) -> Sequence[str]:
        """What they are called."""
        return list(self._arrays)

    def array(self, name: str) -> pa.Array:
        """One of them: (n,)."""
        return self._arrays[name]

    def text(self, names: Sequence[str], end: str = "") -> pa.StringArray:
        """The cells of some of them in a CSV file, with commas between them: (n,).

        Args:
            names: Which, in order.
            end: What stands behind the last.
        """
        key = tuple(names), end
        if (text := self._texts.get(key)) is None:
            text = joined([cells(self._arrays[name]) for name in names], end)
            if self.is_kept:
                self._texts[key] = text
        return text

    def at(self, place: IntArray) -> tuple[Columns, IntArray | None]:
        """The values of some places, as a part of `Rows`: only these, unless all text is kept."""
        if self.is_kept:
            return self, place
        taken = pa.array(place)
        return Columns({name: values.take(taken) for name, values in self._arrays.items()}), None

    @cached_property
    def widest(self) -> int:
        """No row's text has more bytes than this."""
        return sum(map(_widest, self._arrays.values()))

    def between(self, begin: int, end: int) -> Columns:
        """Some of the values of each."""
        return Columns({name: values[begin:end] for name, values in self._arrays.items()})


class Rows:
    """Rows of a table, whose columns come of several parts: n of them.

    Args:
        parts: What has the columns, each with the place in it that each row has its values from:
            (n,). Without places row i has value i.
        names: The columns, in order; by default those of all parts.
    """

    is_kept = False

    def __init__(
        self,
        parts: Sequence[tuple[Columns | Rows, IntArray | None]],
        names: Sequence[str] | None = None,
    ) -> None:
        self._parts = parts
        self._part_of = {name: i for i, (part, _) in enumerate(parts) for name in part.names}
        self.names: Sequence[str] = list(self._part_of) if names is None else names
        """The columns, in order."""

    @classmethod
    def of(cls, table: pa.Table) -> Rows:
        """Those of a table that share nothing."""
        columns = zip(table.column_names, table.combine_chunks().columns, strict=True)
        return cls([(Columns({name: _whole(column) for name, column in columns}), None)])

    def __len__(self) -> int:
        part, place = self._parts[0]
        return len(part if place is None else place)

    def select(self, names: Sequence[str]) -> Rows:
        """The same rows with these columns, in this order."""
        return Rows(self._parts, names)

    def array(self, name: str) -> pa.Array:
        """One of the columns: (n,)."""
        part, place = self._parts[self._part_of[name]]
        values = part.array(name)
        return values if place is None else values.take(pa.array(place))

    @cached_property
    def table(self) -> pa.Table:
        """They as a table."""
        return pa.Table.from_arrays([self.array(name) for name in self.names], list(self.names))

    def text(self, names: Sequence[str], end: str = "") -> pa.StringArray:
        """The cells of some columns in a CSV file, with commas between them: (n,).

        Args:
            names: Which, in order.
            end: What stands behind the last.
        """
        groups = [(i, list(group)) for i, group in groupby(names, self._part_of.__getitem__)]
        pieces = []
        for number, (i, group) in enumerate(groups, start=1):
            part, place = self._parts[i]
            text = part.text(group, end if number == len(groups) else "")
            pieces.append(text if place is None else text.take(pa.array(place)))
        return joined(pieces)

    @cached_property
    def widest(self) -> int:
        """No row's text has more bytes than this."""
        return sum(part.widest for part, _ in self._parts)

    def between(self, begin: int, end: int) -> Rows:
        """Some of the rows, with those values of each part that they have."""
        parts: list[tuple[Columns | Rows, IntArray | None]] = []
        for part, place in self._parts:
            if place is None:
                parts.append((part.between(begin, end), None))
                continue
            place = place[begin:end]
            if part.is_kept or not len(place):
                parts.append((part, place))
            else:
                first, last = int(place.min()), int(place.max())
                parts.append((part.between(first, last + 1), place - first))
        return Rows(parts, self.names)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _widest(values: pa.Array) -> int:
    """How many bytes the longest cell of a column may have."""
    if not pa.types.is_string(values.type) and not pa.types.is_large_string(values.type):
        return _NUMBER
    # Quotation marks around it, and two for each within it.
    return 2 * (pc.max(pc.binary_length(values)).as_py() or 0) + len('"",')
