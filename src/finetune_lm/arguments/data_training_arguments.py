"""Which data a run uses, and how it trains on them."""

# ruff: noqa: RUF009 - option() makes a field() with its help text

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Annotated, Any

from finetune_lm.arguments.base import (
    Arguments,
)
from finetune_lm.arguments.data_training_problems import object_problems, range_problems
from finetune_lm.arguments.declared import MAY_BE_RAISED, MAY_CHANGE, Affects, option
from finetune_lm.arguments.given_losses import (
    attributes_from_kwargs,
    effective_loss_kwargs,
    kwargs_of_losses,
    loss_kwargs,
)
from finetune_lm.arguments.optimizer_settings import PARAMS
from finetune_lm.arguments.references import default_object
from finetune_lm.constants import (
    BY_LOSS,
    DATASET_TYPES,
    DEFAULT_MAX_LENGTH,
    LOSS_DATASET_TYPES,
    MAX_SEED,
    ONCE,
    PROBE,
    STOP,
    TRACKERS,
)
from finetune_lm.errors import UserError
from finetune_lm.formulas import Formula, parse_contrasts

_BATCH_SIZE_NOTE = (
    "With the strategy per_batch, preprocessing may make more or fewer examples of a batch."
)
_AT_A_TIME = "The model is never fed more than this many at a time."
# What is measured besides makes no difference to what is learned.
_MEASURED_BESIDES = dict.fromkeys(("test", PROBE), Affects.TABLES)


class DrawnSeed(int):
    """A seed that nobody chose, so that a process which joins a study may take the study's."""


