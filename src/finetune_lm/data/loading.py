"""From the lines of data files to the data sets of a run."""

from __future__ import annotations

from finetune_lm.arguments import DataTrainingArguments
from finetune_lm.arguments.references import short_name
from finetune_lm.data.dataset import Dataset
from finetune_lm.data.files import Files
from finetune_lm.data.preprocessing import Preprocessing
from finetune_lm.data.tokenization import TextEncoder
from finetune_lm.errors import UserError
from finetune_lm.models.loading import LoadedModel, length_limit
from finetune_lm.models.tasks import TASKS, Task
from finetune_lm.vocabulary import vocabulary_of


def check_kinds(files: Files, name: str, task: Task, args: DataTrainingArguments) -> None:
    """See that all preprocessing functions that are used are for models of this kind.

    Args:
        files: The data, by what they are for.
        name: The model, for messages.
        task: What kind it is.
        args: Which functions.

    Raises:
        UserError: Naming those that are for other kinds.
    """
    problems = []
    for dataset_type in _used(files):
        function = args.data_preprocessing_fn[dataset_type]
        kinds = getattr(function, "tasks", ())
        if kinds and task.name not in kinds:
            wanted = " and ".join(f"{TASKS[kind].description}s ({kind})" for kind in kinds)
            problems.append(
                f"data_preprocessing_fn.{dataset_type}: {short_name(function)} is for {wanted} but "
                f"{name!r} is a {task.description} ({task.name})."
            )
    if problems:
        raise UserError(*problems)


def check_tokenizer(files: Files, loaded: LoadedModel, args: DataTrainingArguments) -> None:
    """See that the tokenizer has what the preprocessing functions need.

    Raises:
        UserError: If it has no mask token or sentinels, or a word is not in it that must be.
    """
    problems = []
    for dataset_type in _used(files):
        function = args.data_preprocessing_fn[dataset_type]
        place = f"data_preprocessing_fn.{dataset_type}"
        lacking = loaded.task.masking_problem(vocabulary_of(loaded.tokenizer))
        if lacking is not None and getattr(function, "needs_masks", False):
            problems.append(
                f"{place}: {short_name(function)} for a {loaded.task.description} needs {lacking}, "
                f"which that of {loaded.name!r} is not."
            )
        elif (check := getattr(function, "check", None)) is not None:
            try:
                check(**args.data_preprocessing_fn_kwargs[dataset_type], tokenizer=loaded.tokenizer)
            except UserError as error:
                problems += [f"{place}: {problem}" for problem in error.problems]
    if problems:
        raise UserError(*problems)


def _used(files: Files) -> list[str]:
    return [dataset_type for dataset_type, group in files.items() if group]


def load_datasets(
    files: Files, loaded: LoadedModel, args: DataTrainingArguments
) -> dict[str, list[Dataset]]:
    """The data sets of a run, by what they are for, as a model takes them.

    Raises:
        UserError: If they do not fit the model or the preprocessing.
    """
    check_tokenizer(files, loaded, args)
    limit = length_limit(loaded.model, loaded.tokenizer)
    max_length = min(args.max_length, limit or args.max_length)
    encoder = TextEncoder(
        loaded.tokenizer,
        max_length,
        add_start=loaded.task.starts_texts,
        bos_policy=args.bos_policy,
        append_eos=args.append_eos,
    )
    return {
        dataset_type: [
            Dataset(
                examples,
                encoder,
                loaded.task,
                Preprocessing.of(args, dataset_type),
                num_workers=args.preprocessing_num_workers,
                overwrite_cache=args.overwrite_cache,
                pad_to_length=max_length if args.pad_to_max_length else None,
                ignore_padding=args.ignore_pad_for_token_loss,
                model=loaded.model,
            )
            for examples in group
        ]
        for dataset_type, group in files.items()
    }
