"""From the name of a parameter to the argument that it is about."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any

from finetune_lm.arguments.calls import NO_DEFAULT, Parameter, taken_by
from finetune_lm.arguments.data_training_arguments import DataTrainingArguments
from finetune_lm.arguments.declared import annotation_at, field_types, is_dictionary
from finetune_lm.arguments.model_arguments import ModelArguments
from finetune_lm.arguments.references import short_name
from finetune_lm.arguments.suggestions import did_you_mean
from finetune_lm.constants import LOSS_DATASET_TYPES
from finetune_lm.errors import UserError
from finetune_lm.study.parameters import MODIFIER_KWARGS, Place, value_at

_SPECIFICATION_KEYS = ("values", "type", "suggest_kwargs")
_ITEM = re.compile(r"(.+)_(\d+)")
_NOT_OWN = {"train_optimizer": {"params", "self"}, "loss": {"model", "tokenizer", "self"}}


@dataclass(frozen=True)
class Target:
    """An argument that is searched for.

    Attributes:
        name: What the study calls it.
        path: How ``params`` names it, for messages.
        place: Where it is.
        default: Its value without a study; None where there is none.
        annotation: What is declared about it; `Any` for keys of dictionaries.
        specification: What ``params`` says of it.
    """

    name: str
    path: str
    place: Place
    default: Any
    annotation: Any
    specification: Mapping[str, Any]


def find_targets(
    params: Mapping[str, Any], args: DataTrainingArguments, model_args: ModelArguments | None = None
) -> tuple[list[Target], list[str]]:
    """The arguments that ``params`` is about.

    A name is that of an argument (``epochs``), of a keyword argument of the optimizer (``lr``) or
    of a loss (``train_KLBaselineLoss_scaleby``), or the path to a key of a dictionary
    (``data_preprocessing_fn_kwargs.train.mask_prop``). The item of a list has its number behind the
    name of the list. Of the arguments of the model, those of modifiers can be searched for
    (``model_modifier_fn_kwargs.add_adapter.r``).

    Returns:
        The arguments, and a message for each name that is not one.
    """
    targets: list[Target] = []
    problems: list[str] = []
    for path, specification in _specifications(params):
        try:
            target = _find(path, specification, args, model_args)
        except UserError as error:
            problems += error.problems
            continue
        same = [other.path for other in targets if _overlap(other.place, target.place)]
        if same:
            problems.append(
                f"params.{target.path} cannot be given beside params.{same[0]}, which sets the "
                f"same value."
            )
        else:
            targets.append(target)
    return targets, problems


def _specifications(
    level: Mapping[str, Any], above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Each specification in ``params`` with the path that leads to it."""
    dictionaries = {
        name for name, kind in field_types(DataTrainingArguments).items() if is_dictionary(kind)
    } | {MODIFIER_KWARGS}
    for key, value in level.items():
        path = (*above, str(key))
        is_nested = (
            path[0] in dictionaries
            and isinstance(value, Mapping)
            and bool(value)
            and all(isinstance(item, Mapping) for item in value.values())
        )
        if is_nested:
            yield from _specifications(value, path)
        else:
            yield path, value if isinstance(value, Mapping) else {"values": value}


def _find(
    path: tuple[str, ...],
    specification: Mapping[str, Any],
    args: DataTrainingArguments,
    model_args: ModelArguments | None,
) -> Target:
    shown = ".".join(path)
    unknown = [key for key in specification if key not in _SPECIFICATION_KEYS]
    if unknown:
        raise UserError(
            *(
                f"params.{shown}.{key} does not exist; the keys are "
                f"{', '.join(_SPECIFICATION_KEYS)}."
                f"{did_you_mean(key, _SPECIFICATION_KEYS, f'params.{shown}.')}"
                for key in unknown
            )
        )
    if path[0] == MODIFIER_KWARGS:
        return _of_modifier(path, specification, model_args)
    name, place, annotation = _of_path(path, args) if len(path) > 1 else _of_name(shown, args)
    return Target(name, shown, place, _default(place, args), annotation, specification)


def _of_modifier(
    path: tuple[str, ...], specification: Mapping[str, Any], args: ModelArguments | None
) -> Target:
    """A keyword argument of a function that changes the model."""
    shown, functions = ".".join(path), args.model_modifier_fns if args is not None else []
    names = [short_name(function) for function in functions]
    if len(path) != 3 or path[1] not in names:
        listed = f"holds {', '.join(names)}" if names else "is empty"
        raise UserError(
            f"params.{shown} must be {MODIFIER_KWARGS}, the name of a function and that of one of "
            f"its arguments, but model_modifier_fns {listed}."
        )
    assert args is not None
    default = args.model_modifier_fn_kwargs.get(path[1], {}).get(path[2])
    return Target(shown, shown, path, default, Any, specification)


def _of_name(name: str, args: DataTrainingArguments) -> tuple[str, Place, Any]:
    """The name, place and annotation of what is named without a path."""
    declared = field_types(DataTrainingArguments)
    if name in declared and name in {field.name for field in fields(args)}:
        return name, (name,), declared[name]
    place = (
        _of_keyword(name, args)
        or _of_item(name, args)
        or _of_keyword(name, args, also_undeclared=True)
    )
    if place is not None:
        return name, place, Any
    if name in {field.name for field in fields(ModelArguments)}:
        raise UserError(
            f"params.{name} cannot be searched for: a study has one model, and searches for "
            f"arguments for data and training, and for those of {MODIFIER_KWARGS}."
        )
    raise UserError(
        f"params.{name} is not an argument for data and training, nor one of the optimizer or of "
        f"a loss.{did_you_mean(name, _all_names(args), 'params.')}"
    )


