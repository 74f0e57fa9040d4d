"""From ``params`` to the parameters of a study, everything that is wrong with them told at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from finetune_lm.arguments import DataTrainingArguments, ModelArguments
from finetune_lm.arguments.checking import show
from finetune_lm.arguments.declared import (
    VALIDATION_LOSS,
    Affects,
    alternatives,
    what_affects,
)
from finetune_lm.arguments.suggestions import choices as listed
from finetune_lm.arguments.suggestions import did_you_mean
from finetune_lm.data.files import read_files
from finetune_lm.errors import UserError
from finetune_lm.messages import warn
from finetune_lm.study.parameters import (
    MODIFIER_KWARGS,
    Parameter,
    stored,
    with_model_values,
    with_values,
)
from finetune_lm.study.targets import Target, find_targets

KINDS = ("float", "int", "categorical")
_SUGGEST_KEYS = ("log", "step")
_OF_INPUTS = what_affects({Affects.INPUTS}, DataTrainingArguments)
_WITH_EFFECT = what_affects(VALIDATION_LOSS, DataTrainingArguments)


def search_space(
    params: Mapping[str, Any], args: DataTrainingArguments, model_args: ModelArguments | None = None
) -> list[Parameter]:
    """The parameters that a study searches for.

    Numbers are searched for in a range with two ends, everything else among choices. Whether a
    parameter is a number, and whether it is whole, is told by its value without a study, unless
    ``type`` says otherwise. A list of numbers, such as one ``scaleby`` for each data set of a loss,
    becomes one parameter for each item.

    Args:
        params: What to search for, as `OptimizationArguments` has it.
        args: The arguments for data and training, without a study.
        model_args: Those of the model, for what is searched for in these.

    Raises:
        UserError: With a message for each thing that is wrong.

    Example:
        >>> args = DataTrainingArguments(train_file="a.txt", validation_file="b.txt")
        >>> [lr] = search_space({"lr": {"values": [1e-4, 1e-5]}}, args)
        >>> lr.kind, lr.bounds
        ('float', (1e-05, 0.0001))
    """
    targets, problems = find_targets(params, args, model_args)
    parameters: list[Parameter] = []
    for target in targets:
        try:
            made = _parameters(target)
        except UserError as error:
            problems += error.problems
            continue
        problems += dict.fromkeys(
            f"params.{target.path}.values: {problem}"
            for parameter in made
            for problem in _unusable_values(parameter, args, model_args)
        )
        parameters += made
    if problems:
        raise UserError(*problems)
    for parameter in parameters:
        name, *keys = parameter.place
        if name == MODIFIER_KWARGS:
            continue
        if name not in _WITH_EFFECT or _WITH_EFFECT[str(name)].intersection(keys[:1]):
            warn(f"params.{parameter.name} has no effect on the validation loss.")
    return parameters


def _parameters(target: Target) -> list[Parameter]:
    where = f"params.{target.path}"
    given_type = target.specification.get("type")
    if given_type is not None and given_type not in KINDS:
        name = getattr(given_type, "__name__", given_type)  # callable:float
        if name not in KINDS:
            raise UserError(
                f"{where}.type must be {listed(KINDS)} but got {show(given_type)}."
                f"{did_you_mean(str(name), KINDS)}"
            )
        given_type = name
    values = _values(where, target.specification)
    suggest_kwargs = target.specification.get("suggest_kwargs") or {}
    if not isinstance(suggest_kwargs, Mapping):
        raise UserError(
            f"{where}.suggest_kwargs must be a dictionary but got {show(suggest_kwargs)}."
        )
    targets = [target]
    if _is_list_of_numbers(target.default) and not any(isinstance(v, list | tuple) for v in values):
        targets = _items(target)
    return [_parameter(each, given_type, values, suggest_kwargs) for each in targets]


def _items(target: Target) -> list[Target]:
    """A target for each number of a list, which are of one kind."""
    numbers = target.default
    if any(isinstance(number, float) for number in numbers):
        numbers = list(map(float, numbers))
    return [
        replace(
            target,
            name=f"{target.name}_{i}",
            place=(*target.place, i),
            default=number,
            annotation=Any,
        )
        for i, number in enumerate(numbers)
    ]


def _values(where: str, specification: Mapping[str, Any]) -> list[Any]:
    if "values" not in specification:
        raise UserError(
            f"{where}.values must be given: the ends of a range of numbers, or the choices."
        )
    values = specification["values"]
    if not isinstance(values, list | tuple) or len(values) < 2:
        one = values[0] if isinstance(values, list | tuple) and len(values) == 1 else values
        raise UserError(
            f"{where}.values must be at least two values, the ends of a range of numbers or the "
            f"choices, but got {show(one)}."
        )
    return list(values)


def _parameter(
    target: Target, given_type: str | None, values: list[Any], suggest_kwargs: Mapping[str, Any]
) -> Parameter:
    kind = _kind(target, given_type, values)
    where = f"params.{target.path}"
    if kind == "categorical":
        _check_choices(where, values, suggest_kwargs)
        return Parameter(target.name, target.place, kind, choices=tuple(values))
    bounds = _bounds(where, target.default, kind, values)
    _check_suggest_kwargs(where, kind, bounds, suggest_kwargs)
    kwargs = dict(suggest_kwargs)
    return Parameter(target.name, target.place, kind, bounds, suggest_kwargs=kwargs)


def _kind(target: Target, given_type: str | None, values: Sequence[Any]) -> str:
    """``float``, ``int`` or ``categorical``."""
    default = target.default
    if given_type == "categorical":
        return given_type
    if _is_number(default):
        if given_type is not None:
            return given_type
        # A whole number as the default of something that may have a fraction, such as a weight
        # decay of 0, does not make whole numbers of the values.
        any_float = any(isinstance(value, float) for value in values)
        whole = isinstance(default, int) and (
            _is_declared_whole(target.annotation) or not any_float
        )
        return "int" if whole else "float"
    numbers = all(map(_is_number, values))
    if default is None and numbers and len(values) == 2:
        if given_type is not None:
            return given_type
        return "int" if all(isinstance(value, int) for value in values) else "float"
    if given_type is not None:
        raise UserError(
            f"params.{target.path}.type can be {given_type} only for a number, but the default is "
            f"{show(default)}. Its values are choices; leave the type out."
        )
    return "categorical"


def _bounds(where: str, default: Any, kind: str, values: Sequence[Any]) -> tuple[float, float]:
    wrong = [value for value in values if not _is_number(value)]
    remedy = f"For choices give {where}.type categorical."
    if wrong:
        reason = "the default is a number" if _is_number(default) else f"its type is {kind}"
        raise UserError(
            f"{where}.values must be numbers, because {reason}, but got {show(wrong[0])}. {remedy}"
        )
    if len(values) != 2:
        raise UserError(
            f"{where}.values must be two numbers, the ends of a range, but got {len(values)}. "
            f"{remedy}"
        )
    infinite = [value for value in values if not math.isfinite(value)]
    if infinite:
        raise UserError(f"{where}.values must be finite but got {infinite[0]}.")
    if kind == "int" and any(value != int(value) for value in values):
        fraction = next(value for value in values if value != int(value))
        raise UserError(
            f"{where}.values must be integers, because "
            f"{f'the default is {default}' if isinstance(default, int) else 'its type is int'}, "
            f"but got {show(fraction)}. For fractions give {where}.type float."
        )
    low, high = sorted(values)
    if low == high:
        raise UserError(f"{where}.values must be two different numbers but got {low} twice.")
    return float(low), float(high)


def _check_suggest_kwargs(
    where: str, kind: str, bounds: tuple[float, float], kwargs: Mapping[str, Any]
) -> None:
    where = f"{where}.suggest_kwargs"
    for key in kwargs:
        if key not in _SUGGEST_KEYS:
            raise UserError(
                f"{where}.{key} does not exist; the keys for a range of numbers are "
                f"{' and '.join(_SUGGEST_KEYS)}.{did_you_mean(key, _SUGGEST_KEYS)}"
            )
    log, step = kwargs.get("log", False), kwargs.get("step")
    if not isinstance(log, bool):
        raise UserError(f"{where}.log must be True or False but got {show(log)}.")
    low, high = bounds
    least = 1 if kind == "int" else 0
    if log and (low < least or low <= 0):
        raise UserError(
            f"{where}.log needs a range above 0, because it is searched on a logarithmic scale, "
            f"but the range begins at {_shown(low)}."
        )
    if step is None:
        return
    if not _is_number(step) or not math.isfinite(step) or step <= 0:
        raise UserError(f"{where}.step must be a number above 0 but got {show(step)}.")
    if kind == "int" and step != int(step):
        raise UserError(f"{where}.step must be an integer, as the values are, but got {step}.")
    if log:
        raise UserError(f"{where}.log and {where}.step cannot be given together.")
    if step > high - low:
        raise UserError(
            f"{where}.step must not be larger than the range, from {_shown(low)} to "
            f"{_shown(high)}, but got {step}."
        )


def _check_choices(where: str, values: Sequence[Any], suggest_kwargs: Mapping[str, Any]) -> None:
    if suggest_kwargs:
        raise UserError(
            f"{where}.suggest_kwargs ({', '.join(suggest_kwargs)}) cannot be given for choices, "
            f"only for a range of numbers."
        )
    seen: list[Any] = []
    for value in values:
        try:
            as_stored = stored(value)
        except UserError as error:
            raise UserError(*(f"{where}.values: {problem}" for problem in error.problems)) from None
        if isinstance(as_stored, float) and not math.isfinite(as_stored):
            raise UserError(f"{where}.values must be finite but got {as_stored}.")
        # Storages find a choice by comparing, so 1 and True are one choice.
        if as_stored in seen:
            raise UserError(f"{where}.values must be different but got {show(value)} twice.")
        seen.append(as_stored)


def _unusable_values(
    parameter: Parameter, args: DataTrainingArguments, model_args: ModelArguments | None
) -> list[str]:
    """What is wrong with the arguments of trials at the ends of the range, or at each choice."""
    if parameter.place[0] == MODIFIER_KWARGS:
        assert model_args is not None
        before = set(model_args.problems())
        wrong = (
            with_model_values(model_args, {parameter.place: value}).problems()
            for value in parameter.tried()
        )
        return [each for problems in wrong for each in problems if each not in before]
    before = set(args.problems())
    problems: list[str] = []
    for value in parameter.tried():
        try:
            tried = with_values(args, {parameter.place: value})
            found = [problem for problem in tried.problems() if problem not in before]
            if not found and not before and parameter.place[0] in _OF_INPUTS:
                read_files(tried)
        except UserError as error:
            found = list(error.problems)
        problems += found
        if found and parameter.kind != "categorical":
            break  # the other end would be told the same
    return problems


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_list_of_numbers(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(map(_is_number, value))


def _is_declared_whole(annotation: Any) -> bool:
    kinds = alternatives(annotation)
    return int in kinds and float not in kinds


def _shown(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)
