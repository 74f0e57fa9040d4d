"""Groups of parameters, and schedules of the learning rate: whether they can be made."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from finetune_lm.arguments.calls import (
    NO_DEFAULT,
    Parameter,
    Takes,
    keyword_problems,
    taken_by,
    takes_named,
)
from finetune_lm.arguments.checking import number_with_comma, show
from finetune_lm.arguments.references import short_name
from finetune_lm.arguments.suggestions import choices, did_you_mean, meant_by

NAME = "train_optimizer_groups"
PARAMS, OPTIMIZER = "params", "optimizer"

N_TRAINING = "num_training_steps"
N_WARMUP = "num_warmup_steps"
WARMUP_RATIO = "warmup_ratio"
N_STABLE = "num_stable_steps"
TOTALS = ("total_steps", "T_max", "total_iters")
"""What classes of torch call the number of steps."""
_RESERVED = ("optimizer", "last_epoch")


def own_kwargs(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments of a group: what is neither its parameters nor its optimizer."""
    return {key: value for key, value in group.items() if key not in (PARAMS, OPTIMIZER)}


def group_problems(groups: Mapping[str, Mapping[str, Any]], optimizer: Any) -> list[str]:
    """Return a message for each thing that is wrong with ``train_optimizer_groups``.

    Args:
        groups: The groups by name.
        optimizer: The class of the optimizer that is for groups which name none.
    """
    problems = []
    for name, group in groups.items():
        prefix = f"{NAME}.{name}"
        problems += number_problems(prefix, group)
        problems += _params_problems(f"{prefix}.{PARAMS}", group.get(PARAMS))
        cls = group.get(OPTIMIZER, optimizer)
        if not callable(cls):
            problems.append(
                f"{prefix}.{OPTIMIZER} must be a class with its module, such as "
                f"torch.optim.Muon, but got {show(cls)}."
            )
        else:
            problems += _kwargs_problems(prefix, cls, group)
    return problems


def number_problems(name: str, kwargs: Mapping[str, Any]) -> list[str]:
    """Return a message for each text among what every optimizer takes as a number, if at all."""
    return [
        f"{name}.{key} must be a number but got {show(value)}."
        for key in ("lr", "weight_decay")
        if isinstance(value := kwargs.get(key), str) and number_with_comma(value) is None
    ]


def _params_problems(name: str, patterns: Any) -> list[str]:
    if not isinstance(patterns, list) or not patterns:
        return [f"{name} must be given: names of parameters, in which * stands for any text."]
    problems = []
    for pattern in patterns:
        if not isinstance(pattern, str) or not pattern.strip():
            problems.append(f"{name} must be names of parameters but has {show(pattern)} in it.")
        elif "[" in pattern:
            problems.append(
                f"{name} must be names of whole parameters but has {pattern!r} in it, which is "
                f"about some entries of one."
            )
    return problems


def _kwargs_problems(prefix: str, cls: Any, group: Mapping[str, Any]) -> list[str]:
    takes = taken_by(cls)
    if takes is None:
        return []
    return keyword_problems(
        prefix,
        short_name(cls),
        takes,
        own_kwargs(group),
        reserved=(PARAMS,),
        # The others have what train_optimizer_kwargs gives.
        is_used=OPTIMIZER in group,
    )


def schedule_problems(schedule: Any, kwargs: Mapping[str, Any]) -> list[str]:
    """Return a message for each thing that is wrong with ``lr_scheduler`` and its kwargs.

    Args:
        schedule: A name, a class or function, or None.
        kwargs: Its keyword arguments.
    """
    if schedule is None:
        return [f"lr_scheduler_kwargs.{key} has no use without lr_scheduler." for key in kwargs]
    if isinstance(schedule, str) and schedule not in schedule_names():
        names = schedule_names()
        return [
            f"lr_scheduler must be {choices(names)}, or a class such as "
            f"torch.optim.lr_scheduler.StepLR, but got {schedule!r}."
            f"{meant_by(schedule) or did_you_mean(schedule, names)}"
        ]
    problems = _step_problems(kwargs)
    takes = taken_by(maker_of(schedule))
    if takes is None:
        return problems
    worked_out = (N_TRAINING, N_WARMUP, *TOTALS)
    own = {
        name: each.replace(default=None) if name in worked_out else each
        for name, each in takes.parameters.items()
    }
    if N_WARMUP in own:
        ratio = Parameter(WARMUP_RATIO, Parameter.KEYWORD_ONLY, default=None)
        own.setdefault(WARMUP_RATIO, ratio)
    return problems + keyword_problems(
        "lr_scheduler_kwargs",
        schedule if isinstance(schedule, str) else short_name(schedule),
        Takes(own),
        kwargs,
        reserved=_RESERVED,
    )


