"""What can be found wrong with the arguments for data and training before there are any data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finetune_lm.arguments.calls import comma_problems, taken_by
from finetune_lm.arguments.checking import choice_problem, minimum_problem
from finetune_lm.arguments.given_functions import preprocessing_problems
from finetune_lm.arguments.given_losses import loss_problems
from finetune_lm.arguments.given_measures import measure_problems
from finetune_lm.arguments.given_trackers import tracker_problems
from finetune_lm.arguments.optimizer_settings import (
    group_problems,
    number_problems,
    schedule_problems,
)
from finetune_lm.constants import (
    BOS_TOKEN,
    DATASET_TYPES,
    MAX_SEED,
    ON_NAN,
    PAIR_SPACES,
    PREPROCESSING_STRATEGIES,
    SELECT_BY,
)
from finetune_lm.errors import UserError

if TYPE_CHECKING:
    from finetune_lm.arguments.data_training_arguments import DataTrainingArguments

BOS_POLICIES = ("auto", "eos", "none", f"{BOS_TOKEN}NAME")
MAX_COUNT = 2**31 - 1


def range_problems(args: DataTrainingArguments) -> list[str]:
    """Return the problems of values that have the right types."""
    return [
        *_file_problems(args),
        *_number_problems(args),
        *loss_problems(args),
        *(
            problem
            for key, strategy in args.data_preprocessing_fn_strategy.items()
            for problem in choice_problem(
                f"data_preprocessing_fn_strategy.{key}", strategy, PREPROCESSING_STRATEGIES
            )
        ),
        *(
            []
            if args.bos_policy.startswith(BOS_TOKEN)
            else choice_problem("bos_policy", args.bos_policy, BOS_POLICIES)
        ),
        *choice_problem("on_nan", args.on_nan, ON_NAN),
        *choice_problem("select_by", args.select_by, SELECT_BY),
        *choice_problem("pair_space", args.pair_space, PAIR_SPACES),
        *_contrast_problems(args),
        *tracker_problems(args),
    ]


def object_problems(args: DataTrainingArguments) -> list[str]:
    """Return what is wrong with classes and functions, and with what they are given."""
    return [
        *comma_problems(
            "train_optimizer_kwargs", taken_by(args.train_optimizer), args.optimizer_kwargs()
        ),
        *number_problems("train_optimizer_kwargs", args.optimizer_kwargs()),
        *preprocessing_problems(
            args.data_preprocessing_fn,
            args.data_preprocessing_fn_kwargs,
            [key for key in DATASET_TYPES if getattr(args, f"{key}_file")],
        ),
        *group_problems(args.train_optimizer_groups, args.train_optimizer),
        *measure_problems(args),
        *schedule_problems(args.lr_scheduler, args.lr_scheduler_kwargs),
    ]


def _contrast_problems(args: DataTrainingArguments) -> list[str]:
    try:
        args.parsed_contrasts()
    except UserError as error:
        return list(error.problems)
    return []


def _file_problems(args: DataTrainingArguments) -> list[str]:
    for name in ("output_dir", "test_output_file_prefix"):
        if "\0" in (getattr(args, name) or ""):
            return [f"{name} cannot have a NUL character in it."]
    if args.probe_file and not args.train_file:
        return [
            "probe_file needs a train_file: probes are measured while a model learns. To only "
            "test a model, give test_file."
        ]
    if args.train_file and not args.validation_file:
        return ["validation_file must be given when train_file is."]
    if args.validation_file and not args.train_file:
        return ["train_file must be given when validation_file is."]
    if not args.train_file and not args.test_file:
        return ["train_file and validation_file, or test_file, or all three must be given."]
    return []


def _number_problems(args: DataTrainingArguments) -> list[str]:
    at_least_one = [
        "epochs",
        "max_length",
        "preprocessing_num_workers",
        "gradient_accumulation_steps",
        "probe_every",
        "probe_every_steps",
        *(f"max_{key}_samples" for key in DATASET_TYPES),
        *(f"per_device_{key}_batch_size" for key in DATASET_TYPES),
    ]
    at_least_zero = ["min_epochs", "patience", "delta", "checkpoint_every"]
    problems = [
        problem
        for minimum, names in ((1, at_least_one), (0, at_least_zero))
        for name in names
        for problem in minimum_problem(name, getattr(args, name), minimum)
    ]
    problems += [
        f"{name} must be at most {MAX_COUNT} but got {value}."
        for name in (*at_least_one, "min_epochs", "patience")
        if (value := getattr(args, name)) is not None and value > MAX_COUNT
    ]
    if args.min_epochs > args.epochs >= 1:
        problems.append(
            f"min_epochs cannot be larger than epochs ({args.epochs}) but got {args.min_epochs}."
        )
    if args.probe_every != 1 and args.probe_every_steps is not None:
        problems.append(
            "probe_every and probe_every_steps cannot both be given: probes are measured after "
            "epochs or after updates."
        )
    if args.max_grad_norm is not None and not args.max_grad_norm > 0:
        problems.append(f"max_grad_norm must be above 0 but got {args.max_grad_norm:g}.")
    if not 0 <= args.seed <= MAX_SEED:
        problems.append(f"seed must be from 0 to {MAX_SEED} but got {args.seed}.")
    return problems
