"""Trackers that users name: whether there are such, and whether what they need is installed."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from finetune_lm.arguments.checking import choice_problem
from finetune_lm.constants import TRACKERS

if TYPE_CHECKING:
    from finetune_lm.arguments.data_training_arguments import DataTrainingArguments


def tracker_problems(args: DataTrainingArguments) -> list[str]:
    """Return what is wrong with ``log_with`` and what trackers are given."""
    problems = []
    for name in args.log_with:
        problems += choice_problem("log_with", name, tuple(TRACKERS))
        if name in TRACKERS and not any(map(find_spec, TRACKERS[name])):
            package = TRACKERS[name][0].replace("_", "-")
            problems.append(
                f"log_with {name} needs a package that is not installed: pip install {package}"
            )
    for name, kwargs in args.log_with_kwargs.items():
        if name not in args.log_with:
            problems.append(
                f"log_with_kwargs must be for trackers of log_with ("
                f"{', '.join(args.log_with) or 'there are none'}) but has {name!r}."
            )
        elif not isinstance(kwargs, dict):
            problems.append(
                f"log_with_kwargs.{name} must be a dictionary but got {kwargs!r}. "
                f"Example: --log_with_kwargs.{name}.project NAME"
            )
    return problems