def follows_length(schedule: Any, kwargs: Mapping[str, Any]) -> bool:
    """Whether the learning rate at a step depends on how many steps there will be.

    Args:
        schedule: A name, a class or function, or None.
        kwargs: Its keyword arguments.
    """
    if schedule is None or kwargs.get(N_TRAINING) is not None:
        return False
    if lacking_totals(maker_of(schedule), kwargs):
        return True
    is_warm_up_a_part = bool(kwargs.get(WARMUP_RATIO)) and kwargs.get(N_WARMUP) is None
    return is_warm_up_a_part or (
        takes_named(maker_of(schedule), N_TRAINING) and kwargs.get(N_STABLE) is None
    )


def lacking_totals(maker: Callable[..., Any], kwargs: Mapping[str, Any]) -> list[str]:
    """Return the arguments that want the number of steps, if nothing else is said about it.

    A default of its own, such as the five steps of torch's ``LinearLR``, is left as it is.

    Args:
        maker: What makes a schedule.
        kwargs: What it is given.

    Example:
        >>> from torch.optim.lr_scheduler import OneCycleLR
        >>> lacking_totals(OneCycleLR, {"max_lr": 0.1})
        ['total_steps']
    """
    takes = taken_by(maker)
    # OneCycleLR may be told the number of epochs and of steps in each instead.
    told = any(kwargs.get(name) is not None for name in ("epochs", "steps_per_epoch"))
    if takes is None or told:
        return []
    return [
        name
        for name, parameter in takes.own().items()
        if name in TOTALS and kwargs.get(name) is None and parameter.default in (NO_DEFAULT, None)
    ]


def schedule_names() -> list[str]:
    """Return the names that transformers has for schedules."""
    from transformers.trainer_utils import SchedulerType

    return [each.value for each in SchedulerType]


def maker_of(schedule: Any) -> Callable[..., Any]:
    """Return what makes a schedule of an optimizer and keyword arguments."""
    if not isinstance(schedule, str):
        made: Callable[..., Any] = schedule
        return made
    from torch.optim import lr_scheduler
    from transformers import optimization
    from transformers.trainer_utils import SchedulerType

    # What transformers has for these two takes anything and hands it on.
    classes = {
        "reduce_lr_on_plateau": lr_scheduler.ReduceLROnPlateau,
        "greedy": getattr(optimization, "GreedyLR", None),
    }
    function: Callable[..., Any] = optimization.TYPE_TO_SCHEDULER_FUNCTION[SchedulerType(schedule)]
    return classes.get(schedule) or function


def _step_problems(kwargs: Mapping[str, Any]) -> list[str]:
    problems = [
        f"lr_scheduler_kwargs.{name} must be an integer, at least {least}, but got "
        f"{show(kwargs[name])}."
        for name, least in ((N_WARMUP, 0), (N_TRAINING, 1))
        if name in kwargs and not (_is_whole(kwargs[name]) and kwargs[name] >= least)
    ]
    ratio = kwargs.get(WARMUP_RATIO, 0)
    is_number = _is_whole(ratio) or isinstance(ratio, float)
    if not (is_number and math.isfinite(ratio) and 0 <= ratio <= 1):
        problems.append(
            f"lr_scheduler_kwargs.{WARMUP_RATIO} must be a number from 0 to 1 but got "
            f"{show(ratio)}."
        )
    if WARMUP_RATIO in kwargs and N_WARMUP in kwargs:
        problems.append(
            f"lr_scheduler_kwargs.{WARMUP_RATIO} and lr_scheduler_kwargs.{N_WARMUP} cannot be "
            f"given together."
        )
    return problems


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
