"""What is done of a grid's run: of several ranks the first says so, and the others do it too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from finetune_lm.errors import UserError
from finetune_lm.experiment import conduct
from finetune_lm.grids.grid_runs import GridRun
from finetune_lm.grids.run_log import logged
from finetune_lm.ranks import world
from finetune_lm.resuming import go_on
from finetune_lm.runs.directory import BEST_TRIAL
from finetune_lm.runs.following import attempt, follow
from finetune_lm.runs.interruption import Interruption
from finetune_lm.runs.lock import RunLock
from finetune_lm.runs.pack import Pack, gpu_is_lost
from finetune_lm.runs.run_identity import AllArguments

More = Sequence[tuple[tuple[str, ...], Any]]


class GpuLostError(UserError):
    """An error of a run has left the process without its GPU."""

    exit_status = 1

    def __init__(self) -> None:
        super().__init__("this process cannot use the GPU any more.")


@dataclass(frozen=True)
class Step:
    """One thing that is done of a run.

    Attributes:
        is_resumed: Whether there is something to go on from.
        is_of_best: Whether it is the run of a study's best trial, with the arguments that it had.
        more: What is to be otherwise in the arguments of the run, by path.
    """

    is_resumed: bool = False
    is_of_best: bool = False
    more: More = ()

    def do(self, run: GridRun, pack: Pack, given: AllArguments | None) -> None:
        """Do it. The run's directory is locked."""
        if self.is_of_best:
            best = run.directory / BEST_TRIAL
            with RunLock(best):
                go_on(best, (None, None, None), pack)
            return
        all_args = given if given and not self.more else run.arguments(self.more)
        if self.is_resumed:
            go_on(run.directory, all_args, pack)
        else:
            conduct(all_args, pack=pack)


@dataclass(frozen=True)
class Do:
    """A run comes.

    Attributes:
        name: Which.
        digest: What stands for its arguments as they are written.
        steps: What is done of it.
    """

    name: str
    digest: str
    steps: Sequence[Step]


def follow_runs(runs: Sequence[GridRun]) -> None:
    """Do runs of a grid with the first rank, which walks through it.

    Args:
        runs: All of them.

    Raises:
        UserError: If this rank has another grid than the first.
        GpuLostError: If a run has left this rank without its GPU.
    """
    by_name = {run.name: run for run in runs}
    with Pack() as pack:

        def do(message: Do, interruption: Interruption) -> None:
            del interruption  # each run has its own
            run = by_name.get(message.name)
            if run is None or run.digest() != message.digest:
                raise UserError(
                    f"all processes of a grid must have the same grid file, but rank "
                    f"{world().rank} differs from rank 0 in {message.name}."
                )
            with pack.one_run():
                attempt(lambda: _do_logged(run, message.steps, pack))
            if gpu_is_lost():
                raise GpuLostError

        follow(do)


def _do_logged(run: GridRun, steps: Sequence[Step], pack: Pack) -> None:
    with logged(run.directory):
        do_steps(run, steps, pack)


def do_steps(
    run: GridRun, steps: Sequence[Step], pack: Pack, given: AllArguments | None = None
) -> None:
    """Do what is to be done of a run.

    Args:
        run: The run.
        steps: What is to be done.
        pack: What the process keeps from run to run.
        given: The run's arguments, if they were made already.
    """
    for step in steps:
        step.do(run, pack, given)
