"""Which data a run uses, and what is done to them before a model sees them."""

# ruff: noqa: RUF009 - option() makes a field() with its help text

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from finetune_lm.arguments.base import Arguments
from finetune_lm.arguments.declared import Affects, option
from finetune_lm.arguments.references import default_object
from finetune_lm.constants import DATASET_TYPES, DEFAULT_MAX_LENGTH, ONCE, PROBE

_BATCH_SIZE_NOTE = (
    "With the strategy per_batch, preprocessing may make more or fewer examples of a batch."
)
_AT_A_TIME = "The model is never fed more than this many at a time."
# What is measured besides makes no difference to what is learned.
_MEASURED_BESIDES = dict.fromkeys(("test", PROBE), Affects.TABLES)


@dataclass(repr=False)
class DataArguments(Arguments):
    """The data: their files, lengths, batches and preprocessing."""

    train_file: str | None = option(
        None,
        "The file to train on: .txt.gz with a text in each line, or .json.gz.",
        affects=Affects.INPUTS,
        names_files=True,
    )
    validation_file: str | None = option(
        None,
        "The file on which the model is validated after every epoch. Needed for training.",
        affects=Affects.INPUTS,
        names_files=True,
    )
    test_file: list[str] | None = option(
        None,
        "Files on which the model is tested; their results go into one table.",
        affects=Affects.TABLES,
        names_files=True,
    )
    probe_file: list[str] | None = option(
        None,
        "Files that are measured before training and repeatedly during it, like test files after "
        "it; their results go into probe_results.csv.gz. They do not influence what is learned "
        "or chosen.",
        affects=Affects.TABLES,
        names_files=True,
    )
    probe_every: int = option(1, "Measure the probes every N epochs.", affects=Affects.TABLES)
    probe_every_steps: int | None = option(
        None,
        "Measure the probes every N updates of the weights instead of by epochs.",
        affects=Affects.TABLES,
        default_text="probe_every says when",
    )
    overwrite_cache: bool = option(
        False, "Preprocess again instead of reading the cache.", affects=Affects.NOTHING
    )
    preprocessing_num_workers: int | None = option(
        None, "Number of processes that preprocess the data.", affects=Affects.NOTHING
    )
    max_length: int = option(
        DEFAULT_MAX_LENGTH,
        "Maximum length of an input in tokens, special tokens included. Longer texts are "
        "truncated.",
        affects=Affects.INPUTS,
    )
    pad_to_max_length: bool = option(
        False,
        "Pad every example to max_length instead of to the longest in its batch.",
        affects=Affects.INPUTS,
    )
    max_train_samples: int | None = option(
        None,
        "Use only the first N training examples.",
        affects=Affects.INPUTS,
        default_text="all",
    )
    per_device_train_batch_size: int = option(
        32, f"Training batch size. {_BATCH_SIZE_NOTE}", affects=Affects.LEARNING
    )
    max_validation_samples: int | None = option(
        None,
        "Use only the first N validation examples.",
        affects=Affects.INPUTS,
        default_text="all",
    )
    per_device_validation_batch_size: int = option(
        32, f"Validation batch size. {_BATCH_SIZE_NOTE}", affects=Affects.LEARNING
    )
    max_test_samples: int | None = option(
        None,
        "Use only the first N examples of each test file.",
        affects=Affects.TABLES,
        default_text="all",
    )
    per_device_test_batch_size: int = option(
        32,
        f"Test batch size. {_BATCH_SIZE_NOTE} {_AT_A_TIME}",
        affects=Affects.TABLES,
    )
    max_probe_samples: int | None = option(
        None,
        "Use only the first N examples of each probe file.",
        affects=Affects.TABLES,
        default_text="all",
    )
    per_device_probe_batch_size: int = option(
        32,
        f"Probe batch size. {_BATCH_SIZE_NOTE} {_AT_A_TIME}",
        affects=Affects.TABLES,
    )
    ignore_pad_for_token_loss: bool = option(
        True, "Ignore padding in the loss.", affects=Affects.INPUTS
    )
    data_preprocessing_fn: dict[str, Callable[..., Any]] = option(
        {key: default_object("data_preprocessing.identity") for key in DATASET_TYPES},
        "The function that preprocesses each kind of data before the model sees it. Example: "
        "--data_preprocessing_fn.train data_preprocessing.mask_random_tokens",
        affects=Affects.INPUTS,
        affects_keys=_MEASURED_BESIDES,
        keys=DATASET_TYPES,
    )
    data_preprocessing_fn_strategy: dict[str, str] = option(
        dict.fromkeys(DATASET_TYPES, ONCE),
        "Preprocess a whole data set before the run (once), or each batch every time it is used "
        "(per_batch), so that random masks are drawn anew.",
        affects=Affects.INPUTS,
        affects_keys=_MEASURED_BESIDES,
        keys=DATASET_TYPES,
    )
    data_preprocessing_fn_kwargs: dict[str, dict[str, Any]] = option(
        {key: {} for key in DATASET_TYPES},
        "Keyword arguments for the preprocessing functions. Example: "
        "--data_preprocessing_fn_kwargs.train.mask_prop 0.15",
        affects=Affects.INPUTS,
        affects_keys=_MEASURED_BESIDES,
        keys=DATASET_TYPES,
        fill=True,
    )
