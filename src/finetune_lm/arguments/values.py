"""Raw texts -> values, by the value rules and by what is declared; and a value -> its text.

Config files hold the same texts as a command line, so what `write_value` writes is what
`read_value` reads.
"""

from __future__ import annotations

import json
import numbers
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetune_lm.arguments.declared import allows, annotation_at, is_text, item_of
from finetune_lm.arguments.nested import DEEPEST, DELETE_FIELD, DeleteField, is_deeper_than
from finetune_lm.arguments.references import describe, resolve_builtin, resolve_name
from finetune_lm.errors import UserError

_WORDS: dict[str, Any] = {
    "True": True,
    "False": False,
    "None": None,
    "__delete_field__": DELETE_FIELD,
}
_PREFIXES = ("import:", "callable:", "json:")


def read_value(text: str, import_name: Callable[[str], Any] = resolve_name) -> Any:
    """Return the value that a text stands for where nothing is declared about it.

    Args:
        text: One raw value, as the shell or a config file gave it.
        import_name: What to do with a dotted name. Passing `Reference` puts the import off.

    Raises:
        UserError: If the text names something that is not there, or is not valid JSON.

    Example:
        >>> [read_value(text) for text in ["3", "1e-3", "True", "'3'", "abc"]]
        [3, 0.001, True, '3', 'abc']
    """
    if _is_quoted(text):
        return text[1:-1]
    if text in _WORDS:
        return _WORDS[text]
    if text == "{}":
        return {}
    if text == "[]":
        return []
    number = _read_number(text)
    if number is not None:
        return number
    if text.startswith("import:"):
        return import_name(text.removeprefix("import:"))
    if text.startswith("callable:"):
        return resolve_builtin(text.removeprefix("callable:"))
    if text.startswith("json:"):
        return _read_json(text)
    if _is_dotted(text) and not _exists(text):
        return import_name(text)
    return text


def read_text(text: str, *, allows_none: bool, allows_bool: bool, is_list: bool) -> Any:
    """Return the value of an argument that is declared as text: nearly always the text itself.

    Numbers and dotted names stay as they are, so file names and revisions need no quotes.
    """
    if _is_quoted(text):
        return text[1:-1]
    if text == "__delete_field__":
        return DELETE_FIELD
    if (text == "None" and allows_none) or (text in ("True", "False") and allows_bool):
        return _WORDS[text]
    if text == "[]" and is_list:
        return []
    if text.startswith("json:"):
        return _read_json(text)
    return text


def _is_quoted(text: str) -> bool:
    return len(text) >= 2 and text[0] == text[-1] and text[0] in "'\""


def _read_number(text: str) -> int | float | None:
    # Python reads 1_000 as a number; in a file name or a label the underscore is meant.
    if "_" in text:
        return None
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return None


def _read_json(text: str) -> Any:
    too_deep = UserError("what follows json: is nested too deeply.")
    try:
        value = json.loads(text.removeprefix("json:"))
    except json.JSONDecodeError as error:
        raise UserError(
            f"what follows json: is not valid JSON: {error.msg} at character {error.pos + 1}."
        ) from None
    except ValueError as error:  # an integer of more digits than Python reads
        raise UserError(f"what follows json: cannot be read: {error}.") from None
    except RecursionError:
        raise too_deep from None
    if is_deeper_than(value, DEEPEST):
        raise too_deep
    return value


def _is_dotted(text: str) -> bool:
    return "." in text and "/" not in text


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # too long, or with a character that no file name can hold
        return False


def write_value(value: Any, *, is_text: bool = False) -> Any:
    """Return a value in plain types from which the value rules make the same value again.

    Args:
        value: Anything that an argument may hold.
        is_text: Whether the argument is declared as text, so that fewer texts need quotes.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        text = str.__str__(value)
        return text if _stays_as_it_is(text, is_text) else f'"{text}"'
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, dict):
        return {str(key): write_value(item, is_text=is_text) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [write_value(item, is_text=is_text) for item in value]
    if isinstance(value, set | frozenset):
        # Sets have no order of their own, and two runs should write the same file.
        return sorted((write_value(item, is_text=is_text) for item in value), key=repr)
    if isinstance(value, DeleteField):
        return repr(value)
    if isinstance(value, os.PathLike):
        return write_value(os.fspath(value), is_text=is_text)
    return describe(value)


def _stays_as_it_is(text: str, is_text: bool) -> bool:
    if _is_quoted(text) or text in _WORDS or text in ("{}", "[]") or text.startswith("json:"):
        return False
    if is_text:
        return True
    # Whether a file of that name exists must not matter: the text may be read elsewhere.
    return _read_number(text) is None and not text.startswith(_PREFIXES) and not _is_dotted(text)


Problem = Callable[[tuple[str, ...], str], None]
"""Takes the path and the message of something that is wrong."""


def read_as_declared(
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
            key: read_as_declared(
                item, annotation_at(annotation, key), (*path, key), import_name, problem
            )
            for key, item in raw.items()
        }
    if isinstance(raw, list):
        below = item_of(annotation, list)
        item_annotation = annotation if below is None else below
        items = [
            read_as_declared(item, item_annotation, path, import_name, problem) for item in raw
        ]
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
