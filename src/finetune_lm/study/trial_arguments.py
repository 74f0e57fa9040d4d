"""The arguments of one trial: those of the study with the values that it tries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from finetune_lm.arguments.data_training_arguments import DataTrainingArguments
from finetune_lm.arguments.declared import default_of, field_types, is_dictionary
from finetune_lm.arguments.nested import with_deletions

Place = tuple[str | int, ...]
"""Where a value is among the arguments: ``("train_optimizer_kwargs", "lr")``, with an integer for
the item of a list."""


def with_values(args: DataTrainingArguments, values: Mapping[Place, Any]) -> DataTrainingArguments:
    """Return a copy of arguments with some values set.

    Args:
        args: The arguments. Not changed.
        values: The values by their places.

    Raises:
        UserError: If a value is of the wrong type.

    Example:
        >>> args = DataTrainingArguments(train_file="a.txt", validation_file="b.txt")
        >>> with_values(args, {("train_optimizer_kwargs", "lr"): 1e-4}).lr
        0.0001
    """
    settings = _copy(args.effective())
    # A whole dictionary is set before a key of it.
    for place in sorted(values, key=len):
        _set(settings, place, values[place])
    types = field_types(DataTrainingArguments)
    for field in fields(args):
        if is_dictionary(types[field.name]):
            settings[field.name] = with_deletions(default_of(field), settings[field.name])
    return DataTrainingArguments(**settings)


def value_at(args: DataTrainingArguments, place: Place) -> Any:
    """Return the value in a place.

    Raises:
        LookupError: If there is none.
    """
    value: Any = args.effective()
    for part in place:
        value = value[part]
    return value


def _set(settings: dict[str, Any], place: Place, value: Any) -> None:
    *parents, last = place
    level: Any = settings
    for part in parents:
        below = level.setdefault(part, {}) if isinstance(level, dict) else level[part]
        if isinstance(below, tuple):
            below = level[part] = list(below)
        level = below
    level[last] = value


def _copy(value: Any) -> Any:
    """A copy of nested dictionaries and lists, whatever is in them."""
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value
