"""Trials whose process has ended in the middle: put down as failed, and done again."""

from __future__ import annotations

import datetime
import math
import time

import optuna
from optuna.storages._heartbeat import is_heartbeat_enabled
from optuna.trial import FrozenTrial, TrialState

from finetune_lm.messages import say, warn
from finetune_lm.study.workers import Worker

WORKER = "worker"
"""Which process does a trial."""
REASON = "reason"
"""Why a trial failed."""
REPEATS = "repeats"
"""The number of the trial that this one does again."""
ATTEMPT = "attempt"
"""How many times the values of a trial were begun by now."""
SURPLUS = "surplus"
"""Marks a trial that was begun though the study had all of its trials."""

MAX_ATTEMPTS = 3
"""Values that took their process down with them so often are not tried again."""

_SECONDS_BETWEEN_QUESTIONS = 600.0
# Every process describes itself in a trial as soon as there is one.
_NOBODYS_AFTER = datetime.timedelta(hours=1)


class LostTrials:
    """Finds trials whose process has ended, and queues their values again.

    Args:
        study: The study.
    """

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        # A database hears of its processes, on whatever machine they are.
        self._is_told = is_heartbeat_enabled(study._storage)
        self._has_said: set[int] = set()
        self._asked_slurm = -math.inf

    def repeat(self) -> None:
        """Take care of the trials that no process works at any more.

        A trial is left alone if it cannot be told from here whether its process lives.
        """
        ask_slurm = time.monotonic() - self._asked_slurm > _SECONDS_BETWEEN_QUESTIONS
        if ask_slurm:
            self._asked_slurm = time.monotonic()
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            worker = Worker.of(trial.user_attrs.get(WORKER))
            gone = _is_nobodys(trial) if worker is None else worker.is_gone(ask_slurm=ask_slurm)
            if gone:
                self._give_up(trial, f"{worker or 'its process'} ended in the middle of it")
            elif gone is None and ask_slurm and not self._is_told:
                self._say_unknown(trial, worker)

    def _say_unknown(self, trial: FrozenTrial, worker: Worker | None) -> None:
        if worker is None or trial.number in self._has_said:
            return
        self._has_said.add(trial.number)
        say(
            f"trial {trial.number} is under way in {worker}. Whether that still lives cannot be "
            f"told from here, so the trial is left alone."
        )

    def _give_up(self, trial: FrozenTrial, reason: str) -> None:
        storage = self._study._storage
        try:
            storage.set_trial_user_attr(trial._trial_id, REASON, reason)
            storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        except optuna.exceptions.UpdateFinishedTrialError:
            return  # another process was faster, and queues it again
        queue_again(self._study, trial, counts=True)


def queue_again(study: optuna.Study, trial: FrozenTrial, *, counts: bool) -> None:
    """Have the values of a trial that did not come to its end tried again by whoever is free.

    Args:
        study: The study.
        trial: The trial, which has been put down as failed.
        counts: Whether this counts as an attempt that its values brought down. It does not where
            somebody stopped the process.
    """
    attempt = int(trial.user_attrs.get(ATTEMPT, 1))
    if counts and attempt >= MAX_ATTEMPTS:
        warn(
            f"the values of trial {trial.number} were tried {attempt} times, and each time the "
            f"process ended in the middle of it. They are not tried again."
        )
        return
    if not trial.params:
        return  # it had not even got its values
    attrs = {REPEATS: trial.number, ATTEMPT: attempt + 1 if counts else attempt}
    study.enqueue_trial(trial.params, user_attrs=attrs)
    say(f"trial {trial.number} did not come to its end, and its values are queued again.")


def queue_stale(study: optuna.Study, trial: FrozenTrial) -> None:
    """What a database does with a trial whose process has not been heard of for long."""
    queue_again(study, trial, counts=True)


def counted_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count for ``max_trials``, in their order.

    Those that got values to try and are not repeated, however they came out.
    """
    trials = study.get_trials(deepcopy=False)
    repeated = {trial.user_attrs.get(REPEATS) for trial in trials}
    return [
        trial
        for trial in trials
        if trial.state != TrialState.WAITING
        and not trial.user_attrs.get(SURPLUS)
        and not (trial.state == TrialState.FAIL and (trial.number in repeated or not trial.params))
    ]


def _is_nobodys(trial: FrozenTrial) -> bool:
    if trial.datetime_start is None:
        return False
    age: datetime.timedelta = datetime.datetime.now() - trial.datetime_start
    return age > _NOBODYS_AFTER
