"""The configuration of an adapter: its names and values held against PEFT's own class for it."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

from finetune_lm.arguments.checking import show
from finetune_lm.arguments.suggestions import choices, did_you_mean
from finetune_lm.errors import UserError, first_line
from finetune_lm.models.saved_adapters import check_peft, quiet

LORA = "LORA"

TOKEN_FIELDS = ("trainable_token_indices", "token_indices")
"""Where PEFT wants ids of tokens; words will do here."""

ALL_LINEAR = "all-linear"
_PATTERNS = ("target_modules", "exclude_modules")

_NOT_THEIRS = frozenset(
    {"peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path"}
    | {"revision", "inference_mode", "runtime_config"}
)
"""What follows from the run, or says how an adapter that is there is used."""

_NO_LAYERS = frozenset(
    {"PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CPT", "CARTRIDGE"}
    | {"ADAPTION_PROMPT", "XLORA", "POLY"}
)
"""What puts tokens of its own before a text, or chooses among adapters, and cannot be merged."""

_TOLD_OF_STEPS = frozenset({"ADALORA"})
"""What changes its shape as it learns, and must be told of each step."""

_CHANGES_GRADIENTS = frozenset({"OSF"})
"""What hangs on parameters and changes their gradients, and does not see those of parts."""

_MAY_BE_FRACTIONS = frozenset({"lora_alpha", "alpha"})
"""What PEFT only divides, though it declares it to be whole."""


def adapter_config(peft_type: Any, settings: Mapping[str, Any]) -> Any:
    """The configuration that arguments make.

    Args:
        peft_type: Which kind of adapter, by PEFT's name.
        settings: What its class is made with.

    Raises:
        UserError: If PEFT is not installed, or with a message for each name that the class does not
            have and each value that it cannot have.
    """
    check_peft("add_adapter")
    cls = _config_class(peft_type)
    fields = {field.name for field in dataclasses.fields(cls)} - _NOT_THEIRS
    unknown = [
        f"{name} is no argument of PEFT's {cls.__name__}.{did_you_mean(name, sorted(fields))}"
        for name in settings
        if name not in fields
    ]
    hints = typing.get_type_hints(cls)
    problems = [
        problem
        for name, value in settings.items()
        if name in fields and (problem := _value_problem(name, value, hints[name]))
    ]
    if unknown or problems:
        raise UserError(*unknown, *problems)
    try:
        with quiet():
            return cls(**{name: _as_meant(name, value) for name, value in settings.items()})
    except (ValueError, TypeError, ImportError, KeyError) as error:
        raise UserError(f"PEFT's {cls.__name__} does not take this: {first_line(error)}") from error


def _as_meant(name: str, value: Any) -> Any:
    """A value as PEFT takes it.

    A single text is a list of one on the command line, while PEFT takes a pattern only by itself.
    """
    if name in _PATTERNS and isinstance(value, list | tuple) and len(value) == 1:
        [only] = value
        return only if only == ALL_LINEAR or set(only) & set("*+?|()[]^$\\") else list(value)
    if name in TOKEN_FIELDS and isinstance(value, list | tuple):
        return [0 if isinstance(token, str) else token for token in value]
    return value


def _config_class(peft_type: Any) -> Any:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    classes = {str(kind.value): cls for kind, cls in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    known = sorted(classes.keys() - _NO_LAYERS - _TOLD_OF_STEPS)
    name = _spelled(peft_type)
    if name in _NO_LAYERS:
        raise UserError(
            f"peft_type must be an adapter that lies on layers of the model and can be merged into "
            f"them, such as {LORA}, but {name} is none."
        )
    if name in _TOLD_OF_STEPS:
        raise UserError(
            f"peft_type {name} must be told of each step of a training, which does not happen "
            f"here. Take {LORA}."
        )
    if name not in known:
        raise UserError(
            f"peft_type must be one of PEFT's ({', '.join(known)}) but got {show(peft_type)}."
            f"{did_you_mean(name, known)}"
        )
    return classes[name]


def _spelled(peft_type: Any) -> str:
    return str(peft_type).upper().replace("-", "_")


def needs_whole_weights(peft_type: Any = LORA, **_: Any) -> str | None:
    """The kind of adapter, if it does not work on parts of weights."""
    name = _spelled(peft_type)
    return name if name in _CHANGES_GRADIENTS else None


def _value_problem(name: str, value: Any, hint: Any) -> str | None:
    """What is wrong with a value, in words; None if nothing is, as far as that can be told."""
    if name in ("r", "target_r") and isinstance(value, int) and value < 1:
        return f"{name} must be at least 1 but got {value}."
    if name.endswith("dropout") and isinstance(value, int | float) and not 0 <= value < 1:
        return f"{name} must be from 0 to below 1 but got {value}."
    if name in TOKEN_FIELDS:
        hint = hint | list[int | str] | dict[str, list[int | str]] | str | int
    if name in _MAY_BE_FRACTIONS:
        hint = hint | float
    if _fits(value, hint):
        return None
    return f"{name} must be {choices(_in_words(hint))} but got {show(value)}."


def _fits(value: Any, hint: Any) -> bool:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, each) for each in args)
    if origin is Literal:
        # PEFT names a family of values by one that stands for it: pissa_niter_[number of iters].
        stems = [each.partition("[")[0] for each in args if isinstance(each, str) and "[" in each]
        return value in args or (isinstance(value, str) and value.startswith(tuple(stems or "\0")))
    if origin in (list, tuple, set):
        inside = args[0] if args else Any
        return isinstance(value, list | tuple | set) and all(_fits(v, inside) for v in value)
    if origin is dict:
        return isinstance(value, Mapping) and all(_fits(v, args[-1]) for v in value.values())
    if hint is bool or isinstance(value, bool):
        return isinstance(value, bool) and hint in (bool, Any, object)
    if hint is float:
        return isinstance(value, int | float)
    if isinstance(hint, type):
        return isinstance(value, hint) or (hint is list and isinstance(value, tuple))
    return True  # Any, and what nobody can look at


_WORDS = {
    int: ["a whole number"],
    float: ["a number"],
    str: ["text"],
    bool: ["True", "False"],
    type(None): ["None"],
    dict: ["a dictionary"],
}


def _in_words(hint: Any) -> list[str]:
    """What an annotation allows, for people."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return list(dict.fromkeys(word for each in args for word in _in_words(each)))
    if origin is Literal:
        return [str(each) for each in args]
    if origin in (list, tuple, set):
        return ["a list"]
    if origin is dict:
        return ["a dictionary"]
    return _WORDS.get(hint, [getattr(hint, "__name__", str(hint))])
