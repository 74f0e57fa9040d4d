"""Whether preprocessing functions take the keyword arguments that they are given."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from finetune_lm.arguments.keywords import keyword_problems
from finetune_lm.arguments.references import short_name
from finetune_lm.errors import UserError


def preprocessing_problems(
    functions: Mapping[str, Callable[..., Any]],
    kwargs: Mapping[str, Mapping[str, Any]],
    used: Collection[str],
) -> list[str]:
    """Return a message for each keyword argument that its function has no use for, or lacks.

    Args:
        functions: The function for each kind of data.
        kwargs: The keyword arguments for each.
        used: The kinds of data that there are files of; of the others nothing is lacking.
    """
    problems: list[str] = []
    for key, function in functions.items():
        problems += function_problems(
            f"data_preprocessing_fn.{key}",
            f"data_preprocessing_fn_kwargs.{key}",
            function,
            kwargs.get(key, {}),
            is_used=key in used,
        )
    return problems


def function_problems(
    place: str,
    kwargs_place: str,
    function: Callable[..., Any],
    given: Mapping[str, Any],
    *,
    is_used: bool = True,
) -> list[str]:
    """Return a message for each keyword argument that one function has no use for, or lacks.

    Args:
        place: The argument that names the function, for messages.
        kwargs_place: The argument that gives it keyword arguments.
        function: The function.
        given: Its keyword arguments.
        is_used: Whether there is data for it; otherwise nothing is lacking.
    """
    found = _signature_problems(place, kwargs_place, function, given, is_used)
    if not found and (given or is_used):
        found = _value_problems(kwargs_place, function, given)
    return found


def _signature_problems(
    place: str,
    kwargs_place: str,
    function: Callable[..., Any],
    given: Mapping[str, Any],
    is_used: bool,
) -> list[str]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return []
    kinds = [parameter.kind for parameter in parameters]
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) < 2 and inspect.Parameter.VAR_POSITIONAL not in kinds:
        return [
            f"{place} must take the inputs and the tokenizer but "
            f"{short_name(function)} takes {', '.join(p.name for p in parameters) or 'nothing'}."
        ]
    reserved = {p.name for p in positional[:2]} | {"model"}
    own = {
        p.name: p
        for p in parameters
        if p.name not in reserved and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    return keyword_problems(
        kwargs_place,
        short_name(function),
        own,
        given,
        reserved=reserved,
        takes_any=inspect.Parameter.VAR_KEYWORD in kinds,
        is_used=is_used,
    )


def _value_problems(
    kwargs_place: str, function: Callable[..., Any], given: Mapping[str, Any]
) -> list[str]:
    """What a function that checks its values itself says of these."""
    check = getattr(function, "check", None)
    if check is None:
        return []
    try:
        check(**given)
    except UserError as error:
        return [f"{kwargs_place}: {problem}" for problem in error.problems]
    return []
