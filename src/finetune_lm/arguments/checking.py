"""Whether a value is what an argument declares, and how a message shows it where it is not."""

from __future__ import annotations

import os
import re
import sys
from typing import Any

from finetune_lm.arguments.declared import (
    allows,
    alternatives,
    annotation_at,
    is_class_or_function,
    is_text,
    item_of,
)
from finetune_lm.arguments.redaction import is_secret, without_secrets
from finetune_lm.arguments.references import (
    Reference,
    describe,
)
from finetune_lm.arguments.suggestions import choices, did_you_mean, meant_by

_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]{0,20},[0-9]{1,20}([eE][+-]?[0-9]{1,5})?")
_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2}(,[0-9]{3})+(\.[0-9]{1,20})?")


def conform(value: Any, annotation: Any) -> Any:
    """Return a value in the form that its annotation declares, where that changes nothing in it.

    A single value for a list becomes a list of one, an int for a float a float, a path a text.
    What does not fit the annotation stays as it is, for `type_problems` to say so.
    """
    if annotation is Any:
        return value
    if isinstance(value, dict) and item_of(annotation, dict) is not None:
        return {key: conform(item, annotation_at(annotation, key)) for key, item in value.items()}
    item = item_of(annotation, list)
    if item is not None:
        if isinstance(value, list | tuple):
            return [conform(each, item) for each in value]
        if value is not None and value is not True:
            return [conform(value, item)]
        return value
    if isinstance(value, os.PathLike) and is_text(annotation):
        return os.fspath(value)
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if is_whole and allows(annotation, float):
        # A larger integer stays what it is, and that is no number of this type.
        return float(value) if abs(value) <= sys.float_info.max else value
    return value


def type_problems(value: Any, annotation: Any, name: str) -> list[str]:
    """Return a message for each part of a value that is not what its annotation declares.

    Example:
        >>> type_problems("x", int | None, "patience")
        ["patience must be an integer or None but got 'x' (text)."]
    """
    if annotation is Any:
        return []
    below = item_of(annotation, dict)
    if isinstance(value, dict) and below is not None:
        return [
            f"{name} must have text for its keys but got {show(key)}."
            for key in value
            if not isinstance(key, str)
        ] + [
            problem
            for key, item in value.items()
            if not is_secret(key)
            for problem in type_problems(item, below, f"{name}.{key}")
        ]
    item_annotation = item_of(annotation, list)
    if isinstance(value, list) and item_annotation is not None:
        bad = [item for item in value if type_problems(item, item_annotation, name)]
        return [_message(name, annotation, bad[0])] if bad else []
    if any(_is_of_type(value, alternative) for alternative in alternatives(annotation)):
        return []
    return [_message(name, annotation, value)]


def _is_of_type(value: Any, alternative: Any) -> bool:
    if alternative in (None, type(None)):
        return value is None
    if alternative is bool:
        return isinstance(value, bool)
    if alternative is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if alternative is float:
        return isinstance(value, float)
    if alternative is str:
        return isinstance(value, str)
    # A reference is an object that is not imported yet.
    return is_class_or_function(alternative) and (callable(value) or isinstance(value, Reference))


def _message(name: str, annotation: Any, value: Any) -> str:
    expected = choices(dict.fromkeys(_expectation(each) for each in alternatives(annotation)))
    if is_secret(name.rpartition(".")[2]):
        return f"{name} must be {expected} but got {_kind(value)}."
    takes_callable = any(map(_takes_class_or_function, alternatives(annotation)))
    meant = meant_by(value) if takes_callable else ""
    return f"{name} must be {expected} but got {show(value)}.{meant}"


def _takes_class_or_function(annotation: Any) -> bool:
    item = item_of(annotation, list)
    return is_class_or_function(annotation) or (item is not None and is_class_or_function(item))


def _expectation(annotation: Any) -> str:
    item = item_of(annotation, list)
    if item is not None:
        return f"a list, each item {choices([_expectation(each) for each in alternatives(item)])}"
    if item_of(annotation, dict) is not None:
        return "a dictionary"
    if is_class_or_function(annotation):
        return "a class or function with its module, such as torch.sum"
    return {
        type(None): "None",
        bool: "True or False",
        int: "an integer",
        float: "a number",
        str: "text",
    }[annotation]


def choice_problem(name: str, value: Any, allowed: tuple[str, ...]) -> list[str]:
    """Return a message where a value is not one of those that exist."""
    if value in allowed:
        return []
    return [f"{name} must be {choices(allowed)} but got {value!r}.{did_you_mean(value, allowed)}"]


def minimum_problem(name: str, value: float | None, minimum: int) -> list[str]:
    """Return a message where a number is below what it can be. None is never too small."""
    # Written so that NaN, which compares as False with everything, is a problem too.
    if value is None or value >= minimum:
        return []
    shown = int(value) if isinstance(value, float) and value.is_integer() else value
    if minimum == 0 and value < 0:
        return [f"{name} cannot be negative but got {shown}."]
    return [f"{name} must be at least {minimum} but got {shown}."]


def show(value: Any) -> str:
    """Return a value as an error message shows it: what it is, and of what kind.

    Example:
        >>> show(3)
        '3 (an integer)'
    """
    if value is None:
        return "None"
    if isinstance(value, str) and (meant := number_with_comma(value)) is not None:
        return f"{value!r} (text; {meant})"
    if isinstance(value, str | int | float | dict | list | tuple):
        text = repr(without_secrets(value))
    else:
        text = describe(value)
    shown = text if len(text) <= 80 else f"{text[:77]}..."
    return f"{shown} ({_kind(value)})"


def number_with_comma(text: str) -> str | None:
    """Return how a number is written that has commas in it, or None for any other text.

    Example:
        >>> number_with_comma("0,001"), number_with_comma("20,000")
        ('the decimal sign is a point: 0.001', 'a number has no commas: 20000')
    """
    if _THOUSANDS.fullmatch(text):
        return f"a number has no commas: {text.replace(',', '')}"
    if _DECIMAL_COMMA.fullmatch(text):
        return f"the decimal sign is a point: {text.replace(',', '.')}"
    return None


def _kind(value: Any) -> str:
    kinds: list[tuple[type | tuple[type, ...], str]] = [
        (bool, "a truth value"),
        (int, "an integer"),
        (float, "a number"),
        (str, "text"),
        (dict, "a dictionary"),
        ((list, tuple), "a list"),
        (type, "a class"),
        (type(None), "None"),
    ]
    for kind, text in kinds:
        if isinstance(value, kind):
            return text
    return "a function" if callable(value) else f"an object of class {type(value).__name__}"
