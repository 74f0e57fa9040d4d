"""What the three dataclasses of arguments have in common."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from finetune_lm.arguments.checking import conform, type_problems
from finetune_lm.arguments.declared import default_of, field_types, is_dictionary, item_of
from finetune_lm.arguments.nested import (
    DEEPEST,
    DELETE_FIELD,
    HALF_PAIR,
    DeleteField,
    is_deeper_than,
    merge,
    strings_in,
)
from finetune_lm.arguments.redaction import is_secret, remember, without_secrets
from finetune_lm.arguments.references import resolve_references
from finetune_lm.arguments.suggestions import did_you_mean
from finetune_lm.errors import UserError


@dataclass(repr=False)
class Arguments:
    """Arguments that mean the same given in Python as given on the command line.

    A dictionary is merged over its default, a single value where a list is declared becomes a
    list of one, and a value of the wrong type is a `UserError`.
    """

    # Whether dotted names become objects as soon as there is an instance.
    resolves_at_once: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Bring each value into its declared form, or say which cannot be."""
        remember(self)
        problems: list[str] = []
        for field in fields(self):
            value, found = prepare(type(self), field, getattr(self, field.name))
            problems += found
            setattr(self, field.name, value)
        if problems:
            raise UserError(*problems)
        if self.resolves_at_once:
            for field in fields(self):
                setattr(self, field.name, resolve_references(getattr(self, field.name)))
        self._finish()

    def _finish(self) -> None:
        """Add what follows from the values."""

    def __repr__(self) -> str:
        shown = (
            f"{field.name}={without_secrets(getattr(self, field.name))!r}"
            for field in fields(self)
            if not is_secret(field.name)
        )
        return f"{type(self).__name__}({', '.join(shown)})"

    def effective(self) -> dict[str, Any]:
        """Return the values that are used, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def problems(self) -> list[str]:
        """Return a message for each value that cannot be used, as far as no file is needed."""
        declared = field_types(type(self))
        wrong_types = [
            problem
            for field in fields(self)
            for problem in _type_problems(field, getattr(self, field.name), declared[field.name])
        ]
        if wrong_types:
            return wrong_types
        wrong_keys = []
        for field in fields(self):
            keys: tuple[str, ...] = field.metadata.get("keys", ())
            value = getattr(self, field.name)
            wrong_keys += _unknown_key_problems(field.name, value, keys) if keys else []
            needed = default_of(field) if keys else {}
            wrong_keys += [
                f"{field.name}.{key} is needed and cannot be deleted."
                for key in needed
                if key not in value
            ]
        if wrong_keys:
            return wrong_keys
        return self._range_problems() + (self._object_problems() if self.resolves_at_once else [])

    def _range_problems(self) -> list[str]:
        """Return the problems of values that have the right types."""
        return []

    def _object_problems(self) -> list[str]:
        """Return what is wrong with classes and functions, and with what they are given."""
        return []


def prepare(
    cls: type[Arguments], field: dataclasses.Field[Any], value: Any
) -> tuple[Any, list[str]]:
    """Return the value of one argument in its declared form, and what is wrong with it."""
    problems: list[str] = []
    annotation = field_types(cls)[field.name]
    if is_deeper_than(value, DEEPEST):
        problems.append(
            f"{field.name} has more than {DEEPEST} lists or dictionaries in one another."
        )
        return default_of(field), problems
    if any(map(HALF_PAIR.search, strings_in(value))):
        problems.append(f"{field.name} must be text that UTF-8 can hold but has half a character.")
        return default_of(field), problems
    if is_dictionary(annotation):
        if field.metadata.get("for_all_keys") and not isinstance(value, dict | DeleteField | None):
            value = dict.fromkeys(field.metadata["keys"], value)
        if value is DELETE_FIELD:
            value = {}
        elif isinstance(value, dict):
            value = merge(default_of(field), value, field.name, problems)
        keys: tuple[str, ...] = field.metadata.get("keys", ())
        if keys and isinstance(value, dict):
            problems += _unknown_key_problems(field.name, value, keys)
            value = {key: item for key, item in value.items() if key in keys}
        if field.metadata.get("fill") and isinstance(value, dict):
            value = {**{key: {} for key in keys}, **value}
    elif value is DELETE_FIELD:
        problems.append(
            f"{field.name} is not a dictionary, so nothing can be deleted from it; leave it out "
            "to have its default."
        )
        return value, problems
    value = conform(value, annotation)
    return value, problems + _type_problems(field, value, annotation)


def _type_problems(field: dataclasses.Field[Any], value: Any, annotation: Any) -> list[str]:
    """The same as `type_problems`, which says once what is wrong with a value for all keys."""
    if field.metadata.get("for_all_keys") and isinstance(value, dict):
        first, *others = value.values() or [None]
        if others and all(other == first for other in others):
            return type_problems(first, item_of(annotation, dict), field.name)
    return type_problems(value, annotation, field.name)


def _unknown_key_problems(name: str, value: dict[str, Any], keys: tuple[str, ...]) -> list[str]:
    return [
        f"{name}.{key} does not exist; the keys of {name} are {', '.join(keys)}."
        f"{_dot_or_spelling(name, key, keys)}"
        for key in value
        if key not in keys
    ]


def _dot_or_spelling(name: str, key: str, keys: tuple[str, ...]) -> str:
    """What may be meant by a key that does not exist."""
    outer, dot, inner = key.partition(".")
    if dot and outer in keys:  # of a config file: name: {outer.inner: ...}
        return (
            f" A dot inside a dictionary is part of a key: write {name}.{outer}.{inner} as one "
            f"name, or `{outer}: {{{inner}: ...}}`."
        )
    return did_you_mean(key, keys, f"{name}.")
