from __future__ import annotations

import datetime
from dataclasses import replace

import optuna
import pytest
from optuna.trial import TrialState

from finetune_lm.study import lost_trials
from finetune_lm.study.lost_trials import (
    MAX_ATTEMPTS,
    REASON,
    REPEATS,
    SURPLUS,
    WORKER,
    LostTrials,
    counted_trials,
    queue_again,
)
from finetune_lm.study.workers import Worker

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
    assert "trial 1 did not come to its end, and its values are queued again" in said
    assert "trial 2 is under way in process 1 on elsewhere. Whether that still lives" in said
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
    monkeypatch.setattr(Worker, "is_gone", lambda self, ask_slurm: asked.append(ask_slurm))
    begin(study, UNKNOWN)
    lost = LostTrials(study)
    for _ in range(3):
        lost.repeat()
    assert asked == [True, False, False]
    monkeypatch.setattr(lost_trials, "_SECONDS_BETWEEN_QUESTIONS", 0.0)
    lost.repeat()
    assert asked[3:] == [True]


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
    monkeypatch.setattr(lost_trials, "_NOBODYS_AFTER", datetime.timedelta(0))
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
