"""A worker of a grid: walks the runs, and finishes, resumes or skips each."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from finetune_lm.arguments import OptimizationArguments, without_token
from finetune_lm.arguments.data_training_arguments import DrawnSeed
from finetune_lm.errors import OtherRankError, UserError, raised_in
from finetune_lm.grids.followed_runs import Do, GpuLostError, More, Step, do_steps
from finetune_lm.grids.grid_runs import GridRun
from finetune_lm.grids.run_log import logged
from finetune_lm.grids.run_states import (
    GridRunRecord,
    State,
    can_be_resumed,
    clear,
    state_of,
)
from finetune_lm.messages import say
from finetune_lm.ranks import world
from finetune_lm.runs.directory import BEST_TRIAL, CHECKPOINTS, make_output_dir
from finetune_lm.runs.earlier_run import EarlierRun
from finetune_lm.runs.following import End, check_signals, tell
from finetune_lm.runs.interruption import Interruption
from finetune_lm.runs.lock import InUseError, RunLock
from finetune_lm.runs.pack import Pack, gpu_is_lost
from finetune_lm.runs.requeueing import IN_VAIN, is_in_vain, something_is_kept
from finetune_lm.runs.run_identity import AllArguments

_MOMENT = 0.2
"""Who only asks for the state of a run has its lock for less."""


class Worker:
    """Does what is left of a grid's runs, beside any number of others that do the same.

    Of several ranks the first does this, and the others do with it what it takes up.

    A run that another process has locked is passed over. When the walk is over and something was
    done in it, it begins again, for runs whose process has died meanwhile.

    Args:
        runs: All runs, in the order in which they are to be done.
        retry: Whether to try those again that failed before the walk began.
    """

    def __init__(self, runs: Sequence[GridRun], *, retry: bool = False) -> None:
        self._runs = runs
        self._to_retry = {run.name for run in runs} if retry else set()
        self._pack = Pack()
        self.n_done = 0

    def walk(self) -> None:
        """Do runs until none is left that this process could do.

        Raises:
            KeyboardInterrupt: If a signal came. The run that was under way can be resumed.
        """
        with Interruption() as interruption, self._pack:
            self._walk(interruption)
            tell(End())

    def _walk(self, interruption: Interruption) -> None:
        left = list(self._runs)
        while left:
            n_done, passed = self.n_done, []
            for run in left:
                check_signals(interruption)
                if not self._take(run):
                    passed.append(run)
            if self.n_done == n_done and passed:
                time.sleep(_MOMENT)
                check_signals(interruption)
                passed = [run for run in passed if not self._take(run)]
                if self.n_done == n_done:
                    return
            left = passed

    def _take(self, run: GridRun) -> bool:
        """Do a run if there is something to do. Returns False if another process has it."""
        directory = run.directory
        if self._is_over(run):
            return True
        make_output_dir(directory)
        try:
            with RunLock(directory):
                if not self._is_over(run, is_locked_here=True):
                    self._do(run)
        except InUseError:
            return False
        return True

    def _is_over(self, run: GridRun, *, is_locked_here: bool = False) -> bool:
        found = state_of(run.directory, is_locked_here=is_locked_here)
        if found.state is State.FAILED:
            return run.name not in self._to_retry
        if found.state is State.FINISHED and is_locked_here:
            # Of a process that was killed between its end and this.
            shutil.rmtree(run.directory / CHECKPOINTS, ignore_errors=True)
        return found.is_final

    def _do(self, run: GridRun) -> None:
        """Do a run whose directory is locked, and put down how it ended."""
        directory, begun = run.directory, time.monotonic()
        self._to_retry.discard(run.name)
        earlier = GridRunRecord.read(directory)
        # A process that dies leaves this, and one that ends takes it back.
        record = GridRunRecord(run.values, run.digest(), n_unended=1)
        if earlier is not None and not earlier.is_left_alone:
            record = replace(record, n_unended=earlier.n_unended + 1)
        record.write(directory)
        say(f"{run.name}: begun.")
        try:
            with logged(directory), self._pack.one_run():
                given = run.arguments()
                steps = self._steps(run, given, earlier)
                tell(Do(run.name, record.digest, steps))
                world().attempt(partial(do_steps, run, steps, self._pack, given))
        except KeyboardInterrupt as interrupt:
            if is_in_vain(interrupt):
                # No other task of the same time comes further. This one may do other runs.
                replace(record, n_unended=0, failed=IN_VAIN).write(directory)
                something_is_kept()
                say(f"{run.name}: failed: {IN_VAIN}")
            else:
                replace(record, n_unended=record.n_unended - 1).write(directory)
            # The grid goes on with its own command, not with that of the run.
            if hasattr(interrupt, "output_dir"):
                interrupt.output_dir = None
            raise
        except Exception as error:
            if world().ends_more(error):
                if isinstance(error, OtherRankError) and error.is_by_signal:
                    replace(record, n_unended=record.n_unended - 1).write(directory)
                raise
            reason = _reason(error)
            replace(record, n_unended=0, failed=reason).write(directory)
            say(f"{run.name}: failed: {reason}")
            if gpu_is_lost():
                raise GpuLostError from error
        else:
            replace(record, n_unended=0, finished=True).write(directory)
            say(f"{run.name}: finished after {time.monotonic() - begun:.1f} s.")
        something_is_kept()
        self.n_done += 1

    def _steps(
        self, run: GridRun, given: AllArguments, earlier: GridRunRecord | None
    ) -> list[Step]:
        """What is to be done of a run or a study, or of what is left of it.

        Args:
            run: The run.
            given: Its arguments.
            earlier: What an earlier worker has put down about it.
        """
        _, data, optimization = given
        directory = run.directory
        is_mended = earlier is not None and earlier.is_left_alone and earlier.digest != run.digest()
        if optimization.do_optimize:
            return self._steps_of_study(run, optimization)
        if can_be_resumed(directory) and not is_mended:
            more: More = ()
            if isinstance(data.seed, DrawnSeed):
                more = [(("seed",), str(EarlierRun.read(directory).config.get("seed")))]
            return [Step(is_resumed=True, more=more)]
        # Only what a worker has begun: nothing of anybody else's is taken away.
        if earlier is not None and (is_mended or data.train_file is not None):
            clear(directory)
        return [Step()]

    def _steps_of_study(self, run: GridRun, optimization: OptimizationArguments) -> list[Step]:
        """What is to be done of a study, or of what is left of one."""
        best, steps = run.directory / BEST_TRIAL, []
        if can_be_resumed(best):
            steps.append(Step(is_of_best=True))
        elif best.is_dir() and state_of(best).state is not State.FINISHED:
            clear(best)
            best.rmdir()
        n_trials = optimization.optimize_kwargs.get("n_trials")
        more: list[tuple[tuple[str, ...], Any]] = [(("study_kwargs", "load_if_exists"), True)]
        if optimization.max_trials is None and n_trials is not None:
            # Those of earlier processes count.
            more.append((("max_trials",), str(n_trials)))
        return [*steps, Step(more=more)]


def _reason(error: Exception) -> str:
    """Why a run failed, in words."""
    if isinstance(error, UserError):
        return without_token(str(error))
    where = f"{name} raised " if (name := raised_in(error)) else ""
    return without_token(f"{where}{type(error).__name__}: {error}")
