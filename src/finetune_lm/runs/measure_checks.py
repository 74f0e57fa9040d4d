"""What a tokenizer and a kind of model show of measures before a model is loaded."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from finetune_lm.arguments.given_measures import given_measures
from finetune_lm.errors import UserError, users_code
from finetune_lm.models.pretrained import load_tokenizer

if TYPE_CHECKING:
    from finetune_lm.arguments import DataTrainingArguments, ModelArguments
    from finetune_lm.models.tasks import Task


def check_measures(
    model_args: ModelArguments,
    data_args: DataTrainingArguments,
    task: Task,
    dataset_types: Collection[str],
) -> None:
    """See that the tokenizer and the kind of model have what measures need.

    Measures that can tell have a static method ``check_tokenizer``, called with the tokenizer, the
    kind of model and their own arguments. Where modifiers may change the tokenizer, that shows only
    when the measures are made.

    Args:
        model_args: Which model.
        data_args: Which measures.
        task: What kind the model is.
        dataset_types: The kinds of data that there are.

    Raises:
        UserError: Naming all measures that cannot be had, and why.
    """
    checks = {
        (measure.name, str(measure.kwargs)): (measure, measure.cls.check_tokenizer)
        for dataset_type in dataset_types
        for measure in given_measures(data_args, dataset_type)
        if hasattr(measure.cls, "check_tokenizer")
    }
    if not checks or model_args.model_modifier_fns:
        return
    tokenizer = load_tokenizer(model_args)
    problems = []
    for measure, check in checks.values():
        try:
            with users_code(f"measure {measure.name}"):
                check(tokenizer, task, **measure.kwargs)
        except UserError as error:
            problems += [f"measure {measure.name}: {problem}" for problem in error.problems]
    if problems:
        raise UserError(*problems)
