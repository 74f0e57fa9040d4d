"""Workers of a grid as the tasks of a job array on a cluster with SLURM."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from finetune_lm.errors import UserError
from finetune_lm.grids.grid_runs import GridRun
from finetune_lm.grids.run_states import GridRunRecord, State, clear, state_of
from finetune_lm.messages import say
from finetune_lm.runs.lock import InUseError, RunLock
from finetune_lm.slurm.batch_script import Command, batch_script, launch_of
from finetune_lm.slurm.sbatch_options import SbatchOptions


@dataclass(frozen=True)
class Submission:
    """What is to be submitted.

    Attributes:
        runs: The runs of the grid.
        grid: The grid file.
        n_tasks: In how many tasks the runs are done at most.
        options: Options of ``sbatch``, as on a command line.
        worker: What each task's worker is told besides, as on a command line.
        retry: Whether runs that failed are tried again.
    """

    runs: Sequence[GridRun]
    grid: str
    n_tasks: int
    options: Sequence[str] = ()
    worker: Sequence[str] = ()
    retry: bool = False

    def left(self) -> list[GridRun]:
        """The runs that are to be done or gone on with."""
        return [run for run in self.runs if self._is_left(state_of(run.directory).state)]

    def script(self) -> str | None:
        """The script, with a task for each run that is left where there are fewer than tasks.

        Returns:
            None if nothing is left to do.

        Raises:
            UserError: If an option of ``sbatch`` cannot be read, or does not go with a grid.
        """
        options, launch = launch_of(SbatchOptions.read(self.options))
        problems = [
            f"--{name} cannot be given for a grid: {remedy}."
            for name, remedy in _NOT_FOR_GRIDS.items()
            if options.has(name)
        ]
        if launch is not None and "--jobs" in self.worker:
            problems.append("--jobs cannot be given with --nproc-per-node. Leave out one of them.")
        if problems:
            raise UserError(*problems)
        n_left = len(self.left())
        if n_left == 0:
            return None
        array = ("array", f"1-{min(self.n_tasks, n_left)}")
        words = ["grid", self.grid, "run", "--unchecked", *self.worker]
        name = self.runs[0].directory.parent.name or "grid"
        options = replace(options, given=(array, *options.given))
        return batch_script(Command(name, words, launch=launch), options, Path.cwd())

    def submit(self, script: str) -> str:
        """Give the script to ``sbatch``; from then on this process is not needed any more.

        Returns:
            The number of the job.

        Raises:
            UserError: If SLURM does not take it.
        """
        if shutil.which("sbatch") is None:
            raise UserError(
                "there is no sbatch here. Give the command on a machine of the cluster, or print "
                "the script with --dry-run."
            )
        left = self.left()
        for run in left:
            _put_back(run)
        done = subprocess.run(
            ["sbatch", "--parsable"], input=script, capture_output=True, text=True, check=False
        )
        if done.returncode:
            told = done.stderr.strip().splitlines()
            raise UserError(f"sbatch does not take the job: {told[-1] if told else 'no reason'}.")
        job = done.stdout.strip().partition(";")[0]
        say(f"{len(left)} run{'s are' if len(left) > 1 else ' is'} left to the tasks of job {job}.")
        return job

    def _is_left(self, state: State) -> bool:
        return state is not State.FINISHED and (self.retry or state is not State.FAILED)


_NOT_FOR_GRIDS = {
    "array": "--tasks says how many tasks there are",
    "ntasks": "each task has one worker; --jobs gives it several processes",
    "ntasks-per-node": "each task has one worker; --jobs gives it several processes",
}


def _put_back(run: GridRun) -> None:
    """Let a run that failed be done again by one of the tasks, not by each of them."""
    record = GridRunRecord.read(run.directory)
    if record is None or not record.is_left_alone:
        return
    try:
        with RunLock(run.directory):
            if record.digest != run.digest():
                clear(run.directory)  # it was something else
            replace(record, failed=None, n_unended=0).write(run.directory)
    except InUseError:
        return  # somebody does it already
