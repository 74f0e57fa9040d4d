"""A callback that waits, so that a test can do something at a certain step."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class WaitForSignal:
    """Waits for SIGUSR1 or SIGTERM, once at each step that WAIT_AT names, behind a directory.

    A file ``go`` in the directory does it too. It makes a file there when it waits, and leaves a
    step alone whose file is there, or all if there is no directory. Variables in the name stand for
    what they are. A test that has died is not waited for.

    Example:
        >>> os.environ["WAIT_AT"] = "waits/$SLURM_ARRAY_TASK_ID:0.1,1.0"  # files 0.1 and 1.0
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._received: list[int] = []

    def __call__(self, epoch: int, batch: int) -> None:
        directory, _, steps = os.path.expandvars(os.environ.get("WAIT_AT", "")).rpartition(":")
        place = Path(directory, f"{epoch}.{batch}")
        if place.name not in steps.split(",") or place.exists() or not place.parent.is_dir():
            return
        before = {number: self._note(number) for number in (signal.SIGUSR1, signal.SIGTERM)}
        place.touch()
        parent = os.getppid()
        go = place.with_name("go")
        while not (self._received or go.exists()) and os.getppid() == parent:
            time.sleep(0.02)
        for number, handler in before.items():
            signal.signal(number, handler)

    def _note(self, number: int) -> Any:
        """Have a signal noted and then handled as it is; returns how that is."""
        before: Callable[..., Any] = signal.getsignal(number)  # type: ignore[assignment]

        def note(number: int, frame: Any) -> None:
            self._received.append(number)
            before(number, frame)

        return signal.signal(number, note)