@dataclass(repr=False)
class DataTrainingArguments(Arguments):
    """The data, their preprocessing, the training and the losses.

    The kwargs of the optimizer and of the losses are attributes of the instance as well: `lr`,
    `train_KLBaselineLoss_scaleby`. The attribute is what is used, so that a study of
    hyperparameters only has to set it.

    Example:
        >>> args = DataTrainingArguments(
        ...     train_file="train.txt.gz",
        ...     validation_file="validation.txt.gz",
        ...     train_optimizer_kwargs={"lr": 1e-4},
        ... )
        >>> args.optimizer_kwargs()
        {'lr': 0.0001, 'weight_decay': 0}
        >>> args.lr = 1e-5
        >>> args.optimizer_kwargs()
        {'lr': 1e-05, 'weight_decay': 0}
    """

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
    epochs: int = option(
        250,
        "Maximum number of passes through the training data.",
        affects=Affects.LEARNING,
        on_resume=MAY_BE_RAISED,
    )
    min_epochs: int = option(
        0, "Minimum number of epochs before early stopping.", affects=Affects.LEARNING
    )
    patience: int | None = option(
        None,
        "Stop after N epochs without an improvement.",
        affects=Affects.LEARNING,
        on_resume=MAY_BE_RAISED,
        default_text="no early stopping",
    )
    delta: float = option(
        0.0,
        "Minimum change that counts as an improvement.",
        affects=Affects.LEARNING,
    )
    select_by: str = option(
        BY_LOSS,
        "The number from the validation data that chooses the best epoch and counts for "
        "patience. loss: the validation loss, lower is better. pair_accuracy: the share of pairs "
        "whose expected sentence is likelier; pair_difference: by how many bits on average; "
        "higher is better.",
        affects=Affects.LEARNING,
    )
    train_optimizer: Callable[..., Any] = field(
        default_factory=lambda: default_object("torch.optim.AdamW"),
        metadata={
            "help": "The optimizer's class, called with params and its kwargs.",
            "affects": Affects.LEARNING,
        },
    )
    train_optimizer_kwargs: dict[str, Any] = option(
        {"lr": 2e-6, "weight_decay": 0},
        "Keyword arguments for the optimizer. Those not given keep their defaults; "
        "__delete_field__ removes a default. Example: --train_optimizer_kwargs.lr 1e-4",
        affects=Affects.LEARNING,
    )
    train_optimizer_groups: dict[str, Annotated[dict[str, Any], {PARAMS: list[str]}]] = option(
        {},
        "Parameter groups with settings of their own, each under a name that you choose. params: "
        "names of the model's parameters (* matches any text); the rest overrides "
        "train_optimizer_kwargs. A group with optimizer, a class, gets an optimizer of its own "
        "with only its own kwargs. Example: --train_optimizer_groups.no_decay.params '*.bias' "
        "--train_optimizer_groups.no_decay.weight_decay 0",
        affects=Affects.LEARNING,
    )
    gradient_accumulation_steps: int = option(
        1,
        "Update the weights once every N batches, with the gradient of one batch of all their "
        "examples.",
        affects=Affects.LEARNING,
    )
    max_grad_norm: float | None = option(
        None,
        "Clip gradients to this norm.",
        affects=Affects.LEARNING,
        default_text="no clipping",
    )
    lr_scheduler: str | Callable[..., Any] | None = option(
        None,
        "How the learning rate changes from step to step: a name from transformers (linear, "
        "cosine, constant_with_warmup, reduce_lr_on_plateau and others), or a class called with "
        "the optimizer and its kwargs, such as torch.optim.lr_scheduler.StepLR.",
        affects=Affects.LEARNING,
        default_text="a constant learning rate",
    )
    lr_scheduler_kwargs: dict[str, Any] = option(
        {},
        "Keyword arguments for the schedule. num_training_steps, total_steps and T_max are the "
        "run's length in steps unless given; num_warmup_steps is 0, or warmup_ratio times that. "
        "Example: --lr_scheduler_kwargs.warmup_ratio 0.1",
        affects=Affects.LEARNING,
    )
    loss_classes: dict[str, list[Callable[..., Any]]] = option(
        {key: [default_object("loss_classes.OutputsDefaultLoss")] for key in LOSS_DATASET_TYPES},
        "The losses to compute. Each class is made with model, tokenizer and its kwargs, and "
        "called with outputs and labels. Example: --loss_classes.train "
        "loss_classes.OutputsDefaultLoss my_module.MyLoss",
        affects=Affects.LEARNING,
        keys=LOSS_DATASET_TYPES,
    )
    loss_reduction_fns: dict[str, Callable[..., Any]] = option(
        {key: default_object("torch.sum") for key in LOSS_DATASET_TYPES},
        "The function that combines several losses into one. Its parameters without defaults "
        "decide how it is called: one parameter for a tensor of all losses, or one for each "
        "loss, or *losses.",
        affects=Affects.LEARNING,
        keys=LOSS_DATASET_TYPES,
    )
    loss_classes_kwargs: dict[str, dict[str, dict[str, Any]]] = option(
        {key: {} for key in LOSS_DATASET_TYPES},
        "Keyword arguments for the losses, under each class's name. Example: "
        "--loss_classes_kwargs.train.MyLoss.scaleby 2.5",
        affects=Affects.LEARNING,
        keys=LOSS_DATASET_TYPES,
        fill=True,
    )
    measures: dict[str, list[Callable[..., Any]]] = option(
        {key: [] for key in DATASET_TYPES},
        "What to measure for each token besides its surprisal: a list for all data, or one for "
        "each kind. Each class is made with model, tokenizer and its kwargs. Example: --measures "
        "measures.WordBoundary measures.Rank, or --measures.test measures.Entropy",
        affects=Affects.TABLES,
        keys=DATASET_TYPES,
        for_all_keys=True,
    )
    measures_kwargs: dict[str, dict[str, Any]] = option(
        {},
        "Keyword arguments for the measures, under each class's name. Example: "
        "--measures_kwargs.Candidates.words tea juice",
        affects=Affects.TABLES,
    )
    on_nan: str = option(
        STOP,
        "What to do when a loss is infinite or NaN. stop: end the run. skip: leave the step out, "
        "keep its rows, and report the number of such steps at the end; a validation loss that "
        "is not finite counts as no improvement. The same applies to surprisals in a test: the "
        "run ends, or they stay in their rows.",
        affects=Affects.LEARNING,
        on_resume=MAY_CHANGE,
    )
    checkpoint_every: int | None = option(
        None,
        "Write a checkpoint every N epochs, from which a killed run can be resumed (see resume); "
        "0 for never. A run stopped by a signal always writes one.",
        affects=Affects.NOTHING,
        default_text="as often as takes at most a fiftieth of the time",
    )
    output_dir: str | None = option(
        None,
        "Directory for the results.",
        affects=Affects.RECORD,
        default_text="made of the data, the model and the time",
    )
    test_output_file_prefix: str | None = option(
        None,
        "Prefix for the names of test result files.",
        affects=Affects.RECORD,
        default_text="the model's name",
    )
    seed: int = field(
        default_factory=lambda: DrawnSeed(random.randint(0, MAX_SEED)),
        metadata={
            "help": "Random seed. Everything random in a run follows from it.",
            "default_text": f"a random number from 0 to {MAX_SEED}",
            "affects": Affects.INPUTS,
        },
    )
    save_tmp_test_files: bool = option(
        False,
        "Save partial results during a test, so that an interrupted test can be resumed.",
        affects=Affects.NOTHING,
    )
    word_tables: bool = option(
        False,
        "Write tables of words beside the tables of tokens: words.csv.gz, "
        "PREFIX-test_words.csv.gz and probe_words.csv.gz. finetune-lm words OUTPUT_DIR makes "
        "them afterwards.",
        affects=Affects.TABLES,
    )
    log_with: list[str] = option(
        [],
        "Experiment trackers that log the losses, the learning rate and the results of pairs in "
        f"the probes after each epoch: {', '.join(TRACKERS)}.",
        affects=Affects.RECORD,
    )
    log_with_kwargs: dict[str, Any] = option(
        {},
        "Keyword arguments for trackers. Example: --log_with_kwargs.wandb.project flomp",
        affects=Affects.RECORD,
    )
    shuffle_train: bool = option(
        True, "Shuffle the training examples anew every epoch.", affects=Affects.LEARNING
    )
    eval_before_training: bool = option(
        False, "Also validate once before the first update, as a baseline.", affects=Affects.TABLES
    )
    save_best_model_state_to_disk: bool = option(
        True,
        "Save the best epoch's model and tokenizer with the results.",
        affects=Affects.RECORD,
    )
    fast: bool = option(
        True,
        "Use faster computations that give the same numbers. Each is compared with the plain one "
        "on a few examples first. False: always call the model as transformers does.",
        affects=Affects.INPUTS,
    )
    append_eos: bool = option(
        False,
        "Append an end token (EOS) to each text if the tokenizer does not do so itself.",
        affects=Affects.INPUTS,
    )
    pair_space: str = option(
        "none",
        "What to put before each sentence of a pair. leading: a space, as before words inside a "
        "text; none: nothing.",
        affects=Affects.INPUTS,
    )
    pair_region: str | int | None = option(
        None,
        "Score pairs, and contrasts that name no region, over the region of this name.",
        affects=Affects.TABLES,
        default_text="the region of the data if all have the same one, otherwise the whole text",
    )
    detokenize: bool = option(
        False,
        "Join the regions of SyntaxGym suites as in ordinary text, with no space before a comma, "
        "instead of with one space each.",
        affects=Affects.INPUTS,
    )
    contrasts: dict[str, str] = option(
        {},
        "Differences between conditions, computed for each item, under names that you choose. "
        "Example: --contrasts.reversal 'reversed - expected' --contrasts.interaction '(a - b) - "
        "(c - d)'",
        affects=Affects.TABLES,
    )
    bos_policy: str = option(
        "auto",
        "What to put before each text if the tokenizer puts nothing there itself. auto: its start "
        "token (BOS or CLS), if it has one; eos: the end token if there is no start token; none: "
        "nothing; token:NAME: that token, as in token:<|endoftext|>.",
        affects=Affects.INPUTS,
    )

    def _finish(self) -> None:
        """Set the kwargs of the optimizer and of the losses as attributes."""
        taken = {each.name for each in fields(self)} | set(dir(type(self)))
        problems: list[str] = []
        for name, dotted, value in attributes_from_kwargs(self):
            if name in taken:
                problems.append(
                    f"{dotted} cannot be set because {name} is the name of another argument."
                )
                continue
            taken.add(name)
            setattr(self, name, value)
        if problems:
            raise UserError(*problems)

    def optimizer_kwargs(self) -> dict[str, Any]:
        """Return the keyword arguments that the optimizer is made with."""
        return {
            key: getattr(self, key, value) for key, value in self.train_optimizer_kwargs.items()
        }

    def loss_kwargs(self, dataset_type: str, class_name: str) -> dict[str, Any]:
        """Return the keyword arguments of a loss; see `given_losses.loss_kwargs`."""
        return loss_kwargs(self, dataset_type, class_name)

    def kwargs_of_losses(self, dataset_type: str) -> list[dict[str, Any]]:
        """Return those of all losses in order; see `given_losses.kwargs_of_losses`."""
        return kwargs_of_losses(self, dataset_type)

    def parsed_contrasts(self) -> dict[str, Formula]:
        """Return the contrasts by name, read.

        Raises:
            UserError: With every one that is none.
        """
        return parse_contrasts(self.contrasts)

    def effective(self) -> dict[str, Any]:
        """Return the values that are used: attributes override the kwargs they came from."""
        return {
            **super().effective(),
            "train_optimizer_kwargs": self.optimizer_kwargs(),
            "loss_classes_kwargs": effective_loss_kwargs(self),
        }

    def _range_problems(self) -> list[str]:
        return range_problems(self)

    def _object_problems(self) -> list[str]:
        return object_problems(self)
