"""A worker of a grid: walks the runs, and finishes, resumes or skips each."""

from __future__ import annotations

import contextlib
import shutil
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from finetune_lm.arguments import OptimizationArguments, without_token
from finetune_lm.arguments.data_training_arguments import DrawnSeed
from finetune_lm.errors import UserError, raised_in
from finetune_lm.experiment import conduct
from finetune_lm.grids.grid_runs import GridRun
from finetune_lm.grids.run_states import (
    LOG,
    GridRunRecord,
    State,
    can_be_resumed,
    clear,
    state_of,
)
from finetune_lm.messages import say
from finetune_lm.resuming import go_on
from finetune_lm.runs.directory import BEST_TRIAL, CHECKPOINTS, make_output_dir
from finetune_lm.runs.earlier_run import EarlierRun
from finetune_lm.runs.interruption import Interruption
from finetune_lm.runs.lock import InUseError, RunLock
from finetune_lm.runs.pack import Pack, gpu_is_lost
from finetune_lm.runs.requeueing import IN_VAIN, is_in_vain, something_is_kept

_MOMENT = 0.2
"""Who only asks for the state of a run has its lock for less."""


class GpuLostError(UserError):
    """An error of a run has left the process without its GPU."""

    exit_status = 1


class Worker:
    """Does what is left of a grid's runs, beside any number of others that do the same.

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
        left = list(self._runs)
        with Interruption() as interruption, self._pack:
            while left:
                n_done, passed = self.n_done, []
                for run in left:
                    interruption.check()
                    if not self._take(run):
                        passed.append(run)
                if self.n_done == n_done and passed:
                    time.sleep(_MOMENT)
                    interruption.check()
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
            with _logged(directory), self._pack.one_run():
                self._conduct(run, earlier)
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
            reason = _reason(error)
            replace(record, n_unended=0, failed=reason).write(directory)
            say(f"{run.name}: failed: {reason}")
            if gpu_is_lost():
                raise GpuLostError(
                    "this process cannot use the GPU any more; a new process continues."
                ) from error
        else:
            replace(record, n_unended=0, finished=True).write(directory)
            say(f"{run.name}: finished after {time.monotonic() - begun:.1f} s.")
        something_is_kept()
        self.n_done += 1

    def _conduct(self, run: GridRun, earlier: GridRunRecord | None) -> None:
        """Do a run or a study, or what is left of it.

        Args:
            run: The run.
            earlier: What an earlier worker has put down about it.
        """
        model, data, optimization = run.arguments()
        directory = run.directory
        is_mended = earlier is not None and earlier.is_left_alone and earlier.digest != run.digest()
        if optimization.do_optimize:
            self._study(run, optimization)
        elif can_be_resumed(directory) and not is_mended:
            if isinstance(data.seed, DrawnSeed):
                seed = EarlierRun.read(directory).config.get("seed")
                model, data, optimization = run.arguments([(("seed",), str(seed))])
            go_on(directory, (model, data, optimization), self._pack)
        else:
            # Only what a worker has begun: nothing of anybody else's is taken away.
            if earlier is not None and (is_mended or data.train_file is not None):
                clear(directory)
            conduct((model, data, optimization), pack=self._pack)

    def _study(self, run: GridRun, optimization: OptimizationArguments) -> None:
        """Do a study, or what is left of one."""
        best = run.directory / BEST_TRIAL
        if can_be_resumed(best):
            with RunLock(best):
                go_on(best, (None, None, None), self._pack)
        elif best.is_dir() and state_of(best).state is not State.FINISHED:
            clear(best)
            best.rmdir()
        n_trials = optimization.optimize_kwargs.get("n_trials")
        more: list[tuple[tuple[str, ...], Any]] = [(("study_kwargs", "load_if_exists"), True)]
        if optimization.max_trials is None and n_trials is not None:
            # Those of earlier processes count.
            more.append((("max_trials",), str(n_trials)))
        conduct(run.arguments(more), pack=self._pack)


@contextmanager
def _logged(directory: Path) -> Iterator[None]:
    """Let what is said go to a file in the directory of the run."""
    with (
        (directory / LOG).open("a", encoding="utf-8", errors="backslashreplace") as log,
        contextlib.redirect_stderr(log),
        contextlib.redirect_stdout(log),
    ):
        try:
            yield
        except Exception as error:
            told = f"error: {error}\n" if isinstance(error, UserError) else traceback.format_exc()
            log.write(without_token(told))
            raise


def _reason(error: Exception) -> str:
    """Why a run failed, in words."""
    if isinstance(error, UserError):
        return without_token(str(error))
    where = f"{name} raised " if (name := raised_in(error)) else ""
    return without_token(f"{where}{type(error).__name__}: {error}")
