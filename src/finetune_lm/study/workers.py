"""The processes of a study: which does a trial, whether it lives, what it left unfinished."""

from __future__ import annotations

import datetime
import math
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import optuna
from optuna.storages._heartbeat import is_heartbeat_enabled
from optuna.trial import FrozenTrial, TrialState

from finetune_lm.messages import say, warn
from finetune_lm.slurm.queue import Queue, cluster, states_of, this_job

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
_MOST_SAID = 10
# Every process describes itself in a trial as soon as there is one.
_NOBODYS_AFTER = datetime.timedelta(hours=1)

_DEAD = frozenset("ZXx")
"""States of a process that has ended and only waits to be taken note of."""

_START_TOLERANCE = 2.0


@dataclass(frozen=True)
class Worker:
    """A process that does trials, described so that others can find out whether it lives.

    Attributes:
        host: The name of its machine.
        pid: Its number there.
        started: When it was started, so that another process of the same number is not taken for
            it: in clock ticks since the machine was started on Linux, elsewhere in seconds.
        boot: Which start of the machine; empty where that is not known.
        machine: Which installation of a system; empty where that is not known.
        namespace: Which numbering of processes, which containers have their own of.
        slurm_job_id: Its SLURM job, if it is in one; of an array, ``ARRAY_TASK``.
        slurm_cluster: The cluster of that job.
        slurm_restarts: How often the job had been started again.
    """

    host: str
    pid: int
    started: float
    boot: str = ""
    machine: str = ""
    namespace: str = ""
    slurm_job_id: str = ""
    slurm_cluster: str = ""
    slurm_restarts: int = 0

    @classmethod
    def this(cls) -> Self:
        """This process."""
        pid = os.getpid()
        started = _started(pid)
        assert started is not None
        return cls(
            socket.gethostname(),
            pid,
            started,
            _content("/proc/sys/kernel/random/boot_id"),
            _content("/etc/machine-id"),
            _link("/proc/self/ns/pid"),
            this_job(),
            os.environ.get("SLURM_CLUSTER_NAME", ""),
            int(os.environ.get("SLURM_RESTART_COUNT", "0")),
        )

    @classmethod
    def of(cls, described: Any) -> Self | None:
        """The process that a storage describes; None where it does not describe one."""
        try:
            return cls(**{field.name: described[field.name] for field in fields(cls)})
        except (TypeError, KeyError):
            return None

    def describe(self) -> dict[str, Any]:
        """The process in plain types, for a storage."""
        return asdict(self)

    def __str__(self) -> str:
        job = f", SLURM job {self.slurm_job_id}" if self.slurm_job_id else ""
        return f"process {self.pid} on {self.host}{job}"

    def is_gone(self, queue: Queue | None = None) -> bool | None:
        """Whether the process has ended; None where that cannot be told from here.

        A job that is to be started again counts as one that has not: its processes will see to what
        they have left.

        Args:
            queue: What the queue of this machine's cluster says, asked for its job among others.
        """
        here = Worker.this()
        if (self.host, self.boot, self.namespace) == (here.host, here.boot, here.namespace):
            started = _started(self.pid)
            return started is None or abs(started - self.started) > _START_TOLERANCE
        same_machine = bool(self.machine) and (self.host, self.machine) == (here.host, here.machine)
        if same_machine and self.boot != here.boot:
            return True  # the machine was started again since
        if not self.slurm_job_id or not self.slurm_cluster:
            return None
        same_job = (self.slurm_cluster, self.slurm_job_id) == (
            here.slurm_cluster,
            here.slurm_job_id,
        )
        if same_job and here.slurm_restarts > self.slurm_restarts:
            return True  # the job was started again, after it was taken off its machine
        if queue is None or queue.cluster != self.slurm_cluster:
            return None
        return self.slurm_job_id not in queue.states


def _started(pid: int) -> float | None:
    """When a process of this machine was started; None if there is none of the number."""
    if Path("/proc/self/stat").exists():
        # The name of the program stands in brackets and may have blanks and brackets in it.
        _, _, rest = _content(f"/proc/{pid}/stat").rpartition(")")
        parts = rest.split()
        return float(parts[19]) if parts and parts[0] not in _DEAD else None
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return None


def _content(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return str(Path(path).readlink())
    except OSError:
        return ""


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

    def repeat(self, *, asks_slurm: bool = False) -> bool:
        """Take care of the trials that no process works at any more.

        A trial is left alone if it cannot be told from here whether its process lives.

        Args:
            asks_slurm: Whether to look at the queue of a cluster, which all of its users share, in
                any case, and not only if that was long ago.

        Returns:
            Whether more may be known in a moment, since jobs are about to be over.
        """
        asks_slurm = asks_slurm or (
            time.monotonic() - self._asked_slurm > _SECONDS_BETWEEN_QUESTIONS
        )
        running = self._running()
        queue = _queue([worker for _, worker in running]) if asks_slurm else None
        if asks_slurm:
            self._asked_slurm = time.monotonic()
        for trial, worker in running:
            gone = _is_nobodys(trial) if worker is None else worker.is_gone(queue)
            if gone:
                self._give_up(trial, f"{worker or 'its process'} ended in the middle of it")
            elif gone is None and asks_slurm and not self._is_told:
                self._say_unknown(trial, worker)
        return queue is not None and queue.is_ending_some

    def say_what_is_left(self) -> None:
        """Say which trials other processes have not come to the end of."""
        running = self._running()
        queue = _queue([worker for _, worker in running])
        for trial, worker in running[:_MOST_SAID]:
            state = queue.states.get(worker.slurm_job_id, "") if queue and worker else ""
            told = {"PENDING": " (which waits to be started again)", "": ""}
            say(
                f"trial {trial.number} is still under way in {worker or 'another process'}"
                f"{told.get(state, f' ({state.lower()})')}."
            )
        if len(running) > _MOST_SAID:
            say(f"and {len(running) - _MOST_SAID} more trials are still under way.")

    def _running(self) -> list[tuple[FrozenTrial, Worker | None]]:
        trials = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [(trial, Worker.of(trial.user_attrs.get(WORKER))) for trial in trials]

    def _say_unknown(self, trial: FrozenTrial, worker: Worker | None) -> None:
        if worker is None or trial.number in self._has_said:
            return
        self._has_said.add(trial.number)
        say(
            f"trial {trial.number} is under way in {worker}. Whether that process still runs "
            "cannot be found out from here, so the trial is left alone."
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
    say(f"trial {trial.number} was cut off, and its values are queued again.")


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


def _queue(workers: Sequence[Worker | None]) -> Queue | None:
    """What the queue of this machine's cluster says of the jobs that processes are in.

    Returns:
        None if none is in a job of this cluster, or the queue could not be asked.
    """
    in_jobs = [worker for worker in workers if worker and worker.slurm_job_id]
    here = cluster() if in_jobs else ""
    jobs = {worker.slurm_job_id for worker in in_jobs if here and worker.slurm_cluster == here}
    states = states_of(jobs) if jobs else None
    return None if states is None else Queue(here, states)


def _is_nobodys(trial: FrozenTrial) -> bool:
    if trial.datetime_start is None:
        return False
    age: datetime.timedelta = datetime.datetime.now() - trial.datetime_start
    return age > _NOBODYS_AFTER
