"""Whether a process lives, is gone, or cannot be known about; and what it left unfinished."""

from __future__ import annotations

import datetime
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from finetune_lm.study import workers
from finetune_lm.study.workers import (
    MAX_ATTEMPTS,
    REASON,
    REPEATS,
    SURPLUS,
    WORKER,
    LostTrials,
    Worker,
    counted_trials,
    queue_again,
)


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
              "") ;;
              *) [ "$6" = 77_2 ] && echo "77_2 $(cat state)" ;;
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
    for name in ("JOB_ID", "ARRAY_JOB_ID", "ARRAY_TASK_ID", "CLUSTER_NAME", "RESTART_COUNT"):
        monkeypatch.delenv(f"SLURM_{name}", raising=False)

    def state(text):
        (tmp_path / "state").write_text(text)

    return state


ELSEWHERE = Worker("node9", 5, 1.0, slurm_job_id="77_2", slurm_cluster="big")


def is_gone(worker):
    return worker.is_gone(workers._queue([worker]))


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
    assert ELSEWHERE.is_gone(workers._queue([ELSEWHERE])) is is_gone


def test_a_job_of_another_cluster_or_none(slurm):
    slurm("invalid")
    small = replace(ELSEWHERE, slurm_cluster="small")
    assert is_gone(small) is None
    assert small.is_gone(workers._queue([ELSEWHERE, small])) is None
    assert is_gone(replace(ELSEWHERE, slurm_job_id="")) is None


def test_a_job_that_was_started_again(slurm, monkeypatch):
    slurm("RUNNING\n")
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "big")
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "77")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    assert Worker.this().slurm_job_id == "77_2"
    assert is_gone(ELSEWHERE) is False  # another process of this job
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert is_gone(ELSEWHERE) is True
    assert is_gone(replace(ELSEWHERE, slurm_restarts=1)) is False
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")  # started again, but it is another task
    assert is_gone(ELSEWHERE) is False


def test_without_slurm_nothing_is_known(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "big")
    assert is_gone(ELSEWHERE) is None


@pytest.mark.parametrize("described", [None, {}, "x", {"host": "a", "pid": 3}, [1]])
def test_what_describes_no_process(described):
    assert Worker.of(described) is None


def test_what_people_read():
    assert str(ELSEWHERE) == "process 5 on node9, SLURM job 77_2"
    assert str(replace(ELSEWHERE, slurm_job_id="")) == "process 5 on node9"


GONE = replace(Worker.this(), pid=2**22 + 7)
UNKNOWN = Worker("elsewhere", 1, 1.0)


@pytest.fixture(params=["memory", "journal", "sqlite"])
def study(request, tmp_path):
    from optuna.storages import InMemoryStorage, JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    storages = {
        "memory": InMemoryStorage,
        "journal": lambda: JournalStorage(JournalFileBackend(str(tmp_path / "j.log"))),
        "sqlite": lambda: RDBStorage(f"sqlite:///{tmp_path}/s.db"),
    }
    return optuna.create_study(storage=storages[request.param](), study_name="s")


def begin(study, worker, x=None):
    trial = study.ask()
    if worker is not None:
        trial.set_user_attr(WORKER, worker.describe())
    trial.suggest_float("x", 0, 1)
    trial.suggest_categorical("c", ["a", None, 3])
    return trial


def states(study):
    return [trial.state.name for trial in study.trials]


def test_a_trial_is_done_again_if_and_only_if_its_process_is_gone(study, capsys):
    begin(study, Worker.this())
    lost = begin(study, GONE)
    begin(study, UNKNOWN)
    finished = begin(study, GONE)
    study.tell(finished, 1.0)
    LostTrials(study).repeat()
    assert states(study) == ["RUNNING", "FAIL", "RUNNING", "COMPLETE", "WAITING"]
    assert study.trials[1].user_attrs[REASON] == f"{GONE} ended in the middle of it"
    said = capsys.readouterr().err
    assert "trial 1 was cut off, and its values are queued again" in said
    assert "trial 2 is under way in process 1 on elsewhere. Whether that process still runs" in said
    again = begin(study, Worker.this())
    assert again.number == 4
    assert again.params == lost.params
    assert again.user_attrs[REPEATS] == 1


def test_what_is_not_known_is_said_once(study, capsys):
    begin(study, UNKNOWN)
    lost = LostTrials(study)
    for _ in range(3):
        lost.repeat()
    assert capsys.readouterr().err.count("left alone") == 1


