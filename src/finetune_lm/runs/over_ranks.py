"""What several ranks cannot do together, or not with the parts of a model, as arguments show it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from finetune_lm.arguments.given_losses import losses_over_ranks_problems
from finetune_lm.arguments.given_measures import given_measures
from finetune_lm.arguments.optimizer_settings import OPTIMIZER, own_kwargs
from finetune_lm.arguments.references import short_name
from finetune_lm.constants import DATASET_TYPES
from finetune_lm.models.optimizers_of_parts import parts_problem

if TYPE_CHECKING:
    from finetune_lm.arguments import DataTrainingArguments, ModelArguments
    from finetune_lm.runs.run_identity import AllArguments


def over_ranks_problems(all_args: AllArguments) -> list[str]:
    """Return what several ranks cannot do of what the arguments ask for, one line each."""
    model_args, data_args, _ = all_args
    problems = losses_over_ranks_problems(data_args)
    if model_args.fsdp:
        problems += _with_parts(model_args, data_args)
    return problems


def _with_parts(model_args: ModelArguments, data_args: DataTrainingArguments) -> Iterator[str]:
    """What cannot be had of a model of which each rank has a part."""
    names = [
        f"{short_name(function)}{told}"
        for function in model_args.model_modifier_fns
        if (told := _needs_whole(function, model_args)) is not None
    ]
    used = [kind for kind in DATASET_TYPES if getattr(data_args, f"{kind}_file")]
    names += dict.fromkeys(
        f"measure {measure.name}{told}"
        for kind in used
        for measure in given_measures(data_args, kind)
        if (told := _calls_model(measure.cls, measure.kwargs)) is not None
    )
    names += ["model_kwargs.device_map"] if model_args.model_kwargs.get("device_map") else []
    if names:
        yield (
            f"fsdp cannot be given with {', '.join(names)}: each process has only a part of the "
            f"weights. Leave out fsdp or what does not go with it."
        )


def _needs_whole(function: Any, model_args: ModelArguments) -> str | None:
    """Which of its arguments lets a modifier need whole weights; empty if it always does."""
    needs = getattr(function, "needs_whole_weights", False)
    if not callable(needs):
        return "" if needs else None
    name = needs(**model_args.model_modifier_fn_kwargs.get(short_name(function), {}))
    return f" ({name})" if name else None


def _calls_model(cls: Any, kwargs: dict[str, Any]) -> str | None:
    """What lets a measure call the model by itself, which not all ranks do equally often."""
    names = [key for key in getattr(cls, "calls_model_with", ()) if kwargs.get(key)]
    return f" ({names[0]})" if names else None


def optimizer_problems(all_args: AllArguments) -> list[str]:
    """Return why optimizers cannot learn parts of parameters. All ranks have to ask."""
    model_args, data_args, _ = all_args
    if not (model_args.fsdp and data_args.train_file):
        return []
    groups = data_args.train_optimizer_groups.values()
    made = [(data_args.train_optimizer, data_args.optimizer_kwargs())]
    made += [(group[OPTIMIZER], own_kwargs(group)) for group in groups if OPTIMIZER in group]
    problems = [parts_problem(cls, kwargs) for cls, kwargs in made]
    return [problem for problem in dict.fromkeys(problems) if problem is not None]
