from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from finetune_lm.errors import UserError
from finetune_lm.runs.lock import LOCK, RunLock


def test_it_names_its_holder_and_is_gone_afterwards(tmp_path):
    with RunLock(tmp_path):
        holder = json.loads((tmp_path / LOCK).read_text())
        assert holder == {"pid": os.getpid(), "host": socket.gethostname()}
        with (
            pytest.raises(
                UserError, match=f"two runs at a time, but process {os.getpid()} on .* is writing"
            ),
            RunLock(tmp_path),
        ):
            pass
    assert list(tmp_path.iterdir()) == []
    with RunLock(tmp_path):
        pass


HOLDER = """
import sys, time
from pathlib import Path
from finetune_lm.runs.lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(600)
"""


def hold(directory):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(directory)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "locked\n"
    return process


def test_a_process_that_was_killed_leaves_no_obstacle(tmp_path):
    process = hold(tmp_path)
    with pytest.raises(UserError, match=f"process {process.pid} on"), RunLock(tmp_path):
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (tmp_path / LOCK).exists()
    with RunLock(tmp_path):
        pass


def test_a_killed_process_of_another_computer_is_no_obstacle(tmp_path):
    (tmp_path / LOCK).write_text(json.dumps({"pid": 1, "host": "node17"}))
    with RunLock(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["host"] == socket.gethostname()


@pytest.fixture(params=[errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS])
def without_locks(request, monkeypatch):
    """A file system that has no locks, or a network one whose server gives none."""

    def refuse(*_):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.usefixtures("without_locks")
def test_a_file_system_without_locks(tmp_path):
    message = r"may be writing into it\. If that has ended, remove"
    with RunLock(tmp_path), pytest.raises(UserError, match=message):
        RunLock(tmp_path).__enter__()
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.communicate()
    here = socket.gethostname()
    (tmp_path / LOCK).write_text(json.dumps({"pid": process.pid, "host": here}))
    with RunLock(tmp_path):
        pass
    (tmp_path / LOCK).write_text(json.dumps({"pid": process.pid, "host": "node17"}))
    with pytest.raises(UserError, match=r"process .* on node17 may be writing into it"):
        RunLock(tmp_path).__enter__()
    (tmp_path / LOCK).write_text(json.dumps({"pid": "x", "host": here}))
    with RunLock(tmp_path):
        pass


@pytest.mark.parametrize("content", ["", "{", "[]", "\0\0", '{"pid": "x"}'])
def test_whatever_is_in_the_file(tmp_path, content):
    (tmp_path / LOCK).write_text(content)
    with RunLock(tmp_path), pytest.raises(UserError, match=f"process {os.getpid()}"):
        RunLock(tmp_path).__enter__()


def test_a_directory_that_is_gone_by_the_end(tmp_path):
    place = tmp_path / "out"
    place.mkdir()
    with RunLock(place):
        place.rename(tmp_path / "elsewhere")


def test_a_directory_that_cannot_be_written_into(tmp_path):
    with pytest.raises(
        UserError, match=r"output_dir must be a directory but there is no .*nowhere"
    ):
        RunLock(tmp_path / "nowhere").__enter__()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / LOCK).mkdir()
    with pytest.raises(UserError, match=r"output_dir must be writable but .* is not: Is a direct"):
        RunLock(tmp_path).__enter__()


def test_a_file_that_is_removed_while_it_is_waited_for(tmp_path, monkeypatch):
    """Its holder ends between our opening the file and locking it: the lock is on no file then."""
    flock, calls = fcntl.flock, []

    def removed_in_between(handle, how):
        if how & fcntl.LOCK_EX:
            calls.append(1)
        if len(calls) == 1:
            (tmp_path / LOCK).unlink()
        flock(handle, how)

    monkeypatch.setattr(fcntl, "flock", removed_in_between)
    with RunLock(tmp_path):
        assert len(calls) == 2
        assert (tmp_path / LOCK).exists()
