"""The trials of one process: what Optuna calls with each, and what is done after each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from finetune_lm.arguments import (
    DataTrainingArguments,
    ModelArguments,
    config_text,
    without_token,
)
from finetune_lm.arguments.values import write_value
from finetune_lm.attempts import Attempt
from finetune_lm.errors import (
    GivenUpError,
    OtherRankError,
    TrialsFailedError,
    UserError,
    raised_in,
    users_code,
)
from finetune_lm.messages import say
from finetune_lm.ranks import world
from finetune_lm.recording.columns import LOSS
from finetune_lm.recording.recorder import EpochResult, Recorder
from finetune_lm.runs.following import tell
from finetune_lm.runs.interruption import Interruption
from finetune_lm.runs.requeueing import something_is_kept
from finetune_lm.scoring.halving import free_memory
from finetune_lm.study.followed_trials import Try, UnpromisingError
from finetune_lm.study.parameters import with_model_values, with_values
from finetune_lm.study.plan import Plan
from finetune_lm.study.results import (
    BEST_EPOCH,
    N_EPOCHS,
    PRUNED,
    best_trial,
    results_table,
    write_results,
)
from finetune_lm.study.sampling import counts_as_completed
from finetune_lm.study.study_directory import StudyDirectory, TrialLog
from finetune_lm.study.trial_run import TrialRunner
from finetune_lm.study.workers import (
    REASON,
    REPEATS,
    SURPLUS,
    LostTrials,
    counted_trials,
    queue_again,
)
from finetune_lm.training.early_stopping import EarlyStopping
from finetune_lm.training.loop import train

MOST_FAILURES_IN_A_ROW = 3
_LONGEST_REASON = 500
_STOPPED = "stopped by "
_MOST_SECONDS_OF_AN_END = 60
"""A cluster kills what is left of a job that is over sooner than that, unless it is set up so."""


class TrialError(Exception):
    """A trial went wrong; the study goes on."""


class _Pruning(Recorder):
    """Reports each epoch of a trial, and ends it if the pruner says that it promises nothing.

    Args:
        trial: The trial.
        pruner: The study's.
        n_epochs: How many epochs there are at most. The last one is not pruned.
        stopping: Judges the validation losses.
    """

    def __init__(
        self,
        trial: optuna.Trial,
        pruner: optuna.pruners.BasePruner,
        n_epochs: int,
        stopping: EarlyStopping,
    ) -> None:
        self._trial, self._n_epochs, self._stopping = trial, n_epochs, stopping
        self._pruner = f"study_kwargs.pruner {type(pruner).__name__}"
        self.is_pruned = False

    def epoch(self, result: EpochResult) -> None:
        """Report its validation loss.

        Raises:
            UnpromisingError: If the trial is to end.
        """
        if world().decided(self._is_unpromising, result):
            raise UnpromisingError

    def _is_unpromising(self, result: EpochResult) -> bool:
        self._trial.report(result.validation[LOSS], step=result.number)
        is_last = result.number + 1 >= self._n_epochs or self._stopping.should_stop()
        with users_code(self._pruner):
            return not is_last and self._trial.should_prune()

    @contextmanager
    def on_record(self) -> Iterator[None]:
        """Put down with the trial how the training inside came out."""
        try:
            yield
        except UnpromisingError:
            self.is_pruned = True
        finally:
            self._trial.set_user_attr(N_EPOCHS, self._stopping.n_epochs)
        self._trial.set_user_attr(BEST_EPOCH, self._stopping.best_epoch)
        self._trial.set_user_attr(PRUNED, self.is_pruned)


class Trials:
    """Does the trials of one process.

    Args:
        study: The study.
        plan: What it is to do.
        runner: Does the run of a trial.
        directory: Where it is put down what each trial tries, and how all came out.
        interruption: Knows whether somebody wants the process to stop.
    """

    def __init__(
        self,
        study: optuna.Study,
        plan: Plan,
        runner: TrialRunner,
        directory: StudyDirectory,
        interruption: Interruption,
    ) -> None:
        self._study = study
        self._plan = plan
        self._runner = runner
        self._interruption = interruption
        self._max_trials = plan.optimization_args.max_trials
        self._pruned_counts = counts_as_completed(study.sampler.wrapped, study.pruner)
        self._table = directory.results
        self._log = TrialLog(directory.config_text, _head(plan))
        self._lost = LostTrials(study)
        self._failures_in_a_row = 0
        self._begun: list[int] = []
        self._last_reason = ""
        self._end: Exception | None = None
        """What has ended another rank, and so all."""
        self._had_enough = False

    @property
    def n_begun(self) -> int:
        """How many trials this process has begun."""
        return len(self._begun)

    def are_enough(self) -> bool:
        """Whether the study has all of its trials, or is about to."""
        return self._max_trials is not None and (
            len(counted_trials(self._study)) >= self._max_trials
        )

    def are_needed(self) -> bool:
        """Whether there is anything left to do; what others have left is taken care of."""
        self._lost.repeat()
        if self.are_enough():
            self._repeat_before_end()
        if self.are_enough():
            say(f"the study has its {self._max_trials} trials already.")
            return False
        return True

    def do(self) -> None:
        """Do trials until there are enough, and again if some that others did came to nothing.

        They are done as Optuna's ``optimize`` is told.

        Raises:
            UserError: If three in a row fail.
            KeyboardInterrupt: If a signal came. The trial that was under way is queued again.
        """
        kwargs = {
            **self._plan.optimize_kwargs,
            "catch": (Exception,),
            "callbacks": [self._follow_up, *self._plan.optimize_kwargs["callbacks"]],
        }
        n_trials = kwargs.pop("n_trials", None)
        while n_trials is None or self.n_begun < n_trials:
            left = None if n_trials is None else n_trials - self.n_begun
            self._had_enough = False
            try:
                self._study.optimize(self._objective, n_trials=left, **kwargs)
            except (KeyboardInterrupt, OtherRankError, GivenUpError):
                self._queue_interrupted()
                raise
            except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
                # A process that is not heard of for long, on a machine that slept, loses its trial.
                if not self._was_taken_away():
                    raise
                say(f"trial {self._begun[-1]} was given to another process meanwhile.")
                continue
            self._repeat_before_end()
            if self.are_enough() or not self._had_enough:
                break

    def end(self) -> None:
        """Say what the study still lacks."""
        if self._max_trials is not None and not self.are_enough():
            say(
                f"this process has done its {self.n_begun} trials, and the study has "
                f"{len(counted_trials(self._study))} of {self._max_trials}."
            )
        self._lost.say_what_is_left()

    def _repeat_before_end(self) -> None:
        """Take care of what others have left, as nobody may do after this process has ended."""
        for _ in range(_MOST_SECONDS_OF_AN_END):
            if not self._lost.repeat(asks_slurm=True):
                return
            self._interruption.check()
            time.sleep(1)

    def _objective(self, trial: optuna.Trial) -> float:
        """Do one trial; what Optuna calls.

        Returns:
            The lowest validation loss.
        """
        self._begun.append(trial.number)
        attempt = Attempt()
        prepared: Any = None
        try:
            args, model_args = self._arguments(trial)
            stopping = EarlyStopping.of(args)
            pruning = _Pruning(trial, self._study.pruner, args.epochs, stopping)
            tell(Try(args, model_args))
            attempt = world().begin()
            with (
                self._runner.letting_go(),
                pruning.on_record(),
                self._runner.prepared(
                    args, stopping, pruning, self._interruption, model_args
                ) as prepared,
            ):
                train(*prepared)
            attempt.through()
            if pruning.is_pruned and not self._pruned_counts:
                raise optuna.TrialPruned
            return stopping.best_loss
        except optuna.TrialPruned:
            raise
        except KeyboardInterrupt as error:
            self._fail(trial, f"{_STOPPED}{error or 'SIGINT'}")
            raise
        except Exception as error:
            prepared = None
            failed = attempt.given_up(error)
            if world().ends_more(failed):
                self._end = failed
                self._fail(trial, f"{_STOPPED}{failed}")
                raise failed from None
            place = f"{name} raised " if (name := raised_in(failed)) else ""
            reason = without_token(
                f"{place}{type(failed).__name__}: {failed}", self._plan.model_args
            )
            if isinstance(failed, UserError):
                reason = without_token(str(failed), self._plan.model_args)
            reason = " ".join(reason.split())[:_LONGEST_REASON]
        # Out of the handler, so that nothing holds on to the tensors of what went wrong.
        free_memory()
        self._fail(trial, reason)
        raise TrialError(reason)

    def _arguments(self, trial: optuna.Trial) -> tuple[DataTrainingArguments, ModelArguments]:
        """What a trial tries: the arguments with the values that the sampler suggests."""
        self._interruption.check()
        if self._is_surplus(trial):
            trial.set_user_attr(SURPLUS, True)
            raise UserError("the study had all of its trials")
        values = {parameter: parameter.suggest(trial) for parameter in self._plan.parameters}
        repeats = trial.user_attrs.get(REPEATS)
        note = f", which does trial {repeats} again" if repeats is not None else ""
        self._log.begin(trial.number, trial.params, note)
        places = {parameter.place: value for parameter, value in values.items()}
        args = with_values(self._plan.data_args, places)
        model_args = with_model_values(self._plan.model_args, places)
        problems = [*args.problems(), *model_args.problems()]
        if problems:
            raise UserError(*problems)
        return args, model_args

    def _is_surplus(self, trial: optuna.Trial) -> bool:
        """Whether others have begun the last trials of the study at the same moment."""
        if self._max_trials is None:
            return False
        before = [each for each in counted_trials(self._study) if each.number < trial.number]
        return len(before) >= self._max_trials

    def _fail(self, trial: optuna.Trial, reason: str) -> None:
        self._last_reason = reason
        trial.set_user_attr(REASON, reason)

    def _follow_up(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """What is done after each trial; what Optuna calls."""
        if self._end is not None:
            raise self._end
        is_surplus = bool(trial.user_attrs.get(SURPLUS))
        something_is_kept()
        failed = trial.state == TrialState.FAIL and not is_surplus
        self._failures_in_a_row = self._failures_in_a_row + 1 if failed else 0
        line = self._outcome(trial)
        if not is_surplus:
            self._log.end(line)
            say(f"trial {trial.number}: {line}{self._best_so_far()}")
        seed = self._plan.data_args.seed
        write_results(self._table, results_table(study, self._plan.parameters, seed))
        if self._failures_in_a_row >= MOST_FAILURES_IN_A_ROW:
            raise TrialsFailedError(
                f"{self._failures_in_a_row} trials in a row failed, so the study was stopped; the "
                f"last because of: {self._last_reason}"
            )
        self._interruption.check()
        self._lost.repeat()
        if is_surplus or self.are_enough():
            self._had_enough = True
            study.stop()

    def _outcome(self, trial: FrozenTrial) -> str:
        """How a trial came out, in a line."""
        values = ", ".join(
            f"{parameter.name} {_short(trial.params[parameter.name])}"
            for parameter in self._plan.parameters
            if parameter.name in trial.params
        )
        n_epochs = trial.user_attrs.get(N_EPOCHS, 0)
        seconds = trial.duration.total_seconds() if trial.duration else 0.0
        work = f"{n_epochs} {'epoch' if n_epochs == 1 else 'epochs'}, {seconds:.1f} s"
        if trial.state == TrialState.FAIL:
            return f"failed ({values}; {work}): {trial.user_attrs.get(REASON)}"
        pruned = "pruned, " if trial.user_attrs.get(PRUNED) else ""
        value = "" if trial.value is None else f"{trial.value:.4f} "
        return f"{pruned}{value}({values}; {work})"

    def _best_so_far(self) -> str:
        best = best_trial(self._study)
        return "" if best is None else f"; best {best.value:.4f} in trial {best.number}"

    def _queue_interrupted(self) -> None:
        """Have the trial that a signal or another rank has stopped done again by who is free."""
        trial = self._last_begun()
        reason = trial.user_attrs.get(REASON, "") if trial is not None else ""
        if trial is not None and trial.state == TrialState.FAIL and reason.startswith(_STOPPED):
            # A rank that was killed may have been so for what the values ask for.
            is_killed = isinstance(self._end, OtherRankError) and not self._end.is_said
            queue_again(self._study, trial, counts=is_killed)

    def _was_taken_away(self) -> bool:
        """Whether another process has put down the last trial of this one as failed."""
        trial = self._last_begun()
        return (
            trial is not None
            and trial.state == TrialState.FAIL
            and any(
                other.user_attrs.get(REPEATS) == trial.number
                for other in self._study.get_trials(deepcopy=False)
            )
        )

    def _last_begun(self) -> FrozenTrial | None:
        if not self._begun:
            return None
        trial: FrozenTrial = self._study.get_trials(deepcopy=False)[self._begun[-1]]
        return trial


def _head(plan: Plan) -> str:
    text = config_text(plan.model_args, plan.data_args, plan.optimization_args)
    return f"{text}\nStudy\n  name:    {plan.name}\n  storage: {plan.place.shown}\n"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(write_value(value, is_text=True))
