"""The points of a run, and the callbacks given for them: whether they can be made and called."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from finetune_lm.arguments.calls import (
    Takes,
    keyword_problems,
    kwargs_problems,
    taken_by,
    value_problems,
)
from finetune_lm.arguments.references import numbered_names, short_name
from finetune_lm.arguments.suggestions import choices

_GIVEN = ("model", "tokenizer")
_CALLED_WITH = ("epoch", "batch")
RUN = "run"
"""The parameter of a constructor that asks for what the run has come to."""


class Hook(NamedTuple):
    """A point of a run.

    Attributes:
        when: When callbacks are called there, in a sentence.
        has_epoch: Whether they are told an epoch; else it is None.
        has_batch: Whether they are told a batch; else it is None.
        is_of_testing: Whether it is a point of the evaluation of test sets, which a run without
            training has as well.
    """

    when: str
    has_epoch: bool = True
    has_batch: bool = False
    is_of_testing: bool = False


PRE_TRAIN_STEP = "pre_train_step"
"""The point of `model_pre_train_step_callbacks`."""

HOOKS: Mapping[str, Hook] = MappingProxyType(
    {
        "pre_training": Hook(
            "Once, before anything is learned or measured, also before eval_before_training.",
            has_epoch=False,
        ),
        "begin_epoch": Hook("Before the first training batch of an epoch."),
        "pre_train_batch": Hook("Before the model is fed a training batch.", has_batch=True),
        PRE_TRAIN_STEP: Hook(
            "After the backward pass, before the optimizer's step; with "
            "gradient_accumulation_steps once for all batches of the step.",
            has_batch=True,
        ),
        "post_train_step": Hook(
            "Right after the optimizer's step; the gradients it used are still there.",
            has_batch=True,
        ),
        "post_train_batch": Hook(
            "After the rows of a training batch are recorded, also of a batch with nothing to "
            "predict, which has no step.",
            has_batch=True,
        ),
        "pre_validation": Hook(
            "Before each pass over the validation data; in epoch -1 for eval_before_training."
        ),
        "pre_validation_batch": Hook("Before the model is fed a validation batch.", has_batch=True),
        "post_validation_batch": Hook(
            "After the rows of a validation batch are recorded.", has_batch=True
        ),
        "end_epoch": Hook(
            "After the training and validation of an epoch, and after its weights are kept if "
            "they are the best so far."
        ),
        "post_training": Hook(
            "Once, after the last epoch and before the model gets its best weights back; not in "
            "an interrupted run.",
            has_epoch=False,
        ),
        "pre_test": Hook(
            "Once, before the first test set. The model has its best weights; epoch is the best "
            "epoch, or None without training.",
            is_of_testing=True,
        ),
        "pre_test_dataset": Hook("Before each test set.", is_of_testing=True),
        "pre_test_batch": Hook(
            "Before the model is fed a test batch.", has_batch=True, is_of_testing=True
        ),
        "post_test_batch": Hook(
            "After the rows of a test batch are recorded.", has_batch=True, is_of_testing=True
        ),
        "post_test_dataset": Hook("After each test set.", is_of_testing=True),
    }
)
"""All points by name, in the order in which a run comes to them."""


@dataclass(frozen=True)
class CallbackEntry:
    """A callback class at one point of a run.

    Attributes:
        hook: The point, a name of `HOOKS`.
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
    takes = taken_by(entry.cls)
    if takes is None:
        return []
    name = short_name(entry.cls)
    if len(takes.positional) < len(_GIVEN) and not takes.takes_any_number:
        return [
            f"{entry.place}: {name} must be made with {' and '.join(_GIVEN)} but takes {takes}."
        ]
    reserved = {p.name for p in takes.positional[: len(_GIVEN)]}
    if asks_for_run(entry.cls):
        reserved.add(RUN)
        if RUN in entry.kwargs:
            return [
                f"{entry.kwargs_place}.{RUN} cannot be given: under that name {name} gets the "
                "state of the run. If it means something else, rename it."
            ]
    return keyword_problems(entry.kwargs_place, name, takes, entry.kwargs, reserved=reserved)


def asks_for_run(cls: Callable[..., Any]) -> bool:
    """Whether a callback class is to be made with what the run has come to.

    Example:
        >>> asks_for_run(lambda model, tokenizer, run: None)
        True
        >>> asks_for_run(lambda model, tokenizer, **kwargs: None)
        False
    """
    takes = taken_by(cls)
    return takes is not None and RUN in takes.own({p.name for p in takes.positional[:2]})


def alternates_modes(cls: Callable[..., Any]) -> bool:
    """Whether a callback class says that it changes the mode in which a model learns."""
    return bool(getattr(cls, "alternates_modes", False))


def is_callback(cls: Any) -> bool:
    """Whether something is a class whose instances are called with ``epoch`` and ``batch``."""
    takes = taken_by(method) if (method := _call_method(cls)) is not None else None
    return takes is not None and {*_CALLED_WITH} <= takes.parameters.keys()


def _call_method(cls: Any) -> Any:
    """What the instances of a class are called by; None for what is no class, or has none."""
    if not isinstance(cls, type):
        return None
    return next((vars(c)["__call__"] for c in cls.__mro__ if "__call__" in vars(c)), None)


def of_a_run(entries: Sequence[CallbackEntry], *, trains: bool, tests: bool) -> list[CallbackEntry]:
    """The callbacks at points to which a run comes that trains, tests, or does both."""
    return [e for e in entries if (tests if HOOKS[e.hook].is_of_testing else trains)]


def _call_problems(entry: CallbackEntry) -> list[str]:
    """What the class's instances are called with; of a function that makes them it is not known."""
    if not isinstance(entry.cls, type):
        return []
    name = short_name(entry.cls)
    method = _call_method(entry.cls)
    if method is None:
        return [f"{entry.place}: {name} must have a method __call__(self, epoch, batch)."]
    if not isinstance(method, types.FunctionType):
        return []
    takes = taken_by(method)
    assert takes is not None
    without_self = Takes(dict(list(takes.parameters.items())[1:]))
    if takes_epoch_and_batch(without_self) is not None:
        return []
    shown = ", ".join(map(str, takes.parameters.values()))
    return [f"{entry.place}: {name}.__call__ must accept epoch and batch but is ({shown})."]


def _value_problems(entry: CallbackEntry) -> list[str]:
    """What a class that checks its arguments itself says of these."""
    if not isinstance(entry.cls, type):
        return []
    return value_problems(entry.kwargs_place, entry.cls, entry.kwargs)


def takes_epoch_and_batch(takes: Takes) -> str | None:
    """Return how a callback takes what it is called with: by ``keyword``, by ``position``, or not.

    Example:
        >>> takes_epoch_and_batch(taken_by(lambda epoch, batch: None))
        'keyword'
        >>> takes_epoch_and_batch(taken_by(lambda e, b: None))
        'position'
    """
    if takes.refusal(**dict.fromkeys(_CALLED_WITH)) is None:
        return "keyword"
    return "position" if takes.refusal(*_CALLED_WITH) is None else None
