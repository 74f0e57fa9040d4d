from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress

import pytest

from finetune_lm.interruption import Interrupted, Interruption, ctrl_c_remembered


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
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


def test_a_second_ctrl_c_stops_at_once():
    reached = []
    with pytest.raises(Interrupted) as caught, Interruption():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        reached.append(1)
        os.kill(os.getpid(), signal.SIGINT)
        reached.append(2)
    assert reached == [1]
    assert caught.value.at_once


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


def test_a_ctrl_c_that_an_import_has_caught_is_raised_again():
    with ctrl_c_remembered():
        with suppress(BaseException):  # as some imports do that try something
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(Interrupted) as caught, Interruption():
            raise AssertionError("nothing is begun")
    assert caught.value.signal_number == signal.SIGINT
    with ctrl_c_remembered(), Interruption() as interruption:
        interruption.check()


def test_ctrl_c_outside_of_a_run_is_as_usual():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), ctrl_c_remembered():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
