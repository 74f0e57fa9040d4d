"""What rows of tokens say of each sentence beside its cost, and what an item's sentences share."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from finetune_lm.analysis.sentence_costs import Ints
from finetune_lm.data.items import CONDITION, EXPECTED, ITEM, PAIR, PHENOMENON, Item, as_text
from finetune_lm.recording.columns import SEED

_TEXT = "original_text"
_TRUTHS = {"true": True, "false": False}
_OWN = frozenset({CONDITION, EXPECTED, PHENOMENON, ITEM})
"""What has columns of its own, or is another thing in each sentence of an item."""


def metadata_columns(names: Sequence[str]) -> list[str]:
    """The metadata among the columns of a table of tokens: those behind ``seed``."""
    return list(names[names.index(SEED) + 1 :]) if SEED in names else []


class Sentences:
    """The sentences of a data set, as they are met in rows of tokens.

    Args:
        columns: The metadata columns of the rows.

    Attributes:
        metadata: What each sentence is.
        types: The type of each metadata column.
        begins_with_space: Of each sentence, whether it does.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = [ITEM, *columns]
        self._places: Ints = np.zeros(0, np.int64)
        self.metadata: list[dict[str, Any]] = []
        self.types: dict[str, pa.DataType] = {}
        self.begins_with_space: set[bool] = set()

    def of(self, rows: pa.Table) -> Ints:
        """Which sentence each row is of: (n,). Those that are new are taken in."""
        example = rows["example_num"].cast(pa.int64()).to_numpy()
        first_new = len(self.metadata)
        largest = int(example.max(initial=-1))
        if largest >= len(self._places):
            more = np.full(max(largest + 1, 2 * len(self._places)) - len(self._places), -1)
            self._places = np.concatenate([self._places, more])
        numbers, first_rows = np.unique(example, return_index=True)
        is_new = self._places[numbers] < 0
        order = np.argsort(first_rows[is_new])
        new, rows_of_new = numbers[is_new][order], first_rows[is_new][order]
        self._places[new] = first_new + np.arange(len(new))
        if len(new):
            self._take_in(rows.take(rows_of_new))
        places: Ints = self._places[example]
        return places

    def _take_in(self, rows: pa.Table) -> None:
        names = [name for name in self._columns if name in rows.column_names]
        self.types |= {name: rows.schema.field(name).type for name in names}
        self.metadata += map(_read, rows.select(names).to_pylist())
        if _TEXT in rows.column_names:
            texts = rows[_TEXT].to_pylist()
            self.begins_with_space |= {text[:1].isspace() for text in texts if text}

    @property
    def leading_space(self) -> bool | None:
        """Whether all sentences begin with a space; None if only some do."""
        return None if len(self.begins_with_space) != 1 else next(iter(self.begins_with_space))


def _read(values: Mapping[str, Any]) -> dict[str, Any]:
    """A row's metadata. What a sentence is in each of several items is in the table as JSON."""
    found = {name: value for name, value in values.items() if value is not None}
    shared = next((found[key] for key in (PAIR, ITEM) if key in found), None)
    if isinstance(_as_list(shared), list):
        found = {name: _as_list(value) for name, value in found.items()}
    if isinstance(found.get(EXPECTED), str):
        found[EXPECTED] = _TRUTHS.get(found[EXPECTED], found[EXPECTED])
    return found


def _as_list(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("["):
        try:
            read = json.loads(value)
        except (ValueError, RecursionError):
            return value
        return read if isinstance(read, list) else value
    return value


def columns_of_items(
    items: Sequence[Item], types: Mapping[str, pa.DataType], but: Collection[str]
) -> dict[str, pa.Array]:
    """What the sentences of each item share.

    Args:
        items: The items, n of them.
        types: The metadata columns and their types.
        but: Columns that are not wanted.

    Returns:
        ``item``, and each metadata column, missing where the sentences differ: (n,) each.
    """
    names = [name for name in types if name not in but and name not in _OWN]
    columns = {ITEM: _array(map(_name, items), types.get(ITEM, pa.string()))}
    for name in names:
        columns[name] = _array((_shared(item, name) for item in items), types[name])
    return columns


def _name(item: Item) -> Any:
    """What an item is called: as ``item`` has it, if that is the same for all of its pair."""
    shared = _shared(item, ITEM)
    return item.name if shared is None else shared


def _shared(item: Item, name: str) -> Any:
    values = [member.metadata.get(name) for member in item.members]
    return values[0] if all(value == values[0] for value in values) else None


def _array(values: Iterable[Any], kind: pa.DataType) -> pa.Array:
    found = list(values)
    if not pa.types.is_string(kind) and not pa.types.is_large_string(kind):
        try:
            return pa.array(found, kind)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            pass  # a pair's own name in place of a number
    return pa.array([None if value is None else as_text(value) for value in found], pa.string())
