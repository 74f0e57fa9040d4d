"""The losses that users name: what each is given, how they are made one, whether they will do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from finetune_lm.arguments.calls import (
    NO_DEFAULT,
    comma_problems,
    kwargs_problems,
    taken_by,
    value_problems,
)
from finetune_lm.arguments.references import numbered_names, short_name
from finetune_lm.constants import LOSS_DATASET_TYPES, WAYS_OVER_RANKS
from finetune_lm.errors import UserError, first_line

if TYPE_CHECKING:
    from finetune_lm.arguments.data_training_arguments import DataTrainingArguments


def attributes_from_kwargs(args: DataTrainingArguments) -> Iterator[tuple[str, str, Any]]:
    """Yield the attributes that kwargs are: the name, what gives it, and the value."""
    for key, value in args.train_optimizer_kwargs.items():
        yield key, f"train_optimizer_kwargs.{key}", value
    for dataset_type, by_class in args.loss_classes_kwargs.items():
        for class_name, kwargs in by_class.items():
            for key, value in kwargs.items():
                yield (
                    f"{dataset_type}_{class_name}_{key}",
                    f"loss_classes_kwargs.{dataset_type}.{class_name}.{key}",
                    value,
                )


def loss_kwargs(args: DataTrainingArguments, dataset_type: str, class_name: str) -> dict[str, Any]:
    """Return the keyword arguments that a loss is made with.

    An attribute such as `train_KLBaselineLoss_scaleby` counts even where no such key was
    given, because a study may search for a value that has a default of its own.

    Args:
        args: The arguments.
        dataset_type: "train" or "validation".
        class_name: Name of the loss class, without its module; with a number behind it, as the
            tables have it, for one of several losses of that class.
    """
    by_class = args.loss_classes_kwargs.get(dataset_type, {})
    kwargs = dict(by_class.get(class_name, {}))
    prefix = f"{dataset_type}_{class_name}_"
    # train_KL_Mean_scaleby is scaleby of the loss KL_Mean, not Mean_scaleby of the loss KL.
    classes = args.loss_classes.get(dataset_type, [])
    others = {*map(short_name, classes), *numbered_names(classes), *by_class}
    longer = tuple(
        f"{dataset_type}_{other}_" for other in others if other.startswith(f"{class_name}_")
    )
    declared = {each.name for each in fields(args)}
    for name, value in vars(args).items():
        is_of_longer = bool(longer) and name.startswith(longer)
        if name.startswith(prefix) and name not in declared and not is_of_longer:
            kwargs[name.removeprefix(prefix)] = value
    return kwargs


def kwargs_of_losses(args: DataTrainingArguments, dataset_type: str) -> list[dict[str, Any]]:
    """Return the keyword arguments that each loss of a type of data set is made with.

    Where a class is there twice, `KLBaselineLoss_2` has what is for its second loss alone, over
    what `KLBaselineLoss` has for both.

    Args:
        args: The arguments.
        dataset_type: "train" or "validation".
    """
    classes = args.loss_classes[dataset_type]
    return [
        {
            key: value
            for name in dict.fromkeys([short_name(cls), numbered])
            for key, value in loss_kwargs(args, dataset_type, name).items()
        }
        for cls, numbered in zip(classes, numbered_names(classes), strict=True)
    ]


def effective_loss_kwargs(args: DataTrainingArguments) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the keyword arguments that are used, by type of data set and name of the loss."""
    used_kwargs: dict[str, dict[str, dict[str, Any]]] = {}
    for dataset_type, by_class in args.loss_classes_kwargs.items():
        classes = args.loss_classes.get(dataset_type, [])
        used = [*map(short_name, classes), *numbered_names(classes)]
        found = {
            name: loss_kwargs(args, dataset_type, name)
            for name in dict.fromkeys([*by_class, *used])
        }
        used_kwargs[dataset_type] = {
            name: kwargs for name, kwargs in found.items() if kwargs or name in by_class
        }
    return used_kwargs


def loss_problems(args: DataTrainingArguments) -> list[str]:
    """Return what is wrong with losses, with what they are given, and with what reduces them."""
    problems: list[str] = []
    for dataset_type in LOSS_DATASET_TYPES:
        name = f"loss_classes.{dataset_type}"
        classes = args.loss_classes[dataset_type]
        if not classes:
            problems.append(f"{name} must name at least one class.")
        problems += kwargs_problems(
            f"loss_classes_kwargs.{dataset_type}",
            args.loss_classes_kwargs[dataset_type],
            name,
            classes,
        )
        if args.resolves_at_once and args.train_file and not problems:
            problems += _reduction_problems(args, dataset_type)
            problems += _loss_value_problems(args, dataset_type)
    return problems


