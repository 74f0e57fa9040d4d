"""Whether functions that users name take what they are called with, each kind in its own way."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from finetune_lm.arguments.calls import keyword_problems, taken_by, value_problems
from finetune_lm.arguments.references import short_name

_MODIFIER_KWARGS = "model_modifier_fn_kwargs"
_MODIFIER_GIVEN = ("model", "tokenizer")


def modifier_problems(
    functions: Sequence[Callable[..., Any]], kwargs: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Return a message for each keyword argument that its function has no use for, or lacks.

    A function that has an attribute ``check`` looks at the values itself: that is called with the
    keyword arguments, and raises a `UserError` if they will not do. One that has an attribute
    ``comes_after`` names functions that must not come behind it.

    Args:
        functions: The functions. Each is called with ``model`` and ``tokenizer`` by name.
        kwargs: The keyword arguments for each, by its name.
    """
    problems = _order_problems(functions)
    for function in functions:
        name = short_name(function)
        given = kwargs.get(name, {})
        place = f"{_MODIFIER_KWARGS}.{name}"
        problems += _modifier_signature_problems(function, name, given) or value_problems(
            place, function, given
        )
    return problems


def _order_problems(functions: Sequence[Callable[..., Any]]) -> list[str]:
    """Return a message for each function behind one that says that it must come after it."""
    names = [short_name(function) for function in functions]
    return [
        f"model_modifier_fns must have {later} before {name}."
        for i, (name, function) in enumerate(zip(names, functions, strict=True))
        for later in names[i + 1 :]
        if later in getattr(function, "comes_after", ())
    ]


def _modifier_signature_problems(
    function: Callable[..., Any], name: str, given: Mapping[str, Any]
) -> list[str]:
    takes = taken_by(function)
    if takes is None or takes.takes_any_number:  # the second may be a wrapper of anything
        return []
    if not takes.takes_any and not all(each in takes.own() for each in _MODIFIER_GIVEN):
        return [f"model_modifier_fns must take model and tokenizer but {name} takes {takes}."]
    return keyword_problems(
        f"{_MODIFIER_KWARGS}.{name}", name, takes, given, reserved=_MODIFIER_GIVEN
    )


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
    found = _preprocessing_signature_problems(place, kwargs_place, function, given, is_used)
    if not found and (given or is_used):
        found = value_problems(kwargs_place, function, given)
    return found


def _preprocessing_signature_problems(
    place: str,
    kwargs_place: str,
    function: Callable[..., Any],
    given: Mapping[str, Any],
    is_used: bool,
) -> list[str]:
    takes = taken_by(function)
    if takes is None:
        return []
    if len(takes.positional) < 2 and not takes.takes_any_number:
        return [
            f"{place} must take the inputs and the tokenizer but {short_name(function)} takes "
            f"{takes}."
        ]
    reserved = {p.name for p in takes.positional[:2]} | {"model"}
    return keyword_problems(
        kwargs_place, short_name(function), takes, given, reserved=reserved, is_used=is_used
    )
