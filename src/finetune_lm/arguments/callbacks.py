"""Which callbacks a run has at which of its points, and whether they can be made and called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune_lm.arguments.base import kwargs_problems
from finetune_lm.arguments.nearest import choices, did_you_mean
from finetune_lm.arguments.references import numbered_names, short_name
from finetune_lm.errors import UserError

_GIVEN = ("model", "tokenizer")
_CALLED_WITH = ("epoch", "batch")


@dataclass(frozen=True)
class CallbackEntry:
    """A callback class at one point of a run.

    Attributes:
        hook: The point, a name of `finetune_lm.hooks.HOOKS`.
        cls: The class.
        kwargs: What it is made with besides the model and the tokenizer.
        place: The argument that names it.
        kwargs_place: The argument that gives its kwargs.
    """

    hook: str
    cls: Callable[..., Any]
    kwargs: dict[str, Any]
    place: str
    kwargs_place: str


@dataclass(frozen=True)
class CallbackRow:
    """The classes that one argument lists for one point of a run, and all kwargs for them."""

    hook: str
    place: str
    classes: Sequence[Callable[..., Any]]
    kwargs_place: str
    kwargs: Mapping[str, Mapping[str, Any]]

    def entries(self) -> list[CallbackEntry]:
        """Each class with its own kwargs.

        Where a class is there twice, `MyCallback_2` has what is for the second alone, over what
        `MyCallback` has for both.
        """
        entries = []
        for cls, numbered in zip(self.classes, numbered_names(self.classes), strict=True):
            name = short_name(cls)
            kwargs = {**self.kwargs.get(name, {}), **self.kwargs.get(numbered, {})}
            place = f"{self.kwargs_place}.{numbered if numbered in self.kwargs else name}"
            entries.append(CallbackEntry(self.hook, cls, kwargs, self.place, place))
        return entries


def callback_problems(rows: Sequence[CallbackRow]) -> list[str]:
    """Return a message for each callback that cannot be made or called, as far as that shows."""
    problems: list[str] = []
    for row in rows:
        problems += _unused_kwargs_problems(row, rows)
        for entry in row.entries():
            problems += _entry_problems(entry)
    return list(dict.fromkeys(problems))


def _unused_kwargs_problems(row: CallbackRow, rows: Sequence[CallbackRow]) -> list[str]:
    """Kwargs for what the row does not hold, with the row that does."""
    problems = []
    for name, kwargs in row.kwargs.items():
        found = kwargs_problems(row.kwargs_place, {name: kwargs}, row.place, list(row.classes))
        holders = [other for other in rows if name in map(short_name, other.classes)]
        if found and holders and "Did you mean" not in found[0]:
            found = [f"{found[0]} Did you mean {holders[0].kwargs_place}.{name}?"]
        problems += found
    return problems


def _entry_problems(entry: CallbackEntry) -> list[str]:
    return (
        _point_problems(entry)
        or _constructor_problems(entry)
        or _call_problems(entry)
        or _value_problems(entry)
    )


def _point_problems(entry: CallbackEntry) -> list[str]:
    """A class may be of use only at some points."""
    points = getattr(entry.cls, "hook_points", None)
    if not isinstance(points, tuple) or entry.hook in points:
        return []
    wanted = choices(f"model_callbacks.{point}" for point in points)
    return [f"{short_name(entry.cls)} must be given as {wanted} but came as {entry.place}."]


def _constructor_problems(entry: CallbackEntry) -> list[str]:
    try:
        parameters = list(inspect.signature(entry.cls).parameters.values())
    except (TypeError, ValueError):  # builtins do not tell
        return []
    name, given = short_name(entry.cls), entry.kwargs
    kinds = [parameter.kind for parameter in parameters]
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) < len(_GIVEN) and inspect.Parameter.VAR_POSITIONAL not in kinds:
        takes = ", ".join(p.name for p in parameters) or "nothing"
        return [
            f"{entry.place}: {name} must be made with {' and '.join(_GIVEN)} but takes {takes}."
        ]
    reserved = {p.name for p in positional[: len(_GIVEN)]}
    own = {
        p.name: p
        for p in parameters
        if p.name not in reserved and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    takes = f"takes {', '.join(own)}" if own else "takes none"
    takes_any = inspect.Parameter.VAR_KEYWORD in kinds
    return [
        f"{entry.kwargs_place}.{key} is no argument of {name}, which {takes}."
        f"{did_you_mean(key, own, f'{entry.kwargs_place}.')}"
        for key in given
        if key not in own and (key in reserved or not takes_any)
    ] + [
        f"{entry.kwargs_place}.{key} must be given, because {name} needs it."
        for key, parameter in own.items()
        if parameter.default is parameter.empty and key not in given
    ]


def _call_problems(entry: CallbackEntry) -> list[str]:
    """What the class's instances are called with; of a function that makes them it is not known."""
    if not isinstance(entry.cls, type):
        return []
    name = short_name(entry.cls)
    method = next((vars(c)["__call__"] for c in entry.cls.__mro__ if "__call__" in vars(c)), None)
    if method is None:
        return [f"{entry.place}: {name} must have a method __call__(self, epoch, batch)."]
    if not inspect.isfunction(method):
        return []
    signature = inspect.signature(method)
    without_self = signature.replace(parameters=list(signature.parameters.values())[1:])
    if takes_epoch_and_batch(without_self) is not None:
        return []
    return [f"{entry.place}: {name}.__call__ must accept epoch and batch but is {signature}."]


def _value_problems(entry: CallbackEntry) -> list[str]:
    """What a class that checks its arguments itself says of these."""
    check = getattr(entry.cls, "check", None)
    if not isinstance(entry.cls, type) or check is None:
        return []
    if not isinstance(inspect.getattr_static(entry.cls, "check"), staticmethod | classmethod):
        return []
    try:
        check(**entry.kwargs)
    except UserError as error:
        return [f"{entry.kwargs_place}: {problem}" for problem in error.problems]
    return []


def takes_epoch_and_batch(signature: inspect.Signature) -> str | None:
    """Return how a callback takes what it is called with: by ``keyword``, by ``position``, or not.

    Example:
        >>> takes_epoch_and_batch(inspect.signature(lambda epoch, batch: None))
        'keyword'
        >>> takes_epoch_and_batch(inspect.signature(lambda e, b: None))
        'position'
    """
    for way, args, kwargs in (
        ("keyword", (), dict.fromkeys(_CALLED_WITH)),
        ("position", _CALLED_WITH, {}),
    ):
        try:
            signature.bind(*args, **kwargs)
        except TypeError:
            continue
        return way
    return None