def _reduction_problems(args: DataTrainingArguments, dataset_type: str) -> list[str]:
    """What there is to say about how losses are put together."""
    function = args.loss_reduction_fns[dataset_type]
    try:
        takes_several(function, len(args.loss_classes[dataset_type]))
    except UserError as error:
        return [f"loss_reduction_fns.{dataset_type}: {problem}" for problem in error.problems]
    return []


def losses_over_ranks_problems(args: DataTrainingArguments) -> list[str]:
    """Return why losses cannot be put together that several processes find of one batch."""
    if not args.train_file:
        return []
    problems: list[str] = []
    reduce = args.loss_reduction_fns["train"]
    if reduce not in _sums():
        problems.append(
            f"loss_reduction_fns.train must be torch.sum where several processes train a model, "
            f"since the gradients of their losses are added up, but is {short_name(reduce)}."
        )
    for dataset_type in LOSS_DATASET_TYPES:
        for cls in args.loss_classes[dataset_type]:
            way = getattr(cls, "reduce_over_ranks", None)
            if way not in (*WAYS_OVER_RANKS,) and not callable(way):
                problems.append(
                    f"loss_classes.{dataset_type}: {short_name(cls)} must say by reduce_over_ranks "
                    f"what its value is a mean over, where several processes find the losses of a "
                    f"batch: 'labels', 'examples', or a method that is called with outputs and "
                    f"labels and returns their number; or 'sum' if the values add up."
                )
    return list(dict.fromkeys(problems))


def _sums() -> list[Callable[..., Any]]:
    import torch

    return [torch.sum, sum]


def _loss_value_problems(args: DataTrainingArguments, dataset_type: str) -> list[str]:
    """What losses that check their arguments themselves say of these."""
    problems: list[str] = []
    classes = args.loss_classes[dataset_type]
    for cls, name, kwargs in zip(
        classes, numbered_names(classes), kwargs_of_losses(args, dataset_type), strict=True
    ):
        place = f"loss_classes_kwargs.{dataset_type}.{name}"
        problems += comma_problems(place, taken_by(cls), kwargs) or value_problems(
            place, cls, kwargs, name
        )
    return problems


def takes_several(function: Callable[..., Any], n: int) -> bool:
    """Whether a function is given its losses one by one and not stacked in a tensor of shape (n,).

    The parameters without defaults decide: one is for the stacked tensor; as many as there are
    losses, or ``*losses``, are for one each. What has a default is a setting of the function's.

    Args:
        function: The function. One that does not say what it takes, such as ``torch.sum``, is given
            the stacked tensor.
        n: How many losses there are.

    Raises:
        UserError: If it can be given them neither way.

    Example:
        >>> takes_several(lambda losses, power=1.0: (losses**power).sum(), 2)
        False
        >>> takes_several(lambda first, second, weight=0.5: first + weight * second, 2)
        True
    """
    # A torch.nn.Module takes anything and hands it on.
    takes = taken_by(getattr(function, "forward", None) or function)
    if takes is None:
        _try_stacked(function, n)
        return False
    without_default = [p for p in takes.parameters.values() if p.default is NO_DEFAULT]
    needed = [p for p in takes.positional if p.default is NO_DEFAULT]
    named = [p for p in without_default if p.kind is p.KEYWORD_ONLY]
    if named or len(needed) > n or not (takes.takes_any_number or len(needed) in (1, n)):
        names = ", ".join(p.name for p in (*needed, *named)) or "nothing"
        raise UserError(
            f"{short_name(function)} must take one tensor of all losses, or each of the {n}, as "
            f"its arguments without defaults, but these are: {names}."
        )
    return takes.takes_any_number or len(needed) > 1


def _try_stacked(function: Callable[..., Any], n: int) -> None:
    """See what a function does to losses of 1 that does not say what it takes."""
    import torch

    try:
        total = function(torch.ones(n))
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{short_name(function)} must take a tensor of all losses ({n}): {first_line(error)}."
        ) from None
    if not isinstance(total, torch.Tensor) or total.numel() != 1:
        raise UserError(
            f"{short_name(function)} must return a tensor of one value for {n} losses but returned "
            f"{str(total)[:80]}."
        )