def _of_path(path: tuple[str, ...], args: DataTrainingArguments) -> tuple[str, Place, Any]:
    """The name, place and annotation of a key of a dictionary."""
    name = ".".join(path)
    annotation = field_types(DataTrainingArguments)[path[0]]
    for key in path[1:]:
        annotation = annotation_at(annotation, key)
    if path[0] == "train_optimizer_kwargs" and len(path) == 2:
        name = path[1]
    elif path[0] == "loss_classes_kwargs" and len(path) == 4:
        name = "_".join(path[1:])
        if not _is_loss(path[1], path[2], args):
            raise UserError(
                f"params.{'.'.join(path)} has no use because loss_classes.{path[1]} has no "
                f"{path[2]}."
            )
    else:
        [field] = [field for field in fields(args) if field.name == path[0]]
        keys = field.metadata.get("keys", ())
        if keys and path[1] not in keys:
            raise UserError(
                f"params.{name} is about {path[0]}.{path[1]}, which does not exist; the keys of "
                f"{path[0]} are {', '.join(keys)}."
                f"{did_you_mean(path[1], keys, f'params.{path[0]}.')}"
            )
    return name, path, annotation


def _is_loss(dataset_type: str, name: str, args: DataTrainingArguments) -> bool:
    return name in map(short_name, args.loss_classes.get(dataset_type, ()))


def _default(place: Place, args: DataTrainingArguments) -> Any:
    """The value in a place, or what the optimizer or the loss takes where none is given."""
    if isinstance(place[-1], int):
        items = _default(place[:-1], args)
        # Numbers in one list are of one kind.
        is_fraction = any(isinstance(item, float) for item in items)
        item = items[place[-1]]
        return float(item) if is_fraction and isinstance(item, int) else item
    with suppress(LookupError, TypeError):
        return value_at(args, place)
    owner = _keyword_owner(place, args)
    parameter = _own_parameters(owner, place[0]).get(str(place[-1])) if owner else None
    if parameter is None or parameter.default is NO_DEFAULT:
        return None
    return parameter.default


def _keyword_owner(place: Place, args: DataTrainingArguments) -> Any:
    """The class that a keyword argument is for."""
    if place[0] == "train_optimizer_kwargs" and len(place) == 2:
        return args.train_optimizer
    if place[0] == "loss_classes_kwargs" and len(place) == 4:
        classes = args.loss_classes.get(str(place[1]), [])
        return next((cls for cls in classes if short_name(cls) == place[2]), None)
    return None


def _of_keyword(
    name: str, args: DataTrainingArguments, *, also_undeclared: bool = False
) -> Place | None:
    """The place of a keyword argument of the optimizer or of a loss, if it is the name of one.

    Args:
        name: The name.
        args: The arguments.
        also_undeclared: Whether one will do which a loss only takes because it takes any.
    """
    if name in args.train_optimizer_kwargs or name in _own_parameters(
        args.train_optimizer, "train_optimizer_kwargs"
    ):
        return ("train_optimizer_kwargs", name)
    for dataset_type in LOSS_DATASET_TYPES:
        # train_KL_Mean_x is x of the loss KL_Mean before it is Mean_x of KL.
        for cls in sorted(args.loss_classes[dataset_type], key=short_name, reverse=True):
            prefix = f"{dataset_type}_{short_name(cls)}_"
            key = name.removeprefix(prefix)
            if key == name:
                continue
            own = _own_parameters(cls, "loss_classes_kwargs")
            given = args.loss_kwargs(dataset_type, short_name(cls))
            if key in given or key in own or (also_undeclared and _takes_any(cls)):
                return ("loss_classes_kwargs", dataset_type, short_name(cls), key)
    return None


def _of_item(name: str, args: DataTrainingArguments) -> Place | None:
    """The place of an item of a list, such as the first of ``train_KLBaselineLoss_scaleby``."""
    found = _ITEM.fullmatch(name)
    base = _of_keyword(found[1], args) if found is not None else None
    if found is None or base is None:
        return None
    items = _default(base, args)
    is_there = isinstance(items, list | tuple) and int(found[2]) < len(items)
    return (*base, int(found[2])) if is_there else None


def _own_parameters(cls: Any, where: str | int) -> dict[str, Parameter]:
    """What a class can be made with, beside what it is given in any case."""
    reserved = _NOT_OWN["train_optimizer" if where == "train_optimizer_kwargs" else "loss"]
    takes = taken_by(cls)
    return takes.own(reserved) if takes is not None else {}


def _takes_any(cls: Any) -> bool:
    takes = taken_by(cls)
    return takes is None or takes.takes_any


def _all_names(args: DataTrainingArguments) -> list[str]:
    names = [field.name for field in fields(args)]
    names += [*args.train_optimizer_kwargs]
    names += _own_parameters(args.train_optimizer, "train_optimizer_kwargs")
    for dataset_type in LOSS_DATASET_TYPES:
        for cls in args.loss_classes[dataset_type]:
            keys = {
                **args.loss_kwargs(dataset_type, short_name(cls)),
                **_own_parameters(cls, "loss_classes_kwargs"),
            }
            names += [f"{dataset_type}_{short_name(cls)}_{key}" for key in keys]
    return names


def _overlap(one: Place, other: Place) -> bool:
    shorter, longer = sorted((one, other), key=len)
    return longer[: len(shorter)] == shorter
