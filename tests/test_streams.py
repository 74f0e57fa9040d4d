"""Streams that break in every way: what a run says is lost, the run is not."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import threading
from pathlib import Path

import pytest
from tqdm import tqdm

import finetune_lm
from finetune_lm.cli import main
from finetune_lm.messages import say
from finetune_lm.runs.interruption import Interrupted, Interruption
from finetune_lm.streams import LossyStream, fill_closed_descriptors, lossy_streams
from setups import arguments, setup


class Broken(io.TextIOBase):
    """A stream that nothing can be written to."""

    def __init__(self, error):
        self.error = error

    def write(self, text):
        raise self.error

    def flush(self):
        raise self.error


def without_reader():
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w", buffering=1)


def on_a_full_disk():
    return open("/dev/full", "w", buffering=1)  # noqa: PTH123


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


BROKEN = {
    "closed at the start": lambda: None,
    "closed": closed,
    "without a reader": without_reader,
    "full": on_a_full_disk,
    "a terminal that is gone": lambda: Broken(OSError(errno.EIO, "Input/output error")),
    "in the middle of a write": lambda: Broken(RuntimeError("reentrant call inside")),
    "not ready": lambda: Broken(BlockingIOError(errno.EAGAIN, "again")),
}


@pytest.fixture(params=BROKEN)
def broken(request, tmp_path, monkeypatch):
    """A stream that is broken, in one of the ways."""
    if request.param == "full" and not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    monkeypatch.chdir(tmp_path)
    return BROKEN[request.param]()


def test_a_message_is_lost(broken, monkeypatch):
    monkeypatch.setattr(sys, "stdout", broken)
    monkeypatch.setattr(sys, "stderr", broken)
    say("so")
    with lossy_streams("stdout", "stderr"):
        print("so")
        sys.stderr.writelines(["s", "o"])
        sys.stderr.flush()
        assert not sys.stderr.isatty()
        for _ in tqdm(range(3), mininterval=0, dynamic_ncols=True):
            pass
    assert sys.stderr is broken


class Chatty:
    """A callback of a user who prints."""

    n_calls = 0

    def __init__(self, model, tokenizer):
        pass

    def __call__(self, epoch, batch):
        print(epoch, batch)
        sys.stdout.flush()
        type(self).n_calls += 1


class BrokenInEveryWay(Broken):
    """A stream that breaks in another way each time."""

    def __init__(self):
        self.n_times = 0

    @property
    def error(self):
        self.n_times += 1
        each = [OSError(errno.ENOSPC, "full"), BrokenPipeError(), RuntimeError(), ValueError()]
        return each[self.n_times % len(each)]


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_run_goes_on(monkeypatch, tmp_path, is_terminal):
    monkeypatch.chdir(tmp_path)
    changed = {"epochs": 2, "checkpoint_every": 0, "max_train_samples": 4}
    model, data = arguments(*setup("lm", output_dir="out", **changed))
    model.model_callbacks = {"post_train_batch": [Chatty]}
    stderr = BrokenInEveryWay()
    monkeypatch.setattr(BrokenInEveryWay, "isatty", lambda self: is_terminal, raising=False)
    monkeypatch.setattr(Chatty, "n_calls", 0)
    monkeypatch.setattr(sys, "stdout", without_reader())
    monkeypatch.setattr(sys, "stderr", stderr)
    result = finetune_lm.run(model, data)
    assert Chatty.n_calls == 2
    assert stderr.n_times > 4  # each way
    assert len(result.metrics)
    assert len(result.test_results)


@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["--help", "epochs"]])
def test_what_was_asked_for_must_arrive(broken, argv, monkeypatch):
    said = io.StringIO()
    monkeypatch.setattr(sys, "stdout", broken)
    monkeypatch.setattr(sys, "stderr", said)
    assert main(argv) == 2
    [line] = said.getvalue().splitlines()
    assert line.startswith("finetune-lm: error: stdout cannot be written to: ")


def test_a_mistake_with_nobody_to_tell_has_its_status(broken, monkeypatch):
    monkeypatch.setattr(sys, "stderr", broken)
    assert main([]) == 2
    assert main(["--epochs", "x"]) == 2


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_stdout_without_the_characters(encoding, monkeypatch):
    argv = ["--model_name_or_path", "책", "--test_file", "책.txt"]
    said, stdout = io.StringIO(), io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setattr(sys, "stderr", said)
    assert main([*argv, "--print_config"]) == 2
    assert said.getvalue() == (
        f"finetune-lm: error: stdout must take every character but is in {encoding}. Set "
        f"PYTHONIOENCODING=utf-8.\n"
    )
    assert stdout.buffer.getvalue() == b""
    # What has no such characters is printed.
    assert main(["--help"]) == 0
    assert b"--train_file" in stdout.buffer.getvalue()


def test_the_end_of_python_does_not_try_again(monkeypatch):
    """It would make 120 of the exit status, whatever came of the run."""
    with on_a_full_disk() as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        assert main(["--help"]) == 2
        stream.flush()


def test_a_closed_descriptor_is_not_given_to_the_next_file(tmp_path):
    before = os.dup(2)
    try:
        os.close(2)
        fill_closed_descriptors()
        with (tmp_path / "table").open("w") as file:
            assert file.fileno() > 2
    finally:
        os.dup2(before, 2)
        os.close(before)


class Terminal(io.StringIO):
    """A terminal into whose writes signals come."""

    def __init__(self, *numbers):
        super().__init__()
        self.numbers = list(numbers)
        self.is_writing = False

    def write(self, text):
        if self.is_writing:
            raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stderr>'>")
        self.is_writing = True
        try:
            if self.numbers:
                signal.raise_signal(self.numbers.pop(0))
            return super().write(text)
        finally:
            self.is_writing = False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_in_the_middle_of_a_print(number, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal(number))
    saved = []
    with pytest.raises(Interrupted) as caught, lossy_streams("stderr"), Interruption() as waiting:  # noqa: PT012
        say("a step")
        waiting.check(before=lambda: saved.append(1))
    assert saved == [1]
    assert caught.value.signal_number == number


def test_a_signal_while_a_print_waits_for_a_terminal_that_is_stopped(monkeypatch):
    """The state is saved, and nothing waits for the terminal any more."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, bytes(4096))
    except BlockingIOError:
        os.set_blocking(writer, True)
    terminal = os.fdopen(writer, "w", buffering=1)
    monkeypatch.setattr(sys, "stderr", terminal)
    is_over = threading.Event()

    def insist():
        while not is_over.wait(0.01):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)

    thread = threading.Thread(target=insist)
    saved = []
    with pytest.raises(Interrupted), lossy_streams("stderr"), Interruption() as waiting:  # noqa: PT012
        thread.start()
        try:
            say("a step")
            say("another")
            waiting.check(before=lambda: saved.append(1))
        finally:
            is_over.set()
            thread.join()
    assert saved == [1]
    os.read(reader, 2**20)
    terminal.close()
    os.close(reader)


def test_what_can_be_written_is_written_as_it_is():
    stream = io.StringIO()
    lossy = LossyStream(stream)
    print("책", file=lossy)
    lossy.deliver("so")
    assert stream.getvalue() == "책\nso"
    assert not lossy.is_lost()
