"""A process of a study that is several ranks: the first has the study, the others train with it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from finetune_lm.arguments import DataTrainingArguments, ModelArguments
from finetune_lm.errors import GivenUpError
from finetune_lm.ranks import world
from finetune_lm.recording.recorder import Recorder
from finetune_lm.runs.interruption import Interruption
from finetune_lm.scoring.halving import free_memory
from finetune_lm.study.trial_run import TrialRunner
from finetune_lm.training.early_stopping import EarlyStopping
from finetune_lm.training.loop import train


@dataclass(frozen=True)
class Begin:
    """Trials of this kind are about to come: what a `TrialRunner` is made with."""

    model_args: ModelArguments
    data_args: DataTrainingArguments
    searched: Collection[str]


@dataclass(frozen=True)
class Try:
    """A trial comes, with these arguments."""

    args: DataTrainingArguments
    model_args: ModelArguments | None


@dataclass(frozen=True)
class End:
    """No trial comes any more; the study is in this directory."""

    directory: Path


def tell(message: Begin | Try | End) -> None:
    """Let the other ranks know what comes next."""
    world().decided(lambda: message)


def follow() -> Path:
    """Do what the first rank tells, to the end.

    Returns:
        The directory of the study.

    Raises:
        UserError: If something does not go with something else.
        Interrupted: If a signal came.
    """
    runner: TrialRunner | None = None
    with Interruption() as interruption:
        while True:
            try:
                message = world().decided(_unasked)
            except GivenUpError:  # at the very end of a trial
                continue
            if isinstance(message, End):
                return message.directory
            if isinstance(message, Begin):
                runner = TrialRunner(message.model_args, message.data_args, message.searched)
                continue
            assert runner is not None
            _do(runner, message, interruption)
            free_memory()


def _unasked() -> Begin | Try | End:
    raise AssertionError("only the first rank knows.")


def _do(runner: TrialRunner, message: Try, interruption: Interruption) -> None:
    """Do the training of a trial as far as the first rank goes with it."""
    args, stopping = message.args, EarlyStopping.of(message.args)
    try:
        with runner.prepared(
            args, stopping, Recorder(), interruption, message.model_args
        ) as prepared:
            train(*prepared)
    except GivenUpError:
        pass
    except Exception as error:
        world().give_up(error)
