"""Whether a job of SLURM gets anywhere in its time, or is queued again for nothing."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from finetune_lm.launching import launched

STATUS_FILE = "FINETUNE_LM_STATUS_FILE"
"""The variable that names a file for the exit status, which a launcher of several does not pass."""

_kept: list[bool] = []


def leave_status(status: int) -> None:
    """Put the exit status of this process where the script of a job looks for it.

    Of several processes that do the same the first does that.
    """
    path = os.environ.get(STATUS_FILE)
    if path and launched()[0] == 0:
        with suppress(OSError):
            Path(path).write_text(f"{status}\n", encoding="utf-8")


def something_is_kept() -> None:
    """Say that this process has done something that none after it has to do again."""
    _kept[:] = [True]


def begin_session() -> None:
    """Say that this process has done nothing yet."""
    _kept.clear()


def is_in_vain(interrupt: KeyboardInterrupt) -> bool:
    """Whether a job's time was up for nothing.

    That is so of one that was queued again before, and so had all of its time, with nothing to keep
    in the end. The first time may have gone into downloading a model, which is there the next.
    """
    time_is_up = getattr(signal, "SIGUSR1", None)
    return (
        time_is_up is not None
        and getattr(interrupt, "signal_number", None) == time_is_up
        and os.environ.get("SLURM_RESTART_COUNT", "0") not in ("", "0")
        and not _kept
    )


IN_VAIN = (
    "a job's --time must suffice for a training step, a test or a trial, but in all of it nothing "
    "was finished that could be kept."
)
"""Why a job is not queued again."""
