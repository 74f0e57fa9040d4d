"""What functions and classes take when they are called: the one place that asks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from finetune_lm.arguments.checking import number_with_comma, show
from finetune_lm.arguments.references import numbered_names, short_name
from finetune_lm.arguments.suggestions import did_you_mean
from finetune_lm.errors import UserError, users_code

Parameter = inspect.Parameter
NO_DEFAULT = inspect.Parameter.empty


@dataclass(frozen=True)
class Takes:
    """What a function or class takes when it is called.

    Attributes:
        parameters: Its parameters by name, in order; ``self`` is not among them.
    """

    parameters: Mapping[str, Parameter]

    @property
    def positional(self) -> list[Parameter]:
        """The parameters that may be given by position."""
        kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
        return [p for p in self.parameters.values() if p.kind in kinds]

    @property
    def takes_any(self) -> bool:
        """Whether it takes arguments of any name."""
        return any(p.kind is p.VAR_KEYWORD for p in self.parameters.values())

    @property
    def takes_any_number(self) -> bool:
        """Whether it takes any number of arguments by position."""
        return any(p.kind is p.VAR_POSITIONAL for p in self.parameters.values())

    def own(self, reserved: Collection[str] = ()) -> dict[str, Parameter]:
        """The parameters that may be given by name.

        Args:
            reserved: Parameters that are given in any case, and so are not among these.
        """
        kinds = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
        return {
            name: p
            for name, p in self.parameters.items()
            if p.kind in kinds and name not in reserved
        }

    def refusal(self, *args: Any, **kwargs: Any) -> str | None:
        """Why it cannot be called so; None where it can.

        Example:
            >>> taken_by(lambda a, b=1: None).refusal(1, c=2)
            "got an unexpected keyword argument 'c'"
        """
        try:
            inspect.Signature(list(self.parameters.values())).bind(*args, **kwargs)
        except TypeError as error:
            return str(error)
        return None

    def __str__(self) -> str:
        return ", ".join(self.parameters) or "nothing"


def taken_by(function: Callable[..., Any]) -> Takes | None:
    """What a function or class takes; None where it does not tell, as some builtins."""
    try:
        return Takes(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return None


def takes_named(function: Callable[..., Any], name: str) -> bool:
    """Whether a function or class says that it takes an argument of this name."""
    takes = taken_by(function)
    return takes is not None and name in takes.parameters


def keyword_problems(
    prefix: str,
    name: str,
    takes: Takes,
    given: Mapping[str, Any],
    *,
    reserved: Collection[str] = (),
    is_used: bool = True,
) -> list[str]:
    """Return a message for each keyword argument that there is no use for, or that is lacking.

    Args:
        prefix: The dotted name under which they are given, for messages.
        name: What the function is called.
        takes: What it takes.
        given: The keyword arguments.
        reserved: Parameters that are given in any case, so not here.
        is_used: Whether it will be called; otherwise nothing is lacking.
    """
    own = takes.own(reserved)
    known = f"takes {', '.join(own)}" if own else "takes none"
    problems = [
        f"{prefix}.{key} is not an argument of {name}, which "
        f"{known}.{did_you_mean(key, own, f'{prefix}.')}"
        for key in given
        if key not in own and (key in reserved or not takes.takes_any)
    ]
    problems += comma_problems(prefix, takes, given)
    if is_used:
        problems += [
            f"{prefix}.{key} must be given, because {name} needs it."
            for key, parameter in own.items()
            if parameter.default is NO_DEFAULT and key not in given
        ]
    return problems


def comma_problems(prefix: str, takes: Takes | None, given: Mapping[str, Any]) -> list[str]:
    """Return a message for each text that would be a number but for a comma, where one belongs.

    Args:
        prefix: The dotted name under which the values are given, for messages.
        takes: What takes them; where the default is a number, or has numbers in it, one belongs.
        given: The values.
    """
    parameters = {} if takes is None else takes.parameters
    return [
        f"{prefix}.{key} must be a number but got {show(item)}."
        for key, value in given.items()
        if key in parameters and _is_number(parameters[key].default)
        for item in (value if isinstance(value, list) else [value])
        if isinstance(item, str) and number_with_comma(item)
    ]


def _is_number(default: Any) -> bool:
    if isinstance(default, list | tuple):
        return any(map(_is_number, default))
    return isinstance(default, int | float) and not isinstance(default, bool)


def kwargs_problems(
    kwargs_name: str, kwargs: dict[str, Any], name: str, of: list[Any]
) -> list[str]:
    """Return a message for each class or function that is given kwargs but is not used.

    Args:
        kwargs_name: Dotted name of the dictionary of kwargs.
        kwargs: Kwargs by the name of a class or function.
        name: Dotted name of the list of classes or functions.
        of: The classes or functions in that list.
    """
    names = list(dict.fromkeys([*map(short_name, of), *numbered_names(of)]))
    listed = f"holds {', '.join(names)}" if names else "is empty"
    return [
        f"{kwargs_name}.{key} has no use because {name} {listed}."
        f"{did_you_mean(key, names, f'{kwargs_name}.')}"
        for key in kwargs
        if key not in names
    ]


def value_problems(
    prefix: str, function: Callable[..., Any], given: Mapping[str, Any], name: str | None = None
) -> list[str]:
    """What a function or class with an attribute ``check`` says itself of keyword arguments.

    ``check`` is called with them, and raises a `UserError` if they will not do. Of a class it must
    be a static or a class method, since there is no object yet.

    Args:
        prefix: The dotted name under which they are given, for messages.
        function: The function or class.
        given: The keyword arguments.
        name: What it is called, where that is not its own name.
    """
    check = getattr(function, "check", None)
    if check is None:
        return []
    if isinstance(function, type):
        held = inspect.getattr_static(function, "check")
        if not isinstance(held, staticmethod | classmethod):
            return []
    try:
        with users_code(f"the check of {name or short_name(function)}"):
            check(**given)
    except UserError as error:
        return [f"{prefix}: {problem}" for problem in error.problems]
    return []


def check_call(
    function: Callable[..., Any], kwargs_name: str, kwargs: Mapping[str, Any], given: str
) -> None:
    """See that a function or class accepts what it will be called with.

    Args:
        function: The function or class.
        kwargs_name: The argument that gives it more, for the message.
        kwargs: What that gives.
        given: The names of what it is called with in any case, in order.

    Raises:
        UserError: If it does not.
    """
    takes = taken_by(function)
    refusal = takes.refusal(*given.split(", "), **kwargs) if takes is not None else None
    if refusal is not None:
        raise UserError(
            f"{short_name(function)} must accept {given} and what {kwargs_name} gives "
            f"({', '.join(kwargs) or 'nothing'}): {refusal}."
        )
