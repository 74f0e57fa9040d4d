"""Dictionaries and lists in one another: how deep, put together from paths, merged by presence."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from finetune_lm.arguments.suggestions import did_you_mean

DEEPEST = 50
"""How many dictionaries and lists may stand in one another. Python itself gives up at some 300."""

HALF_PAIR = re.compile("[\ud800-\udfff]")
"""Half a surrogate pair: what a text must not have in it, because no file can hold it."""

_NESTED = (dict, list, tuple)


class DeleteField:
    """Stands where a key of a default dictionary is to be removed."""

    def __repr__(self) -> str:
        return "__delete_field__"

    def __copy__(self) -> DeleteField:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> DeleteField:
        # There is one of it, and it is recognised by identity.
        return self


DELETE_FIELD = DeleteField()


def is_deeper_than(value: Any, limit: int) -> bool:
    """Tell whether more than so many lists and dictionaries stand in one another in a value.

    Example:
        >>> is_deeper_than({"a": [1]}, 2), is_deeper_than({"a": [[1]]}, 2)
        (False, True)
    """
    level = next(islice(_levels(value), limit, None), [])
    return any(isinstance(item, _NESTED) for item in level)


def strings_in(value: Any) -> Iterator[str]:
    """Yield all texts in a value that is not endlessly deep: itself, or keys and items in it."""
    for level in _levels(value):
        for item in level:
            if isinstance(item, dict):
                yield from (key for key in item if isinstance(key, str))
            elif isinstance(item, str):
                yield item


def _levels(value: Any) -> Iterator[list[Any]]:
    """Yield the value in a list, then what is in it, then what is in that, and so on."""
    level = [value]
    while level:
        yield level
        # What is in several places is looked at once.
        nested = {id(item): item for item in level if isinstance(item, _NESTED)}
        level = [
            below
            for item in nested.values()
            for below in (item.values() if isinstance(item, dict) else item)
        ]


def nest(given: Iterable[tuple[tuple[str, ...], Any]], problems: list[str]) -> dict[str, Any]:
    """Return a nested dictionary of values by their paths, each of which is given once.

    Args:
        given: Pairs of a path and a value.
        problems: A message for each name that is given twice, or both as a value and as a
            dictionary, goes here.
    """
    nested: dict[str, Any] = {}
    seen: set[tuple[str, ...]] = set()
    longer: dict[tuple[str, ...], tuple[str, ...]] = {}  # by what they begin with
    for path, value in given:
        if not all(path):
            problems.append(f"{'.'.join(path)} has a dot with no name on one side of it.")
            continue
        if len(path) > DEEPEST:
            problems.append(f"{'.'.join(path)[:40]}... has more than {DEEPEST} names in a row.")
            continue
        beginnings = [path[:n] for n in range(1, len(path))]
        conflict = _conflict(path, seen, longer, beginnings)
        if conflict is not None:
            problems.append(conflict)
            continue
        seen.add(path)
        longer.update(dict.fromkeys(beginnings, path))
        level = nested
        for part in path[:-1]:
            level = level.setdefault(part, {})
        level[path[-1]] = value
    return nested


def _conflict(
    path: tuple[str, ...],
    seen: set[tuple[str, ...]],
    longer: dict[tuple[str, ...], tuple[str, ...]],
    beginnings: list[tuple[str, ...]],
) -> str | None:
    if path in seen:
        return f"{'.'.join(path)} is given more than once."
    whole, part = next(
        ((beginning, path) for beginning in beginnings if beginning in seen),
        (path, longer.get(path)),
    )
    if part is None:
        return None
    return (
        f"{'.'.join(whole)} and {'.'.join(part)} cannot both be given: one sets the whole and the "
        "other a part of it."
    )


def merge(
    base: dict[str, Any], given: dict[str, Any], name: str, problems: list[str]
) -> dict[str, Any]:
    """Return `base` with what is in `given` put over it, at every depth.

    Args:
        base: The defaults, or what earlier layers made of them. Not changed.
        given: What overrides it. `DELETE_FIELD` as a value removes the key.
        name: Dotted name of the dictionary, for messages.
        problems: Messages about keys that were to be deleted and are not there go here.

    Example:
        >>> merge({"lr": 2e-6, "weight_decay": 0}, {"lr": 1e-4}, "train_optimizer_kwargs", [])
        {'lr': 0.0001, 'weight_decay': 0}
    """
    merged = dict(base)
    for key, value in given.items():
        dotted = f"{name}.{key}"
        if value is DELETE_FIELD:
            if key not in merged:
                close = did_you_mean(key, merged, f"{name}.")
                problems.append(f"{dotted} cannot be deleted because it is not there.{close}")
            merged.pop(key, None)
        elif isinstance(value, dict):
            below = merged.get(key)
            merged[key] = merge(below if isinstance(below, dict) else {}, value, dotted, problems)
        else:
            merged[key] = value
    return merged


def with_deletions(default: dict[str, Any], effective: dict[str, Any]) -> dict[str, Any]:
    """Return what to merge over `default` in order to have exactly `effective`.

    It is `effective` itself, and a `DELETE_FIELD` for each default key that it lacks.
    """
    result: dict[str, Any] = {}
    for key, value in effective.items():
        below = default.get(key)
        both_nested = isinstance(value, dict) and isinstance(below, dict)
        result[key] = with_deletions(below, value) if both_nested else value  # type: ignore[arg-type]
    for key in default:
        result.setdefault(key, DELETE_FIELD)
    return result
