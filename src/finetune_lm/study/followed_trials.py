"""A process of a study that is several ranks: the first has the study, the others train with it."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from finetune_lm.arguments import DataTrainingArguments, ModelArguments
from finetune_lm.ranks import world
from finetune_lm.recording.recorder import EpochResult, Recorder
from finetune_lm.runs.following import attempt, follow
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


class UnpromisingError(Exception):
    """A trial promises nothing."""


class _Pruned(Recorder):
    """Ends a trial of which the first rank has found that it promises nothing."""

    def epoch(self, result: EpochResult) -> None:
        """Ask it.

        Raises:
            UnpromisingError: If the trial is to end.
        """
        if world().decided(lambda: False):
            raise UnpromisingError


def follow_trials() -> Path:
    """Do the trials of a study with the first rank.

    Returns:
        The directory of the study.

    Raises:
        UserError: If something does not go with something else.
        Interrupted: If a signal came.
    """
    runner: TrialRunner | None = None

    def do(message: Begin | Try, interruption: Interruption) -> None:
        nonlocal runner
        if isinstance(message, Begin):
            runner = TrialRunner(message.model_args, message.data_args, message.searched)
            return
        assert runner is not None
        trial_runner = runner
        attempt(lambda: _train(trial_runner, message, interruption))
        free_memory()

    directory: Path = follow(do)
    return directory


def _train(runner: TrialRunner, message: Try, interruption: Interruption) -> None:
    """Do the training of a trial as far as the first rank goes with it."""
    args, stopping = message.args, EarlyStopping.of(message.args)
    with (
        runner.letting_go(),
        suppress(UnpromisingError),
        runner.prepared(args, stopping, _Pruned(), interruption, message.model_args) as prepared,
    ):
        train(*prepared)