def test_the_queue_of_a_cluster_is_not_looked_at_after_every_trial(study, monkeypatch):
    asked = []
    monkeypatch.setattr(workers, "cluster", lambda: "big")
    monkeypatch.setattr(workers, "states_of", lambda jobs: asked.append(jobs) or {})
    monkeypatch.setattr(LostTrials, "_give_up", lambda *_: None)
    for task in (1, 2):
        begin(study, replace(ELSEWHERE, slurm_job_id=f"77_{task}"))
    lost = LostTrials(study)
    for _ in range(3):
        lost.repeat()
    assert asked == [{"77_1", "77_2"}]  # about all of them at once
    lost.repeat(asks_slurm=True)
    assert len(asked) == 2
    monkeypatch.setattr(workers, "_SECONDS_BETWEEN_QUESTIONS", 0.0)
    lost.repeat()
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("state", "states_after", "may_end", "told"),
    [
        ("RUNNING", ["RUNNING"], False, " (running)."),
        ("PENDING", ["RUNNING"], False, " (which waits to be started again)."),
        ("COMPLETING", ["RUNNING"], True, " (completing)."),
        ("broken", ["RUNNING"], False, "."),
        ("", ["FAIL", "WAITING"], False, None),
    ],
)
def test_a_trial_of_a_job(study, slurm, capsys, state, states_after, may_end, told):
    slurm(state)
    begin(study, ELSEWHERE)
    lost = LostTrials(study)
    assert lost.repeat() is may_end
    assert states(study) == states_after
    capsys.readouterr()
    lost.say_what_is_left()
    assert capsys.readouterr().err == (
        f"trial 0 is still under way in {ELSEWHERE}{told}\n" if told else ""
    )


def test_what_is_left_is_said_in_some_lines(study, capsys):
    begin(study, None)
    for _ in range(workers._MOST_SAID + 1):
        begin(study, UNKNOWN)
    LostTrials(study).say_what_is_left()
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "trial 0 is still under way in another process."
    assert said[1] == "trial 1 is still under way in process 1 on elsewhere."
    assert said[-1] == "and 2 more trials are still under way."
    assert len(said) == workers._MOST_SAID + 1


def test_a_database_that_hears_of_its_processes_needs_no_word(tmp_path, capsys):
    from optuna.storages import RDBStorage

    storage = RDBStorage(f"sqlite:///{tmp_path}/s.db", heartbeat_interval=60)
    study = optuna.create_study(storage=storage)
    begin(study, UNKNOWN)
    LostTrials(study).repeat()
    assert "left alone" not in capsys.readouterr().err


def test_of_two_processes_one_queues_a_trial_again(study):
    begin(study, GONE)
    one, other = LostTrials(study), LostTrials(study)
    [trial] = study.get_trials(deepcopy=False)
    one._give_up(trial, "gone")
    other._give_up(trial, "gone")  # saw it as it was before
    assert states(study) == ["FAIL", "WAITING"]


def test_values_that_kill_their_process_are_not_tried_for_ever(study, capsys):
    begin(study, GONE)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        LostTrials(study).repeat()
        if attempt < MAX_ATTEMPTS:
            assert states(study)[-1] == "WAITING"
            begin(study, GONE)
    assert states(study) == ["FAIL"] * MAX_ATTEMPTS
    assert "were tried 3 times" in capsys.readouterr().err
    assert len(counted_trials(study)) == 1
    assert len({trial.params["x"] for trial in study.trials}) == 1


def test_stopping_a_process_is_no_attempt_of_its_values(study):
    for _ in range(MAX_ATTEMPTS + 2):
        trial = begin(study, Worker.this())
        study.tell(trial, state=TrialState.FAIL)
        queue_again(study, study.trials[-1], counts=False)
        assert states(study)[-1] == "WAITING"


def test_a_trial_of_nobody(study, monkeypatch):
    """Its process was killed in the moment between beginning it and saying so."""
    begin(study, None)
    LostTrials(study).repeat()
    assert states(study) == ["RUNNING"]
    monkeypatch.setattr(workers, "_NOBODYS_AFTER", datetime.timedelta(0))
    LostTrials(study).repeat()
    assert states(study) == ["FAIL", "WAITING"]


def test_a_trial_without_values_is_not_queued_and_does_not_count(study):
    trial = study.ask()
    trial.set_user_attr(WORKER, GONE.describe())
    LostTrials(study).repeat()
    assert states(study) == ["FAIL"]
    assert counted_trials(study) == []


def test_which_trials_count(study):
    def end(state=None, value=None):
        trial = begin(study, Worker.this())
        if state is not None or value is not None:
            study.tell(trial, value, state=state)
        return trial

    end(value=1.0)
    end(TrialState.PRUNED)
    failed = end(TrialState.FAIL)
    repeated = end(TrialState.FAIL)
    queue_again(study, study.trials[repeated.number], counts=True)
    assert [t.number for t in counted_trials(study)] == [0, 1, failed.number]
    begin(study, Worker.this())  # the one that was queued
    surplus = begin(study, Worker.this())
    surplus.set_user_attr(SURPLUS, True)
    assert [t.number for t in counted_trials(study)] == [0, 1, failed.number, 4]
