"""Whether a process lives, is gone, or cannot be known about."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from finetune_lm.study.workers import Worker


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def worker_of(process):
    from finetune_lm.study.workers import _started

    return replace(Worker.this(), pid=process.pid, started=_started(process.pid))


def test_this_process_lives():
    this = Worker.this()
    assert this.is_gone() is False
    assert this.pid == os.getpid()
    assert Worker.of(this.describe()) == this


def test_another_process_lives_until_it_is_killed(sleeper):
    worker = worker_of(sleeper)
    assert worker.is_gone() is False
    sleeper.send_signal(signal.SIGSTOP)
    assert worker.is_gone() is False  # held up, but there
    sleeper.kill()
    # Not taken note of by its parent yet, it still has its number.
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{sleeper.pid}").exists() or sys.platform != "linux"
    assert worker.is_gone() is True
    sleeper.wait()
    assert worker.is_gone() is True


def test_a_number_that_another_process_has_got(sleeper):
    worker = worker_of(sleeper)
    assert replace(worker, started=worker.started - 500).is_gone() is True


def test_a_machine_that_was_started_again():
    assert replace(Worker.this(), boot="other", machine="m").is_gone() is None
    this = Worker.this()
    if this.machine:
        assert replace(this, boot="other").is_gone() is True


@pytest.mark.parametrize("change", [{"host": "elsewhere"}, {"namespace": "pid:[1]"}])
def test_another_machine_or_container_cannot_be_looked_into(change):
    """Its process may have the number of one that lives here, or of none."""
    for pid in (os.getpid(), 2**22 + 7):
        assert replace(Worker.this(), pid=pid, **change).is_gone() is None


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A cluster whose queue is a file."""
    for name, script in {
        "squeue": """
            case "$(cat state)" in
              invalid) echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1 ;;
              broken) echo "slurm_load_jobs error: Unable to contact controller" >&2; exit 1 ;;
              *) [ "$3" = 77 ] && cat state ;;
            esac
            exit 0
            """,
        "scontrol": "printf 'AccountingStorageHost   = x\\nClusterName             = big\\n'",
    }.items():
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    for name in ("SLURM_JOB_ID", "SLURM_CLUSTER_NAME", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)

    def state(text):
        (tmp_path / "state").write_text(text)

    return state


ELSEWHERE = Worker("node9", 5, 1.0, slurm_job_id="77", slurm_cluster="big")


@pytest.mark.parametrize(
    ("state", "is_gone"),
    [
        ("RUNNING\n", False),
        ("PENDING\n", False),
        ("COMPLETING\n", False),
        ("", True),
        ("invalid", True),
        ("broken", None),
    ],
)
@pytest.mark.parametrize("inside", [True, False])
def test_a_job_of_the_cluster(slurm, monkeypatch, state, is_gone, inside):
    slurm(state)
    if inside:
        monkeypatch.setenv("SLURM_CLUSTER_NAME", "big")
    assert ELSEWHERE.is_gone() is is_gone


def test_a_job_of_another_cluster_or_none(slurm):
    slurm("invalid")
    assert replace(ELSEWHERE, slurm_cluster="small").is_gone() is None
    assert replace(ELSEWHERE, slurm_job_id="").is_gone() is None


def test_a_job_that_was_started_again(slurm, monkeypatch):
    slurm("RUNNING\n")
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "big")
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    assert ELSEWHERE.is_gone() is False  # another process of this job
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert ELSEWHERE.is_gone() is True
    assert replace(ELSEWHERE, slurm_restarts=1).is_gone() is False


def test_without_slurm_nothing_is_known(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "big")
    assert ELSEWHERE.is_gone() is None


@pytest.mark.parametrize("described", [None, {}, "x", {"host": "a", "pid": 3}, [1]])
def test_what_describes_no_process(described):
    assert Worker.of(described) is None


def test_what_people_read():
    assert str(ELSEWHERE) == "process 5 on node9, SLURM job 77"
    assert str(replace(ELSEWHERE, slurm_job_id="")) == "process 5 on node9"
