"""From the lines of data files to the data sets of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from finetune_lm.arguments import DataTrainingArguments
from finetune_lm.arguments.references import short_name
from finetune_lm.constants import (
    BOS_TOKEN,
    DATASET_TYPES,
    DEFAULT_MAX_LENGTH,
    PER_BATCH,
    PROBE,
)
from finetune_lm.data.dataset import Dataset, DatasetOptions
from finetune_lm.data.examples import Examples, Files
from finetune_lm.data.preprocessing import Preprocessing
from finetune_lm.data.tokenization import TextEncoder
from finetune_lm.data_preprocessing import expand_with_masks, identity
from finetune_lm.errors import UserError, users_code
from finetune_lm.messages import in_its_mode, say_once, warn
from finetune_lm.models.baseline import origin_of
from finetune_lm.models.loading import LoadedModel, length_limit
from finetune_lm.models.tasks import TASKS, Task
from finetune_lm.models.vocabulary import vocabulary_of
from finetune_lm.randomness import OTHER_MODE, PROBES, OwnRandomness, stream_seed


def check_kinds(
    files: Files, name: str, tasks: Sequence[Task], args: DataTrainingArguments
) -> None:
    """See that all preprocessing functions that are used are for models of this kind.

    Args:
        files: The data, by what they are for.
        name: The model, for messages.
        tasks: What kind it is; in each mode, if it has several.
        args: Which functions.

    Raises:
        UserError: Naming those that are for other kinds.
    """
    problems = [
        problem
        for dataset_type in used_types(files)
        for problem in kind_problems(
            f"data_preprocessing_fn.{dataset_type}",
            args.data_preprocessing_fn[dataset_type],
            name,
            tasks,
        )
    ]
    if problems:
        raise UserError(*problems)


def in_mode(given: Preprocessing, mode: str | None, task: Task) -> Preprocessing:
    """What is done to texts in one of the modes of a model that has two.

    A function is used in the modes that it names by ``for_tasks``; one that names none in the
    masked mode. In the other one texts come as they are.

    Args:
        given: What the user asks for.
        mode: The mode; None of a model that has one, for which that is done.
        task: What the model is asked to do in it.
    """
    kinds = getattr(given.function, "tasks", ())
    is_for_it = bool({task.name, task.prepared_as} & {*kinds}) if kinds else task.learns_from_masks
    return given if mode is None or is_for_it else Preprocessing()


def examples_in_mode(examples: Examples, mode: str | None, task: Task) -> Examples:
    """A data file as it is read in one of the modes of a model that has two.

    Where the masked mode has texts with masks and whole ones as labels, the whole ones are the
    texts of the causal mode: it would learn the masks.

    Args:
        examples: The file.
        mode: The mode; None of a model that has one, for which the file stays as it is.
        task: What the model is asked to do in it.
    """
    return examples if mode is None or task.labels_from_file else examples.with_labels_as_texts()


def files_in_mode(files: Files, loaded: LoadedModel) -> Files:
    """All data files as `examples_in_mode` reads them."""
    return {
        dataset_type: [examples_in_mode(each, loaded.mode, loaded.task) for each in group]
        for dataset_type, group in files.items()
    }


def kind_problems(
    place: str, function: Callable[..., Any], name: str, tasks: Sequence[Task]
) -> list[str]:
    """Return a message if a preprocessing function is for other kinds of model.

    Args:
        place: The argument that names it, for the message.
        function: The function.
        name: The model, for the message.
        tasks: What kind it is; in each mode, if it has several.
    """
    kinds = getattr(function, "tasks", ())
    if not kinds or any({task.name, task.prepared_as} & {*kinds} for task in tasks):
        return []
    wanted = " and ".join(f"{TASKS[kind].description}s ({kind})" for kind in kinds)
    is_a = " and ".join(f"a {task.description} ({task.name})" for task in tasks)
    return [f"{place}: {short_name(function)} is for {wanted} but {name!r} is {is_a}."]


def check_tokenizer(files: Files, loaded: LoadedModel, args: DataTrainingArguments) -> None:
    """See that the tokenizer has what the preprocessing functions need.

    Raises:
        UserError: If it has no mask token or sentinels, or a word is not in it that must be.
    """
    problems = [
        problem
        for dataset_type in used_types(files)
        for problem in tokenizer_problems(
            f"data_preprocessing_fn.{dataset_type}",
            args.data_preprocessing_fn[dataset_type],
            args.data_preprocessing_fn_kwargs[dataset_type],
            loaded,
        )
    ]
    if problems:
        raise UserError(*problems)


def tokenizer_problems(
    place: str, function: Callable[..., Any], kwargs: Mapping[str, Any], loaded: LoadedModel
) -> list[str]:
    """Return a message for each thing that a preprocessing function needs and a tokenizer lacks.

    Args:
        place: The argument that names the function, for the messages.
        function: The function.
        kwargs: Its keyword arguments.
        loaded: The model with its tokenizer.
    """
    lacking = loaded.task.masking_problem(vocabulary_of(loaded.tokenizer))
    if lacking is not None and getattr(function, "needs_masks", False):
        return [
            f"{place}: {short_name(function)} for a {loaded.task.description} needs {lacking}, "
            f"which that of {loaded.name!r} is not."
        ]
    check = getattr(function, "check", None)
    if check is None:
        return []
    try:
        with users_code(f"the check of {short_name(function)}"):
            check(**kwargs, tokenizer=loaded.tokenizer)
    except UserError as error:
        return [f"{place}: {problem}" for problem in error.problems]
    return []


def used_types(files: Files) -> list[str]:
    """The kinds of data that there are."""
    return [dataset_type for dataset_type, group in files.items() if group]


def load_datasets(
    files: Files, loaded: LoadedModel, args: DataTrainingArguments
) -> dict[str, list[Dataset]]:
    """The data sets of a run, by what they are for, as a model takes them.

    Of a model in two modes they are there in each, one after the other; the training data in those
    in which it learns.

    Raises:
        UserError: If they do not fit the model or the preprocessing.
    """
    by_mode = [_in_one_mode(files, each, args) for each in loaded.modes]
    found: dict[str, list[Dataset]] = {}
    for dataset_type in files:
        groups = [each[dataset_type] for each in by_mode if dataset_type in each]
        found[dataset_type] = [d for of_file in zip(*groups, strict=True) for d in of_file]
    return found


def _in_one_mode(
    files: Files, loaded: LoadedModel, args: DataTrainingArguments
) -> dict[str, list[Dataset]]:
    if not loaded.learns:
        files = {kind: group for kind, group in files.items() if kind != "train"}
    check_tokenizer(files, loaded, args)
    encoding = encoder_options(loaded, args)
    origin = origin_of(loaded.model)
    origin.encoder_options, origin.fast, origin.mode = encoding, args.fast, loaded.mode
    encoder = TextEncoder(loaded.tokenizer, **encoding)
    _tell_of_start(loaded, encoder)
    options = DatasetOptions(
        num_workers=args.preprocessing_num_workers,
        overwrite_cache=args.overwrite_cache,
        pad_to_length=encoder.max_length if args.pad_to_max_length else None,
        ignore_padding=args.ignore_pad_for_token_loss,
        model=loaded.model,
        mode=loaded.mode,
    )
    datasets: dict[str, list[Dataset]] = {}
    for dataset_type, group in files_in_mode(files, loaded).items():
        given = in_mode(Preprocessing.of(args, dataset_type), loaded.mode, loaded.task)
        with _randomness(args.seed, dataset_type, loaded):
            datasets[dataset_type] = [
                Dataset(
                    examples, encoder, loaded.task, _preprocessing(examples, loaded, given), options
                )
                for examples in group
            ]
    for examples in {e.path: e for group in files.values() for e in group}.values():
        tell_of_masks(examples, loaded, loaded.mode)
    if loaded.task.learns_from_masks and loaded.learns:
        _check_masks(datasets.get("train", []), loaded)
    return datasets


def _randomness(seed: int, dataset_type: str, loaded: LoadedModel) -> AbstractContextManager[Any]:
    """Where that comes from which is drawn while data are loaded.

    What is drawn for probes, or for the mode in which training does not begin, must not change what
    is drawn for others.
    """
    if dataset_type == PROBE:
        return OwnRandomness(stream_seed(seed, PROBES))
    if loaded.draws_apart:
        return OwnRandomness(stream_seed(seed, OTHER_MODE, DATASET_TYPES.index(dataset_type)))
    return nullcontext()


def tell_of_masks(examples: Examples, loaded: LoadedModel, mode: str | None) -> None:
    """Say so if a causal model is to read masks as if they were words.

    Args:
        examples: A data file.
        loaded: The model.
        mode: The mode in which it reads them, if it has two.
    """
    mask = loaded.tokenizer.mask_token
    if mask is None or loaded.task.labels_from_file:
        return
    read = examples_in_mode(examples, mode, loaded.task)
    n = sum(mask in text for text in read.texts)
    if not n:
        return
    if mode is not None:
        remedy = "Give whole texts as 'labels' beside those with masks."
        if examples.labels is not None:
            remedy = "'labels' must be whole texts."
    elif examples.labels is not None:
        remedy = "'labels' have no use here: give whole texts as 'text'."
    else:
        remedy = "Give whole texts."
    say_once(
        f"warning: {n} of the {len(examples)} texts of {examples.path} hold the mask token {mask}, "
        f"which {loaded.name} reads{in_its_mode(mode)} like any other token. {remedy}"
    )


def _preprocessing(examples: Examples, loaded: LoadedModel, given: Preprocessing) -> Preprocessing:
    """What is done to a file: what the user says, or what makes its texts comparable.

    A masked language model gives a text no probability, so texts that are compared are scored by
    their pseudo-log-likelihood, if nothing else is asked for and they have no masks or labels.
    """
    if not examples.has_pairs or given.function is not identity or examples.labels is not None:
        return given
    if not loaded.task.learns_from_masks:
        if loaded.task.labels_from_file:
            warn(
                f"{examples.name}: each text is both input and label, so {loaded.name} sees what "
                "it is to predict. Give 'labels', or score texts by "
                "data_preprocessing.expand_with_masks."
            )
        return given
    mask = loaded.tokenizer.mask_token
    if mask is None or any(mask in text for text in examples.texts):
        return given
    say_once(
        f"{loaded.name} is a {loaded.task.description}: compared texts are scored by "
        "pseudo-log-likelihood (expand_with_masks with within_word_l2r)."
    )
    return Preprocessing(expand_with_masks, PER_BATCH, {"within_word_l2r": True})


def _check_masks(training: list[Dataset], loaded: LoadedModel) -> None:
    """See that a masked language model is not trained to repeat what it sees.

    Raises:
        UserError: If nothing is hidden from it.
    """
    problems = [
        f"{data.path} must have masks ({loaded.tokenizer.mask_token}) to train {loaded.name!r}, "
        f"a {loaded.task.description}{in_its_mode(loaded.mode)}, but has none: the model would "
        "learn to repeat what it sees. --data_preprocessing_fn.train "
        "data_preprocessing.mask_random_tokens masks tokens, with "
        "--data_preprocessing_fn_strategy.train per_batch different ones in each epoch."
        for data in training
        if data.hides_nothing
    ]
    if problems:
        raise UserError(*problems)


def _tell_of_start(loaded: LoadedModel, encoder: TextEncoder) -> None:
    """Say what texts begin with where that is not as the tokenizer or the user has it."""
    if encoder.put_id is not None:
        say_once(
            f"{loaded.name}: {encoder.start_tokens[0]!r} is put before each text, since its "
            "tokenizer puts nothing there. --bos_policy none turns this off."
        )
    elif encoder.bos_policy.startswith(BOS_TOKEN):
        named = encoder.bos_policy.removeprefix(BOS_TOKEN)
        if encoder.start_tokens != [named]:
            itself = " ".join(map(repr, encoder.start_tokens))
            warn(
                f"bos_policy {encoder.bos_policy} changes nothing: "
                + (
                    f"the tokenizer of {loaded.name} puts {itself} before each text itself."
                    if itself
                    else f"a {loaded.task.description} gets no start token."
                )
            )


def encoder_options(
    loaded: LoadedModel, args: DataTrainingArguments | None = None
) -> dict[str, Any]:
    """How texts are turned into tokens for a model: keyword arguments of `TextEncoder`.

    Args:
        loaded: The model.
        args: What the user says of it; by default what the model alone asks for.
    """
    limit = length_limit(loaded.model, loaded.tokenizer)
    longest = DEFAULT_MAX_LENGTH if args is None else args.max_length
    options: dict[str, Any] = {
        "max_length": min(longest, limit or longest),
        "add_start": loaded.task.starts_texts,
    }
    if args is not None:
        options |= {"bos_policy": args.bos_policy, "append_eos": args.append_eos}
    return options
