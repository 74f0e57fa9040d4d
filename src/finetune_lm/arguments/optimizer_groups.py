"""Groups of parameters that learn otherwise than the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune_lm.arguments.calls import keyword_problems, taken_by
from finetune_lm.arguments.checking import show
from finetune_lm.arguments.references import short_name

NAME = "train_optimizer_groups"
PARAMS, OPTIMIZER = "params", "optimizer"


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
