"""Raw values -> values, by the value rules and by what is declared about each argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from finetune_lm.arguments.declared import allows, annotation_at, is_text, item_of
from finetune_lm.arguments.values import DELETE_FIELD, read_text, read_value
from finetune_lm.errors import UserError

Problem = Callable[[tuple[str, ...], str], None]
"""Takes the path and the message of something that is wrong."""


def read(
    raw: Any,
    annotation: Any,
    path: tuple[str, ...],
    import_name: Callable[[str], Any],
    problem: Problem,
) -> Any:
    """Return the value that a raw value stands for.

    Args:
        raw: A text, a value that YAML knows (a truth value, None, an infinite number), or a
            dictionary or list of such.
        annotation: What the dataclass declares about it.
        path: Where it belongs, for messages.
        import_name: What to do with a dotted name.
        problem: Called with whatever cannot be read; `UNREADABLE` then stands in its place.
    """
    if isinstance(raw, dict):
        return {
            key: read(item, annotation_at(annotation, key), (*path, key), import_name, problem)
            for key, item in raw.items()
        }
    if isinstance(raw, list):
        below = item_of(annotation, list)
        item_annotation = annotation if below is None else below
        items = [read(item, item_annotation, path, import_name, problem) for item in raw]
        if any(item is DELETE_FIELD for item in items):
            problem(path, f"{'.'.join(path)} cannot have __delete_field__ inside a list.")
        return items
    if not isinstance(raw, str):
        return raw
    try:
        if is_text(annotation):
            return read_text(
                raw,
                allows_none=allows(annotation, type(None)),
                allows_bool=allows(annotation, bool),
                is_list=allows(annotation, list[str]),
            )
        return read_value(raw, import_name)
    except UserError as error:
        for message in error.problems:
            problem(path, f"{'.'.join(path)}: {message}")
        return UNREADABLE


class _Unreadable:
    """Stands where a value could not be read."""


UNREADABLE = _Unreadable()
"""What stands in the place of a value that could not be read."""


def is_readable(value: Any) -> bool:
    """Tell whether nothing in a value was unreadable."""
    if isinstance(value, dict):
        return all(map(is_readable, value.values()))
    if isinstance(value, list):
        return all(map(is_readable, value))
    return value is not UNREADABLE


def readable_part(value: Any) -> Any:
    """Return a value without the keys and items in it that were unreadable."""
    if isinstance(value, dict):
        return {k: readable_part(v) for k, v in value.items() if v is not UNREADABLE}
    if isinstance(value, list):
        return [readable_part(item) for item in value if item is not UNREADABLE]
    return value
