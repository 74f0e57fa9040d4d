"""Stop at a step's end, not in the middle of a write, when a signal asks to."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from finetune_lm.messages import say

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal asked the run to stop.

    Attributes:
        signal_number: Which signal.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number


class Interruption:
    """While entered, SIGINT (Ctrl-C) and SIGTERM wait for the next call of `check`.

    A second SIGINT stops at once. Outside of the main thread, where Python handles no signals,
    nothing is changed. One may be entered within another, which then knows of the signal as well.

    Example:
        >>> with Interruption() as interruption:
        ...     for batch in range(3):
        ...         interruption.check()
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._before: dict[int, Any] = {}

    def check(self) -> None:
        """Raise what a signal asked for since.

        Raises:
            Interrupted: If one came.
        """
        if self._received is not None:
            raise Interrupted(self._received)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
            around = getattr(handler, "__self__", None)
            if isinstance(around, Interruption) and around._received is None:
                around._received = self._received
        self._before.clear()
        if error is None:
            self.check()

    def _receive(self, number: int, _: FrameType | None) -> None:
        if self._received is not None and number == signal.SIGINT:
            raise Interrupted(number)
        if self._received is None:
            say(f"\n{signal.Signals(number).name}: stopping after this step ...")
        self._received = number
