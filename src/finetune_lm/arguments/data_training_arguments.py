"""All arguments for data and training: with those of its bases, what is measured and kept."""

# ruff: noqa: RUF009 - option() makes a field() with its help text

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from finetune_lm.arguments.data_arguments import DataArguments
from finetune_lm.arguments.data_training_problems import object_problems, range_problems
from finetune_lm.arguments.declared import MAY_CHANGE, Affects, option
from finetune_lm.arguments.given_losses import (
    attributes_from_kwargs,
    effective_loss_kwargs,
    kwargs_of_losses,
    loss_kwargs,
)
from finetune_lm.arguments.learning_arguments import LearningArguments
from finetune_lm.constants import DATASET_TYPES, MAX_SEED, STOP, TRACKERS
from finetune_lm.errors import UserError
from finetune_lm.formulas import Formula, parse_contrasts


class DrawnSeed(int):
    """A seed that nobody chose, so that a process which joins a study may take the study's."""


@dataclass(repr=False)
class DataTrainingArguments(LearningArguments, DataArguments):
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
