"""What a run says may be lost: nobody reads it any more, or the disk is full. The run goes on."""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

BROKEN = (OSError, ValueError, RuntimeError)
"""Of a stream: full or without a reader, closed, and in the middle of another write."""


class _LetGo(Exception):  # noqa: N818 - no error
    """A signal came while a write waited for a terminal that is stopped."""


class LossyStream:
    """A stream that loses what cannot be written, so that whoever writes need not care.

    Args:
        stream: Where it goes; None if it was closed when the process began.
    """

    _waiting: LossyStream | None = None

    def __init__(self, stream: Any) -> None:
        self._is_missing = stream is None
        self._is_given_up = False
        self._stream = Path(os.devnull).open("w") if stream is None else stream  # noqa: SIM115

    def write(self, text: str) -> int:
        """Write what can be written."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush what can be flushed."""
        self._try(self._stream.flush)

    def deliver(self, text: str) -> None:
        """Write what must arrive.

        Raises:
            OSError: If it cannot be written.
            ValueError: Likewise, also if the stream has no such characters.
        """
        if self._is_missing:
            raise ValueError("it is closed")
        self._stream.write(text)
        self._stream.flush()

    def isatty(self) -> bool:
        """Whether a person reads along."""
        with suppress(*BROKEN):
            return bool(self._stream.isatty())
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def is_lost(self) -> bool:
        """Whether something waits in it that cannot be written."""
        return self._is_given_up or not self._try(self._stream.flush)

    def _try(self, write: Callable[[], Any]) -> bool:
        """Do it if that is possible. Returns whether it was."""
        if self._is_given_up:
            return False
        # Python handles signals in the main thread only.
        is_main = threading.current_thread() is threading.main_thread()
        try:
            if is_main:
                LossyStream._waiting = self
            write()
        except _LetGo:
            self._is_given_up = True
            return False
        except BROKEN:
            return False
        finally:
            if is_main:
                LossyStream._waiting = None
        return True


def lossy(stream: Any) -> LossyStream:
    """A stream as one that may lose what is written."""
    return stream if isinstance(stream, LossyStream) else LossyStream(stream)


@contextmanager
def lossy_streams(*names: str) -> Iterator[None]:
    """Make ``sys.stdout``, ``sys.stderr`` or both lossy for a while."""
    before = {name: getattr(sys, name) for name in names}
    mine = {name: lossy(stream) for name, stream in before.items()}
    for name, stream in mine.items():
        setattr(sys, name, stream)
    try:
        yield
    finally:
        for name, stream in mine.items():
            if getattr(sys, name) is stream:
                setattr(sys, name, before[name])


def let_go() -> None:
    """In a signal handler: give up a write that the main thread waits in, and that stream.

    The run can then end as the signal asks it to.
    """
    if LossyStream._waiting is not None:
        raise _LetGo


def tell_in_handler(message: str) -> bool:
    """Say something in a signal handler, where a write may be under way, without waiting.

    Returns:
        Whether it was said.
    """
    # Where there is no descriptor, as in notebooks, or none that can be asked, nothing is said.
    with suppress(*BROKEN, AttributeError):
        descriptor = sys.stderr.fileno()
        if select.select([], [descriptor], [], 0)[1]:
            os.write(descriptor, f"{message}\n".encode())
            return True
    return False


def fill_closed_descriptors() -> None:
    """Lead the three standard descriptors nowhere where they are closed.

    The next file that is opened would take their place, and what libraries complain of would be
    written into it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def forget_what_is_lost() -> None:
    """Lead standard streams nowhere that cannot be written to.

    Python would try once more when it ends, and make 120 of the exit status.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        with suppress(*BROKEN, AttributeError):
            if lossy(stream).is_lost():
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)
