"""Workers of a grid as processes of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_lm.errors import UserError
from finetune_lm.messages import say, warn
from finetune_lm.ranks import world
from finetune_lm.runs.interruption import Interrupted, Interruption
from finetune_lm.runs.requeueing import something_is_kept

if TYPE_CHECKING:
    from finetune_lm.grids.grid_runs import GridRun

_MOMENT = 0.1
_GPUS = Path("/proc/driver/nvidia/gpus")


def work(grid: str, runs: Sequence[GridRun], jobs: int, *, retry: bool) -> None:
    """Do what is left of a grid on this machine.

    Args:
        grid: The grid file.
        runs: Its runs.
        jobs: In how many processes. One is this process, or the ranks that it is one of.
        retry: Whether to try those again that failed.

    Raises:
        KeyboardInterrupt: If a signal came.
        GpuLostError: If a run has left this process without its GPU.
    """
    if not world().is_first:
        from finetune_lm.grids.followed_runs import follow_runs

        follow_runs(runs)
    elif jobs > 1:
        LocalWorkers(grid, jobs, retry=retry).run()
    else:
        from finetune_lm.grids.walking import Worker

        Worker(runs, retry=retry).walk()


def check_jobs(jobs: int) -> None:
    """See that each of several ranks is not to start workers of its own.

    Raises:
        UserError: If it is.
    """
    if jobs > 1 and (size := world().size) > 1:
        raise UserError(
            f"--jobs must be 1 where torchrun or accelerate launch has started {size} processes, "
            f"which do each run together, but is {jobs}."
        )


class LocalWorkers:
    """Starts workers, and waits for their end. They need it no more once they are there.

    One that is killed is replaced, as long as there are runs that it could do: a run that takes its
    process down with it three times is left alone by all of them.

    Args:
        grid: The grid file.
        n: How many.
        retry: Whether they try those runs again that failed.
    """

    def __init__(self, grid: str, n: int, *, retry: bool) -> None:
        self._command = [sys.executable, "-m", "finetune_lm", "grid", grid, "run", "--unchecked"]
        self._retry = retry
        self._n = n

    def run(self) -> None:
        """Start them and wait.

        Raises:
            Interrupted: If a signal came, which they have got too.
        """
        with Interruption() as interruption:
            retry = ["--retry"] if self._retry else []
            workers = {n: self._start(n, *retry) for n in range(self._n)}
            try:
                while workers:
                    interruption.check()
                    for n, worker in list(workers.items()):
                        if worker.poll() is not None:
                            del workers[n]
                            if worker.returncode < 0:
                                name = signal.Signals(-worker.returncode).name
                                warn(f"a worker was killed by {name}; another takes its place.")
                                workers[n] = self._start(n)
                            elif worker.returncode:
                                warn(f"a worker ended with exit status {worker.returncode}.")
                    time.sleep(_MOMENT)
            except Interrupted as interrupt:
                say("waiting for the workers to save their state ...")
                for worker in workers.values():
                    worker.send_signal(interrupt.signal_number)
                stopped = 128 + interrupt.signal_number
                if stopped in [worker.wait() for worker in workers.values()]:
                    something_is_kept()  # or they would have failed
                raise

    def _start(self, n: int, *more: str) -> subprocess.Popen[bytes]:
        environment = dict(os.environ)
        if (gpus := _gpus()) and len(gpus) > 1:
            environment["CUDA_VISIBLE_DEVICES"] = gpus[n % len(gpus)]
        # A Ctrl-C at the terminal reaches them too; they take two that come together for one.
        return subprocess.Popen([*self._command, *more], env=environment)


def _gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA calls them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [each for each in visible.split(",") if each.strip()]
    return [str(n) for n in range(len(list(_GPUS.iterdir())))] if _GPUS.is_dir() else []
