"""Classes with their ``*_kwargs`` -> objects, at any depth."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.storages.journal._file import BaseJournalFileLock

from finetune_lm.arguments.calls import NO_DEFAULT, taken_by, takes_named
from finetune_lm.arguments.checking import show
from finetune_lm.arguments.references import describe, short_name
from finetune_lm.arguments.suggestions import choices, did_you_mean
from finetune_lm.errors import UserError, first_line, users_code
from finetune_lm.messages import say

_SUFFIX = "_kwargs"
_BASES: Mapping[str, tuple[type, ...]] = {
    "sampler": (BaseSampler,),
    "pruner": (BasePruner,),
    "storage": (BaseStorage, BaseJournalBackend),
    "lock_obj": (BaseJournalFileLock,),
}
"""What a class must inherit from, by how the name of its argument ends."""


def make_objects(
    kwargs: Mapping[str, Any], where: str, more: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Keyword arguments in which every class has become an object.

    A class ``x`` is made with what stands beside it as ``x_kwargs``, in which the same holds. A
    function stays one, with these as its keyword arguments if there are any. ``x_kwargs`` with no
    class ``x`` beside it is an argument of its own.

    Args:
        kwargs: The keyword arguments.
        where: Their dotted name, for messages.
        more: What any class is given that takes it and is not given it, such as a seed.

    Raises:
        UserError: If a class cannot be made with its keyword arguments.

    Example:
        >>> make_objects({"codec": dict, "codec_kwargs": {"a": 1}, "n": 2}, "storage_kwargs")
        {'codec': {'a': 1}, 'n': 2}
    """
    made: dict[str, Any] = {}
    for name, value in kwargs.items():
        if name.endswith(_SUFFIX) and callable(kwargs.get(name.removesuffix(_SUFFIX))):
            continue
        its_kwargs = kwargs.get(f"{name}{_SUFFIX}") if callable(value) else None
        made[name] = make_object(value, its_kwargs, f"{where}.{name}", more)
    return made


def make_object(
    value: Any,
    kwargs: Mapping[str, Any] | None,
    where: str,
    more: Mapping[str, Any] | None = None,
) -> Any:
    """An object of a class, or what is no class as it is.

    Args:
        value: A class, a function or anything else.
        kwargs: What a class is made with, or a function called with.
        where: The dotted name of the value, for messages.
        more: What any class is given that takes it and is not given it.

    Raises:
        UserError: If a class cannot be made with its keyword arguments.
    """
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise UserError(f"{where}{_SUFFIX} must be a dictionary but got {show(kwargs)}.")
    if not isinstance(value, type):
        if kwargs and not callable(value):
            raise UserError(
                f"{where}{_SUFFIX} ({', '.join(kwargs)}) cannot be used because {where} is an "
                f"object already. Give its class instead, or leave them out."
            )
        if not kwargs:
            return value
        _check_names(value, kwargs, where)
        return functools.partial(value, **make_objects(kwargs, f"{where}{_SUFFIX}", more))
    _check_base(value, where)
    made = make_objects(kwargs or {}, f"{where}{_SUFFIX}", more)
    for name, extra in (more or {}).items():
        if takes_named(value, name):
            made.setdefault(name, extra)
    _check_names(value, made, where)
    try:
        with users_code(f"{where} {short_name(value)}"):
            return value(**made)
    except (TypeError, ValueError, ImportError, OSError, RuntimeError) as error:
        given = ", ".join(f"{name}={show(item)}" for name, item in made.items())
        raise UserError(
            f"{where} {describe(value)} cannot be made with {given or 'nothing'}: "
            f"{first_line(error)}"
        ) from error


def _check_base(cls: type, where: str) -> None:
    """See that a class is what Optuna takes at its place, before it is called.

    Raises:
        UserError: If it is another.
    """
    last = where.rpartition(".")[2]
    for ending, bases in _BASES.items():
        if last.endswith(ending) and not issubclass(cls, bases):
            names = choices(f"{base.__module__.split('._')[0]}.{base.__name__}" for base in bases)
            raise UserError(
                f"{where} must be a class that inherits from {names} but got {show(cls)}."
            )


def without_foreign_defaults(
    kwargs: Mapping[str, Any], defaults: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """Keyword arguments without those that are only there because another class is the default.

    What was given is merged with the defaults, so those of a ``pruner_kwargs`` are there also
    where the pruner is another one, and does not take them.

    Args:
        kwargs: Keyword arguments, classes and their ``x_kwargs`` among them.
        defaults: The same by default.
        where: Their dotted name, for messages.
    """
    own = dict(kwargs)
    for name, default in defaults.items():
        its_name = f"{name}{_SUFFIX}"
        its_kwargs, its_defaults = own.get(its_name), defaults.get(its_name)
        if not isinstance(its_kwargs, Mapping) or not isinstance(its_defaults, Mapping):
            continue
        cls = own.get(name)
        if cls is not default:
            takes = taken_by(cls) if isinstance(cls, type) else None
            names = takes.parameters if takes is not None else {}
            foreign = [
                key
                for key, value in its_kwargs.items()
                if key in its_defaults
                and value == its_defaults[key]
                and key not in names
                and key.removesuffix(_SUFFIX) not in names
            ]
            if foreign and cls is not None:
                say(
                    f"{where}.{its_name}: defaults for {short_name(default)} are not passed to "
                    f"{short_name(cls)}: {', '.join(foreign)}."
                )
            its_kwargs = {key: value for key, value in its_kwargs.items() if key not in foreign}
        own[its_name] = without_foreign_defaults(its_kwargs, its_defaults, f"{where}.{its_name}")
    return own


def _check_names(cls: Any, kwargs: Mapping[str, Any], where: str) -> None:
    """See that a class or function takes these keyword arguments."""
    takes = taken_by(cls)
    if takes is None or takes.takes_any:
        return
    own = takes.own()
    problems = [
        f"{where}{_SUFFIX}.{name} is not an argument of {short_name(cls)}, which takes "
        f"{', '.join(own) or 'none'}.{did_you_mean(name, own, f'{where}{_SUFFIX}.')} "
        "__delete_field__ removes a default."
        for name in kwargs
        if name not in own
    ]
    problems += [
        f"{where}{_SUFFIX}.{name} must be given, because {short_name(cls)} needs it."
        for name, parameter in own.items()
        if isinstance(cls, type) and parameter.default is NO_DEFAULT and name not in kwargs
    ]
    if problems:
        raise UserError(*problems)
