"""Values with lists and dictionaries in them, looked through without recursion."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

DEEPEST = 50
"""How many dictionaries and lists may stand in one another. Python itself gives up at some 300."""

HALF_PAIR = re.compile("[\ud800-\udfff]")
"""Half a surrogate pair: what a text must not have in it, because no file can hold it."""


def is_deeper_than(value: Any, limit: int) -> bool:
    """Tell whether more than so many lists and dictionaries stand in one another in a value.

    Example:
        >>> is_deeper_than({"a": [1]}, 2), is_deeper_than({"a": [[1]]}, 2)
        (False, True)
    """
    level = [value]
    for _ in range(limit + 1):
        # What is in several places is looked at once.
        level = list({id(item): item for item in level if _is_nested(item)}.values())
        if not level:
            return False
        level = [below for item in level for below in _items(item)]
    return True


def strings_in(value: Any) -> Iterator[str]:
    """Yield all texts in a value: itself, or keys and items at any depth."""
    waiting, seen = [value], set()
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif _is_nested(item) and id(item) not in seen:
            seen.add(id(item))
            waiting += _items(item)
            if isinstance(item, dict):
                waiting += item


def _is_nested(item: Any) -> bool:
    return isinstance(item, dict | list | tuple)


def _items(item: Any) -> list[Any]:
    return list(item.values()) if isinstance(item, dict) else list(item)
