"""Stop at a step's end, not in the middle of a write, when a signal asks to."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Self

from finetune_lm.messages import say
from finetune_lm.ranks import world
from finetune_lm.streams import let_go, tell_in_handler

# SLURM can be told to send SIGUSR1 some time before a job's end, and SIGHUP comes when a terminal
# is closed. Windows has neither.
_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")
    if hasattr(signal, name)
]

MOMENT_SECONDS = 1.0
"""Signals that come together mean one thing: a terminal and a launcher may both send theirs."""


# SIGTERM ends a process that has nothing to save yet.
_EARLY_SIGNALS = [s for s in _SIGNALS if s.name in ("SIGINT", "SIGUSR1")]

_came: list[int] = []


@contextmanager
def signals_remembered() -> Iterator[None]:
    """Let no Ctrl-C and no SIGUSR1 be lost on the way to the first `Interruption`.

    What it raises may be caught before it gets anywhere: by an import that tries something, or by
    Python itself in a callback. Then the `Interruption` raises it again.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def remember(number: int, frame: FrameType | None) -> None:
        _came.append(number)
        if number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        raise Interrupted(number)

    before = {number: signal.signal(number, remember) for number in _EARLY_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _came.clear()


class Interrupted(KeyboardInterrupt):
    """A signal asked the run to stop.

    Attributes:
        signal_number: Which signal.
        at_once: Whether it was to stop at once, in the middle of whatever it did.
        output_dir: The run's directory, if the run can be resumed from there.
    """

    def __init__(self, signal_number: int, *, at_once: bool = False) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number
        self.at_once = at_once
        self.output_dir: Path | None = None


class Interruption:
    """While entered, SIGINT (Ctrl-C), SIGTERM, SIGUSR1 and SIGHUP wait for the next `check`.

    A second SIGINT stops at once, unless it comes together with the first or while `check` saves
    what is to be saved. A signal after the last call of `check` is not heeded: all is done then. A
    SIGHUP that is ignored, as under nohup, stays so. Outside of the main thread, where Python
    handles no signals, nothing is changed. One within another hands on to it what came after its
    last call of `check`, so that a process that does several runs does not begin the next.

    Example:
        >>> with Interruption() as interruption:
        ...     for batch in range(3):
        ...         interruption.check()
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._received_at = 0.0
        self._is_told = False
        self._is_saving = False
        self._before: dict[int, Any] = {}

    @property
    def is_asked(self) -> bool:
        """Whether a signal came, to any of the ranks, which the next `check` will heed."""
        return world().agreed(self._received) is not None

    def check(self, before: Callable[[], object] = lambda: None) -> None:
        """Raise what a signal asked for since.

        Args:
            before: Called before that is raised, to save what is to be saved.

        Raises:
            Interrupted: If one came.
        """
        number = world().agreed(self._received)
        if number is None:
            return
        if not self._is_told:
            say(_told(number))
        self._is_saving = True
        try:
            before()
        finally:
            self._is_saving = False
        raise Interrupted(number)

    def __enter__(self) -> Self:
        if _came:
            raise Interrupted(_came[0])
        around = getattr(signal.getsignal(signal.SIGINT), "__self__", None)
        if isinstance(around, Interruption):
            around.check()  # what came while this one was prepared for
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                is_hangup = number == getattr(signal, "SIGHUP", None)
                if is_hangup and signal.getsignal(number) is signal.SIG_IGN:
                    continue
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        around = getattr(self._before.get(self._received or 0), "__self__", None)
        if isinstance(around, Interruption) and error is None:
            around._received = self._received
        self._before.clear()

    def _receive(self, number: int, _: FrameType | None) -> None:
        # Nothing is printed here: the signal may have come in the middle of a print.
        if self._received is None:
            self._received, self._received_at = number, time.monotonic()
            # Of several ranks the first tells it.
            self._is_told = not world().is_first or tell_in_handler(f"\n{_told(number)}")
        elif (
            number == signal.SIGINT
            and not self._is_saving
            and time.monotonic() - self._received_at > MOMENT_SECONDS
        ):
            raise Interrupted(number, at_once=True)
        let_go()


def _told(number: int) -> str:
    return f"{signal.Signals(number).name}: stopping after this step ..."
