"""One line of a file -> one JSON object, read strictly."""

from __future__ import annotations

import json
import math
import re
from functools import cache
from typing import Any

from finetune_lm.arguments.nested import DEEPEST, is_deeper_than
from finetune_lm.errors import UserError

_MOST_DIGITS = 4300
"""Of an integer: what Python reads at most."""

NO_TEXT = re.compile("[\0\ud800-\udfff]")
"""What neither a tokenizer nor a reader of CSV files takes."""


def read_object(line: str, where: str) -> dict[str, Any]:
    """Read a line that is to be a JSON object.

    What Python's reader takes and JSON does not have (NaN, Infinity), a number that is too large to
    be one, and a key that is given twice are errors: each would be lost or changed in a table.

    Args:
        line: The line.
        where: Its place, for messages.

    Raises:
        UserError: If it is none.
    """
    if not line.strip():
        raise UserError(f"{where}: must be a JSON object but is blank.")
    try:
        value = _reader().decode(line)
    except RecursionError:
        raise UserError(_too_deep(where)) from None
    except json.JSONDecodeError as error:
        problem = f"{error.msg} at character {error.pos + 1}"
        raise UserError(f"{where}: must be JSON but is not ({problem}).") from None
    except ValueError as error:
        raise UserError(f"{where}: must be JSON but is not ({error}).") from None
    if not isinstance(value, dict):
        raise UserError(
            f'{where}: must be a JSON object, as in {{"text": "..."}}, but got {line[:80]}.'
        )
    if line.count("[") + line.count("{") > DEEPEST and is_deeper_than(value, DEEPEST):
        raise UserError(_too_deep(where))
    return value


@cache
def _reader() -> json.JSONDecoder:
    # To make one takes as long as to read a short line.
    return json.JSONDecoder(
        object_pairs_hook=_without_repeats,
        parse_constant=_no_constant,
        parse_float=_finite,
        parse_int=_integer,
    )


def check_text(value: Any, where: str) -> str:
    """See that a value is a text that a model can be given.

    Args:
        value: The value.
        where: Its place, for messages.

    Raises:
        UserError: If it is no text or is blank.
    """
    if not isinstance(value, str):
        raise UserError(f"{where} must be a string but got {json.dumps(value)[:80]}.")
    if NO_TEXT.search(value):
        raise UserError(f"{where} must be text but has a NUL or half a surrogate pair in it.")
    if not value.strip():
        raise UserError(f"{where} must not be blank. Take blank lines out of the file.")
    return value


def _too_deep(where: str) -> str:
    return f"{where}: must be JSON but is nested too deep to be read."


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's pairs as a dictionary; a key given twice would silently lose one value."""
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"key {key!r} is given twice")
            seen.add(key)
    return value


def _no_constant(text: str) -> Any:
    raise ValueError(f"JSON has no {text}; what is missing is null")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{_shortened(text)} is too large for a number")
    return number


def _integer(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"{_shortened(text)} is too large for an integer")
    return int(text)


def _shortened(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}..."
