"""Questions to a cluster's queue."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass

_COMMAND_TIMEOUT = 30

COMPLETING = "COMPLETING"
"""The state of a job that is over and whose processes are being ended."""


@dataclass(frozen=True)
class Queue:
    """What a queue says of some jobs.

    Attributes:
        cluster: Whose queue it is.
        states: The states of those jobs that it has; those that it has not are over.
    """

    cluster: str
    states: Mapping[str, str]

    @property
    def is_ending_some(self) -> bool:
        """Whether some of the jobs are about to be over."""
        return COMPLETING in self.states.values()


def this_job() -> str:
    """The job that this process is in, by the name under which the queue has it alone.

    For a task of an array that is ``ARRAY_TASK``: a task has a number of its own too, but one of
    them has that of the whole array. Empty outside of a job.
    """
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID", "") for name in ("JOB", "TASK"))
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")


def cluster() -> str:
    """The cluster that this machine belongs to; empty if it belongs to none."""
    from_environment = os.environ.get("SLURM_CLUSTER_NAME", "")
    if from_environment:
        return from_environment
    result = _run("scontrol", "show", "config")
    for line in (result.stdout if result and result.returncode == 0 else "").splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "ClusterName":
            return value.strip()
    return ""


def states_of(jobs: Collection[str]) -> dict[str, str] | None:
    """The states of those of some jobs that the queue still has, such as RUNNING or PENDING.

    A job that is over is not in the queue any more. One that waits to be started again is.

    Args:
        jobs: Their names, as `this_job` gives them.

    Returns:
        A state for each job that is there. None if the queue could not be asked.
    """
    if not jobs:
        return {}
    # One question for all: a queue is asked by every user of the cluster.
    result = _run(
        *("squeue", "--noheader", "--array", "--format", "%i %T", "--jobs", ",".join(sorted(jobs)))
    )
    if result is None:
        return None
    if result.returncode != 0:
        return {} if "Invalid job id" in result.stderr else None
    words = [line.split() for line in result.stdout.splitlines()]
    return {each[0]: each[1] for each in words if len(each) == 2 and each[0] in jobs}


def _run(*command: str) -> subprocess.CompletedProcess[str] | None:
    if shutil.which(command[0]) is None:
        return None
    # A user may have squeue show less than there is.
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SQUEUE_")}
    try:
        return subprocess.run(
            command,
            env=kept,
            capture_output=True,
            text=True,
            timeout=_COMMAND_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
