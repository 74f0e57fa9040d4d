"""What a dataclass declares about each argument, read from its annotations."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin

from finetune_lm.arguments.redaction import is_secret

TEXT_KEYS: Mapping[str, Any] = types.MappingProxyType(
    {
        **dict.fromkeys(("frozen_params", "unfrozen_params"), str | list[str] | None),
        **dict.fromkeys(("words_to_freeze", "words_to_unfreeze"), str | list[str] | None),
        "word_embeddings_name": str | None,
        **dict.fromkeys(("target_modules", "exclude_modules"), str | list[str] | None),
        **dict.fromkeys(("modules_to_save", "target_parameters"), str | list[str] | None),
        **dict.fromkeys(("layers_pattern", "feedforward_modules"), str | list[str] | None),
    }
)
"""Keyword arguments that are text wherever they are given.

The names of a model's parameters and layers have dots, so they would be taken for something to
import.
"""


class Affects(enum.Enum):
    """What an argument makes a difference to.

    The first three are the result: a run is resumed only with the same of them. The first two are
    all that a study's trials depend on.
    """

    INPUTS = "what the model is and what it is fed, and so everything else"
    LEARNING = "what the model computes and learns"
    TABLES = "what is measured besides: tests, a validation before the training"
    RECORD = "what is put down and where, but none of its numbers"
    NOTHING = "nothing that is left of a run"


RESULT = frozenset({Affects.INPUTS, Affects.LEARNING, Affects.TABLES})
VALIDATION_LOSS = frozenset({Affects.INPUTS, Affects.LEARNING})

MAY_BE_RAISED = "may be raised"
"""On resuming: up to where the run was stopped, a smaller number made no difference."""
MAY_CHANGE = "may change"
"""On resuming: up to where the run was stopped, the value made no difference."""


def option(default: Any, help: str, *, affects: Affects, **metadata: Any) -> Any:
    """Return a dataclass field with its help text.

    Args:
        default: The default. A dictionary or a list is copied for every instance.
        help: What the argument does, as `--help` shows it.
        affects: What it makes a difference to.
        **metadata: `affects_keys`, what keys of a dictionary make a difference to where that is
            something else; `on_resume`, `MAY_BE_RAISED` or `MAY_CHANGE` where a run may go on with
            another value all the same; `names_files`, whether it is the paths of data files, which
            count by what they say; `keys`, the only keys that a dictionary may have, of which it
            needs those that the default has; `for_all_keys`, whether a value that is no
            dictionary is for each of them; `fill`, whether those that are missing hold an empty
            dictionary; `about_keys`, what each key is for; `default_text`, what the help shows for
            a default that is worked out.
    """
    metadata |= {"help": help, "affects": affects}
    if isinstance(default, dict | list):
        return dataclasses.field(default_factory=lambda: _copy(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def what_affects(wanted: Collection[Affects], cls: type) -> dict[str, frozenset[str]]:
    """Return the arguments of a dataclass that affect something.

    Args:
        wanted: What they affect.
        cls: The dataclass.

    Returns:
        By name, the keys of each that affect something else.
    """
    return {
        field.name: frozenset(
            key for key, by in field.metadata.get("affects_keys", {}).items() if by not in wanted
        )
        for field in dataclasses.fields(cls)
        if field.metadata["affects"] in wanted
    }


def is_required(field: dataclasses.Field[Any]) -> bool:
    """Tell whether an argument has no default."""
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def default_of(field: dataclasses.Field[Any]) -> Any:
    """Return a new copy of an argument's default."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def is_dictionary(annotation: Any) -> bool:
    """Tell whether an argument is a dictionary, whose parts merge with the default."""
    return annotation is not Any and item_of(annotation, dict) is not None


def field_types(cls: type) -> dict[str, Any]:
    """Return the annotation of each argument of a dataclass."""
    # Dataclasses that compare by value have instances, not classes, that cannot be hashed.
    key: Any = cls
    return _evaluated_annotations(key)


@cache
def _evaluated_annotations(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the annotation alone."""
    if get_origin(annotation) is Annotated:
        return alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return get_args(annotation)
    return (annotation,)


def allows(annotation: Any, alternative: Any) -> bool:
    """Tell whether an annotation lists an alternative, such as `bool` or `list[str]`."""
    return alternative in alternatives(annotation)


def is_text(annotation: Any) -> bool:
    """Tell whether an annotation takes text, and besides it only None, a bool, or a list of it."""
    members = set(alternatives(annotation))
    return bool(members & {str, list[str]}) and members <= {str, bool, type(None), list[str]}


def item_of(annotation: Any, container: type) -> Any:
    """Return what an annotation says about the items of a list or of a dictionary.

    Returns:
        The annotation of the items, `Any` where nothing is declared, None where the annotation
        allows no such container.
    """
    for alternative in alternatives(annotation):
        if alternative is Any or alternative is container:
            return Any
        if get_origin(alternative) is container:
            return get_args(alternative)[-1]
    return None


def annotation_at(annotation: Any, key: str) -> Any:
    """Return the annotation of one key of a dictionary."""
    if is_secret(key):
        return bool | str | None
    below = item_of(annotation, dict)
    if below is None or below is Any:
        # Annotated[dict[str, Any], {...}] says what some of its keys are.
        own = get_args(annotation)[1] if get_origin(annotation) is Annotated else {}
        return own.get(key, TEXT_KEYS.get(key, Any))
    return below


def is_class_or_function(annotation: Any) -> bool:
    """Tell whether an annotation is a class or a function to be called."""
    return get_origin(annotation) is Callable
