"""A parameter of a study: where its value goes among the arguments, and which values are tried."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_lm.arguments.base import Arguments
from finetune_lm.arguments.checking import show
from finetune_lm.arguments.data_training_arguments import DataTrainingArguments
from finetune_lm.arguments.declared import default_of, field_types, is_dictionary
from finetune_lm.arguments.model_arguments import ModelArguments
from finetune_lm.arguments.nested import with_deletions
from finetune_lm.arguments.references import name_of
from finetune_lm.arguments.values import write_value
from finetune_lm.errors import UserError

if TYPE_CHECKING:
    import optuna


Place = tuple[str | int, ...]
"""Where a value is among the arguments: ``("train_optimizer_kwargs", "lr")``, with an integer for
the item of a list."""

Stored = None | bool | int | float | str
"""What a storage can hold as a choice."""

_NAMELESS = (type(None), bool, int, float, str, np.generic, os.PathLike)


MODIFIER_KWARGS = "model_modifier_fn_kwargs"
"""The argument of the model that a study may search in; all others are of data and training."""


def with_model_values(args: ModelArguments, values: Mapping[Place, Any]) -> ModelArguments:
    """Return arguments of the model with the values that are for modifiers; others are left out.

    They are the same object if there are none.
    """
    mine = {place: value for place, value in values.items() if place[0] == MODIFIER_KWARGS}
    if not mine:
        return args
    settings = {MODIFIER_KWARGS: _copy(args.model_modifier_fn_kwargs)}
    for place, value in mine.items():
        _set(settings, place, value)
    return replace(args, **settings)


def with_values(args: DataTrainingArguments, values: Mapping[Place, Any]) -> DataTrainingArguments:
    """Return a copy of arguments with some values set.

    Args:
        args: The arguments. Not changed.
        values: The values by their places. Those of the model are left out.

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
        if place[0] == MODIFIER_KWARGS:
            continue
        _set(settings, place, values[place])
    types = field_types(DataTrainingArguments)
    for each in fields(args):
        if is_dictionary(types[each.name]):
            settings[each.name] = with_deletions(default_of(each), settings[each.name])
    return DataTrainingArguments(**settings)


def value_at(args: Arguments, place: Place) -> Any:
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


@dataclass(frozen=True, eq=False)
class Parameter:
    """One parameter of a study, which is equal to itself alone.

    Attributes:
        name: What it is called in the storage and in the results.
        place: Where its value goes among the arguments.
        kind: ``float``, ``int`` or ``categorical``.
        bounds: The lowest and the highest value, for numbers.
        choices: The values to choose from, for ``categorical``.
        suggest_kwargs: ``log`` and ``step``, for numbers.
    """

    name: str
    place: Place
    kind: str
    bounds: tuple[float, float] = (0.0, 0.0)
    choices: tuple[Any, ...] = ()
    suggest_kwargs: dict[str, Any] = field(default_factory=dict)

    def suggest(self, trial: optuna.Trial) -> Any:
        """The value that a trial is to try."""
        if self.kind == "categorical":
            return self.value_of(trial.suggest_categorical(self.name, self.stored_choices))
        low, high = self.bounds
        if self.kind == "int":
            return trial.suggest_int(self.name, int(low), int(high), **self.suggest_kwargs)
        return trial.suggest_float(self.name, low, high, **self.suggest_kwargs)

    @cached_property
    def stored_choices(self) -> list[Stored]:
        """The choices as a storage holds them."""
        return [stored(choice) for choice in self.choices]

    def value_of(self, in_storage: Any) -> Any:
        """The value that something in a storage stands for."""
        if self.kind != "categorical":
            return in_storage
        return self.choices[self.stored_choices.index(in_storage)]

    def tried(self) -> Sequence[Any]:
        """Values that stand for all: the choices, or both ends of the range."""
        if self.kind == "categorical":
            return self.choices
        return [int(b) if self.kind == "int" else float(b) for b in self.bounds]

    def describe(self) -> dict[str, Any]:
        """The parameter in plain types: two that are equal here are the same to a study."""
        described: dict[str, Any] = {"kind": self.kind}
        if self.kind == "categorical":
            return {**described, "choices": self.stored_choices}
        return {**described, "bounds": list(self.bounds), **self.suggest_kwargs}


def stored(choice: Any) -> Stored:
    """A choice as a storage holds it.

    A class or function is its dotted name, a list or dictionary is JSON, and what storages know
    stays as it is.

    Raises:
        UserError: If it is an object that has no name by which it could be found again.

    Example:
        >>> [stored(choice) for choice in (16, "adam", sum, {"a": [1]})]
        [16, 'adam', 'callable:sum', '{"a": [1]}']
    """
    if choice is None or isinstance(choice, bool | int | float | str):
        return choice
    if isinstance(choice, np.generic):
        return stored(choice.item())
    if isinstance(choice, os.PathLike):
        return str(os.fspath(choice))
    _check_names(choice)
    written = write_value(choice)
    return written if isinstance(written, str) else json.dumps(written)


def _check_names(choice: Any) -> None:
    """See that all objects in a choice have names."""
    if isinstance(choice, dict | list | tuple | set | frozenset):
        for item in choice.values() if isinstance(choice, dict) else choice:
            _check_names(item)
    elif not isinstance(choice, _NAMELESS) and name_of(choice) is None:
        raise UserError(
            f"a choice must be text, a number, a list or dictionary of these, or a class or "
            f"function that can be imported by its name, but got {show(choice)}. Put it into a "
            f"module."
        )
