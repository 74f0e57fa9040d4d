from __future__ import annotations

import json
import os
import signal
import sys
import threading
from contextlib import suppress

import pytest

import finetune_lm
from finetune_lm.runs import interruption
from finetune_lm.runs.interruption import Interrupted, Interruption, signals_remembered
from finetune_lm.runs.record import RunRecord
from setups import arguments, setup

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP]


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """A clock that a test moves."""
    now = [100.0]
    monkeypatch.setattr(interruption.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_waits_for_the_end_of_the_step(number, capsys):
    steps = []
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as caught, Interruption() as interruption:  # noqa: PT012
        for step in range(5):
            if step == 1:
                os.kill(os.getpid(), number)
            steps.append(step)
            interruption.check()
    assert steps == [0, 1]
    assert caught.value.signal_number == number
    assert f"{number.name}: stopping after this step" in capsys.readouterr().err
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_stops_at_once(clock):
    reached = []
    with pytest.raises(Interrupted) as caught, Interruption():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        reached.append(1)
        clock[0] += 2
        os.kill(os.getpid(), signal.SIGINT)
        reached.append(2)
    assert reached == [1]
    assert caught.value.at_once


@pytest.mark.parametrize("first", SIGNALS)
@pytest.mark.parametrize("second", SIGNALS)
def test_a_second_signal_a_moment_after_the_first(clock, first, second):
    """A launcher passes on what the terminal has sent to both."""
    saved = []

    def save():
        clock[0] += 60
        signal.raise_signal(second)
        saved.append(1)

    with pytest.raises(Interrupted) as caught, Interruption() as waiting:  # noqa: PT012
        signal.raise_signal(first)
        clock[0] += 0.3
        signal.raise_signal(second)
        waiting.check(before=save)
    assert saved == [1]
    assert not caught.value.at_once
    assert caught.value.signal_number == first


def test_a_hangup_that_is_ignored_stays_so():
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption() as waiting:
            signal.raise_signal(signal.SIGHUP)
            waiting.check()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_it_is_told_at_once_where_that_disturbs_nothing(monkeypatch, capfd):
    monkeypatch.setattr(interruption, "say", lambda message: pytest.fail("it is told twice"))
    monkeypatch.setattr(sys, "stderr", os.fdopen(os.dup(2), "w"))
    with pytest.raises(Interrupted), Interruption() as waiting:  # noqa: PT012
        signal.raise_signal(signal.SIGHUP)
        assert "SIGHUP: stopping after this step" in capfd.readouterr().err
        waiting.check()


def test_what_is_to_be_saved_is_saved_before_the_run_stops():
    saved = []
    with Interruption() as interruption:
        interruption.check(before=lambda: saved.append("too early"))
        os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(Interrupted) as caught:
            interruption.check(before=lambda: saved.append("now"))
    assert saved == ["now"]
    assert not caught.value.at_once


def test_a_signal_after_the_last_step_does_not_undo_what_is_finished():
    before = signal.getsignal(signal.SIGTERM)
    with Interruption():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_other_threads_are_left_alone():
    seen = []

    def run():
        with Interruption() as interruption:
            interruption.check()
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)]


def test_one_within_another_leaves_it_alone_without_a_signal():
    with Interruption() as outer:
        with Interruption() as inner:
            inner.check()
        outer.check()


def test_what_came_before_the_inner_one_was_there_is_heeded():
    with Interruption():
        signal.raise_signal(signal.SIGUSR1)
        with pytest.raises(Interrupted) as caught, Interruption():
            raise AssertionError("nothing is begun")
    assert caught.value.signal_number == signal.SIGUSR1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1])
def test_a_signal_that_an_import_has_caught_is_raised_again(number):
    with signals_remembered():
        with suppress(BaseException):  # as some imports do that try something
            signal.raise_signal(number)
        with pytest.raises(Interrupted) as caught, Interruption():
            raise AssertionError("nothing is begun")
    assert caught.value.signal_number == number
    with signals_remembered(), Interruption() as interruption:
        interruption.check()


def test_ctrl_c_outside_of_a_run_is_as_usual():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), signals_remembered():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


class Stop:
    """A callback that asks the run to stop."""

    def __init__(self, model, tokenizer):
        pass

    def __call__(self, epoch, batch):
        signal.raise_signal(signal.SIGTERM)


def test_signals_wait_until_it_is_on_record_how_the_run_ended(tmp_path, monkeypatch):
    """A second SIGTERM while the best model is saved, say, would kill the process."""

    def end(self, *args, original=RunRecord.end):
        signal.raise_signal(signal.SIGTERM)
        original(self, *args)

    monkeypatch.setattr(RunRecord, "end", end)
    out = tmp_path / "out"
    model, data = arguments(*setup("lm", output_dir=str(out), test_file=None))
    model.model_callbacks = {"post_train_batch": [Stop]}
    with pytest.raises(Interrupted) as caught:
        finetune_lm.run(model, data)
    assert caught.value.output_dir == out
    assert json.loads((out / "run.json").read_text())["state"] == "interrupted"
