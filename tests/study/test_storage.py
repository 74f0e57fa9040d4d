"""Every way to name a storage, and a journal that half a line does not spoil."""

from __future__ import annotations

import os
from pathlib import Path

import optuna
import pytest
from optuna.storages import InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import (
    JournalFileBackend,
    JournalFileOpenLock,
    JournalFileSymlinkLock,
)

from finetune_lm import UserError
from finetune_lm.study.storage import WholeLinesJournal, storage_place
from finetune_lm.study.workers import queue_stale


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def use(place, n=1):
    """Open a storage and do some trials in it."""
    study = optuna.create_study(storage=place.open(), study_name="s", load_if_exists=True)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=n)
    return len(study.trials)


def test_by_default_a_journal_in_the_output_directory(tmp_path):
    place = storage_place({}, Path("out", "journal.log"))
    assert place.shown == str(tmp_path / "out" / "journal.log")
    assert not place.is_there()
    assert not (tmp_path / "out").exists()
    assert use(place) == 1
    assert place.is_there()
    assert use(storage_place({"storage": None}, Path("out", "journal.log"))) == 2
    # Optuna and its dashboard read it as a journal of theirs.
    theirs = JournalStorage(JournalFileBackend(str(tmp_path / "out" / "journal.log")))
    assert len(optuna.load_study(study_name="s", storage=theirs).trials) == 2


@pytest.mark.parametrize("as_path", [str, Path])
def test_the_path_of_a_journal(tmp_path, as_path):
    place = storage_place({"storage": as_path("sub/my.log")}, Path("x"))
    assert use(place) == 1
    assert (tmp_path / "sub" / "my.log").exists()


def test_a_url(tmp_path):
    place = storage_place({"storage": "sqlite:///study.db"}, Path("x"))
    assert use(place) == 1
    assert (tmp_path / "study.db").exists()
    storage = place.open()
    assert storage.get_heartbeat_interval() == 60
    assert storage.get_heartbeat_stale_trial_callback() is queue_stale


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_in_memory_has_no_heartbeat(url):
    place = storage_place({"storage": url}, Path("x"))
    assert use(place) == 1
    assert place.open().get_heartbeat_interval() is None


def test_a_class_with_everything_within(tmp_path):
    """As the documentation of the arguments has it: log_storage and lock_obj with their kwargs."""
    for number, lock in enumerate((JournalFileOpenLock, JournalFileSymlinkLock)):
        path = f"journal{number}.log"
        place = storage_place(
            {
                "storage": JournalStorage,
                "storage_kwargs": {
                    "log_storage": JournalFileBackend,
                    "log_storage_kwargs": {
                        "file_path": path,
                        "lock_obj": lock,
                        "lock_obj_kwargs": {"filepath": path, "grace_period": 10},
                    },
                },
            },
            Path("x"),
        )
        assert use(place) == 1
        backend = place.open()._backend
        assert isinstance(backend._lock, lock)
        assert backend._lock.grace_period == 10
        # A relative path would make a lock that leads nowhere.
        assert backend._lock._lock_file == str(tmp_path / f"{path}.lock")
        assert backend._file_path == str(tmp_path / path)


def test_a_lock_without_a_path_is_that_of_its_journal(tmp_path):
    kwargs = {
        "log_storage": JournalFileBackend,
        "log_storage_kwargs": {"file_path": "j.log", "lock_obj": JournalFileOpenLock},
    }
    place = storage_place({"storage": JournalStorage, "storage_kwargs": kwargs}, Path("x"))
    assert place.open()._backend._lock._lock_file == str(tmp_path / "j.log.lock")


def test_a_lock_is_taken_from_a_process_that_died_with_it(tmp_path):
    """With a relative path Optuna's own lock would be waited for without end."""
    kwargs = {
        "log_storage": JournalFileBackend,
        "log_storage_kwargs": {
            "file_path": "j.log",
            "lock_obj": JournalFileSymlinkLock,
            "lock_obj_kwargs": {"grace_period": 1},
        },
    }
    place = storage_place({"storage": JournalStorage, "storage_kwargs": kwargs}, Path("x"))
    storage = place.open()
    assert storage._backend._lock.acquire()
    assert use(place) == 1


def test_a_class_for_a_database_has_a_heartbeat_too():
    kwargs = {"url": "sqlite:///a.db", "engine_kwargs": {"pool_size": 3}, "grace_period": 7}
    place = storage_place({"storage": RDBStorage, "storage_kwargs": kwargs}, Path("x"))
    assert place.shown == "optuna.storages.RDBStorage sqlite:///a.db"
    backend = place.open()._backend
    assert backend.engine_kwargs == {"pool_size": 3}
    assert (backend.heartbeat_interval, backend.grace_period) == (60, 7)
    without = {"url": "sqlite:///a.db", "heartbeat_interval": None}
    place = storage_place({"storage": RDBStorage, "storage_kwargs": without}, Path("x"))
    assert place.open().get_heartbeat_interval() is None


def test_an_object():
    storage = InMemoryStorage()
    assert storage_place({"storage": storage}, Path("x")).open() is storage


def test_a_password_is_not_shown():
    for url in (
        "postgresql://me:secret@nowhere.invalid/studies",
        "postgresql://nowhere.invalid/studies?user=me&password=secret",
    ):
        place = storage_place({"storage": url}, Path("x"))
        assert "secret" not in place.shown
        with pytest.raises(UserError) as caught:
            place.open()
        assert "secret" not in str(caught.value)
        assert "cannot be" in str(caught.value)


def test_a_driver_that_is_not_there(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "psycopg", None)
    place = storage_place({"storage": "postgresql://localhost/x"}, Path("x"))
    with pytest.raises(UserError, match=r"needs a driver .*pip install 'finetune-lm\[postgres\]'"):
        place.open()


WRONG = {
    "no such place": ("/proc/nowhere/j.log", "/proc/nowhere/j.log cannot be opened"),
    "no journal": (
        "no_journal.txt",
        r"no_journal.txt cannot be opened: it is no journal of Optuna.",
    ),
    "no such database": ("frob://x", "frob://x needs a driver that is not there"),
    "a server of Redis": ("redis://x", "log_storage optuna.storages.journal.JournalRedisBackend"),
    "a class that is no storage": (dict, "must be a storage of Optuna, .* but got callable:dict"),
    "a number": (3, r"must be a storage of Optuna, .* but got 3 \(an integer\)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_storage(case, tmp_path):
    (tmp_path / "no_journal.txt").write_text("Call me Ishmael.\n")
    storage, message = WRONG[case]
    with pytest.raises(UserError, match=message):
        storage_place({"storage": storage}, Path("x")).open()
    assert (tmp_path / "no_journal.txt").read_text() == "Call me Ishmael.\n"


def test_half_a_line_is_taken_away_by_the_next_to_write(tmp_path):
    path = tmp_path / "j.log"
    place = storage_place({}, path)
    use(place, n=2)
    whole = path.read_bytes()
    with path.open("ab") as file:
        file.write(b'{"op_code":4,"worker')
    # Optuna itself glues its next line to it, and can read neither from then on.
    assert use(place) == 3
    assert path.read_bytes().startswith(whole)
    assert all(line.startswith(b"{") for line in path.read_bytes().splitlines())
    assert not os.path.lexists(f"{path}.lock")
    journal = JournalStorage(WholeLinesJournal(str(path)))
    assert len(journal.get_all_trials(0)) == 3
