"""Whether the functions that change the model take the keyword arguments that they are given."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from finetune_lm.arguments.keywords import keyword_problems
from finetune_lm.arguments.references import short_name
from finetune_lm.errors import UserError

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
        found = _signature_problems(function, name, given)
        check = getattr(function, "check", None)
        if not found and check is not None:
            try:
                check(**given)
            except UserError as error:
                found = [f"{_KWARGS}.{name}: {problem}" for problem in error.problems]
        problems += found
    return problems


def _signature_problems(
    function: Callable[..., Any], name: str, given: Mapping[str, Any]
) -> list[str]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # builtins do not tell
        return []
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):  # may be a wrapper of anything
        return []
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    if not takes_any and not all(given_name in named for given_name in _GIVEN):
        return [
            f"model_modifier_fns must take model and tokenizer but {name} takes "
            f"{', '.join(p.name for p in parameters) or 'nothing'}."
        ]
    own = {key: parameter for key, parameter in named.items() if key not in _GIVEN}
    return keyword_problems(
        f"{_KWARGS}.{name}", name, own, given, reserved=_GIVEN, takes_any=takes_any
    )
