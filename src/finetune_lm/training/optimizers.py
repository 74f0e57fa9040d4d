"""The optimizer that the arguments name, or several where groups of parameters have their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from finetune_lm.arguments import DataTrainingArguments
from finetune_lm.arguments.optimizer_settings import NAME, OPTIMIZER, PARAMS, own_kwargs
from finetune_lm.arguments.references import short_name
from finetune_lm.errors import UserError, users_code
from finetune_lm.model_modifiers._parameters import checked_patterns, find_all
from finetune_lm.models.sharding import part_of
from finetune_lm.scoring.fast.tuning import fused

if TYPE_CHECKING:
    import torch
    from torch.nn import Parameter


def make_optimizer(args: DataTrainingArguments, model: Any) -> torch.optim.Optimizer:
    """The optimizer that the arguments name, over all parameters of the model.

    A group of ``train_optimizer_groups`` is a parameter group of the optimizer, with what
    ``train_optimizer_kwargs`` gives and over it what the group has. One that names another
    optimizer has one of its own, with nothing but its own arguments. Parameters that are in no
    group come first, so that the first learning rate is that of ``train_optimizer_kwargs``.

    Raises:
        UserError: If an optimizer does not accept the arguments given for it, or a group has no
            parameters or those of another.
    """
    cls, kwargs = args.train_optimizer, args.optimizer_kwargs()
    groups = args.train_optimizer_groups
    if not groups:
        return _made(cls, model.parameters(), kwargs, args.fast)
    found = find_groups(model, groups)
    grouped = {parameter for group in found.values() for parameter in group}
    rest = [parameter for parameter in model.parameters() if parameter not in grouped]
    of_all: list[Any] = [{"params": rest}] if rest else []
    own: list[torch.optim.Optimizer] = []
    for name, group in groups.items():
        given = own_kwargs(group)
        if OPTIMIZER in group:
            own.append(_made(group[OPTIMIZER], found[name], given, args.fast, name))
            continue
        # Made for the group alone, so that it looks at the group's values as at its own.
        alone = _made(cls, found[name], {**kwargs, **given}, args.fast, name)
        of_all += alone.param_groups
        common = [key for key in given if key not in alone.param_groups[0]]
        if common:
            raise UserError(
                f"{NAME}.{name}.{common[0]} cannot differ from group to group of one "
                f"{short_name(cls)}. With {NAME}.{name}.{OPTIMIZER} the group has an optimizer of "
                f"its own."
            )
    if of_all:
        own.insert(0, _made(cls, of_all, kwargs, args.fast))
    if len(own) == 1:
        return own[0]
    from finetune_lm.training.several_optimizers import SeveralOptimizers

    return SeveralOptimizers(own)


def find_groups(model: Any, groups: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Parameter]]:
    """The parameters of each group, in the model's order.

    A parameter that is tied to others answers to all of its names.

    Args:
        model: The model.
        groups: The groups by name, each with patterns of names under ``params``.

    Raises:
        UserError: If a pattern matches no parameter, or a parameter is in two groups.
    """
    named = {parameter: name for name, parameter in model.named_parameters()}
    group_of: dict[Parameter, str] = {}
    problems: list[str] = []
    for name, group in groups.items():
        where = f"{NAME}.{name}.{PARAMS}"
        try:
            marked = find_all(model, checked_patterns(group[PARAMS], where), where)
        except UserError as error:
            problems += error.problems
            continue
        twice = [parameter for parameter in marked if parameter in group_of]
        if twice:
            more = f" (and {len(twice) - 1} more)" if len(twice) > 1 else ""
            problems.append(
                f"{NAME} must have each parameter in one group, but {named[twice[0]]}{more} is in "
                f"{group_of[twice[0]]} and in {name}."
            )
        group_of |= dict.fromkeys(marked, name)
    if problems:
        raise UserError(*problems)
    return {
        name: [parameter for parameter in named if group_of.get(parameter) == name]
        for name in groups
    }


def _made(
    cls: Any, params: Any, kwargs: Mapping[str, Any], fast: bool, group: str | None = None
) -> torch.optim.Optimizer:
    """An optimizer over some parameters, or over groups of them.

    Raises:
        UserError: If it does not accept the arguments given for it, or is no optimizer.
    """
    import torch

    gives = "train_optimizer_kwargs" if group is None else f"{NAME}.{group}"
    if kwargs.get("differentiable"):
        raise UserError(
            f"{gives}.differentiable must be False but is True: the weights are learned, and "
            f"nothing is learned through their updates."
        )
    params = list(params)
    faster = fused(cls, kwargs) if fast and _may_be_fused(cls, params) else {}
    try:
        with users_code(f"train_optimizer {short_name(cls)}"):
            optimizer = cls(params=params, **kwargs, **faster)
    except (TypeError, ValueError) as error:
        given = ", ".join(f"{key}={value!r}" for key, value in kwargs.items())
        more = " __delete_field__ removes a default." if group is None else ""
        raise UserError(
            f"train_optimizer {short_name(cls)} does not take what {gives} gives ({given}): "
            f"{error}.{more}"
        ) from None
    if not isinstance(optimizer, torch.optim.Optimizer) or isinstance(optimizer, torch.optim.LBFGS):
        raise UserError(
            f"train_optimizer must be an optimizer like torch.optim.AdamW, whose step needs only "
            f"gradients, but is {short_name(cls)}."
        )
    return optimizer


def _may_be_fused(cls: Any, params: list[Any]) -> bool:
    """Whether there is such a way for parameters as they are: split ones have it with Adam only."""
    import torch

    groups = [each["params"] if isinstance(each, dict) else [each] for each in params]
    is_split = any(part_of(each) is not each for group in groups for each in group)
    return not is_split or cls in (torch.optim.Adam, torch.optim.AdamW)
