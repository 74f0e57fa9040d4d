"""Whether the functions that change the model take the keyword arguments that they are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from finetune_lm.arguments.calls import keyword_problems, taken_by, value_problems
from finetune_lm.arguments.references import short_name

_KWARGS = "model_modifier_fn_kwargs"
_GIVEN = ("model", "tokenizer")


def modifier_problems(
    functions: Sequence[Callable[..., Any]], kwargs: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Return a message for each keyword argument that its function has no use for, or lacks.

    A function that has an attribute ``check`` looks at the values itself: that is called with the
    keyword arguments, and raises a `UserError` if they will not do.

    Args:
        functions: The functions. Each is called with ``model`` and ``tokenizer`` by name.
        kwargs: The keyword arguments for each, by its name.
    """
    problems: list[str] = []
    for function in functions:
        name = short_name(function)
        given = kwargs.get(name, {})
        place = f"{_KWARGS}.{name}"
        problems += _signature_problems(function, name, given) or value_problems(
            place, function, given
        )
    return problems


def _signature_problems(
    function: Callable[..., Any], name: str, given: Mapping[str, Any]
) -> list[str]:
    takes = taken_by(function)
    if takes is None or takes.takes_any_number:  # the second may be a wrapper of anything
        return []
    if not takes.takes_any and not all(each in takes.own() for each in _GIVEN):
        return [f"model_modifier_fns must take model and tokenizer but {name} takes {takes}."]
    return keyword_problems(f"{_KWARGS}.{name}", name, takes, given, reserved=_GIVEN)
