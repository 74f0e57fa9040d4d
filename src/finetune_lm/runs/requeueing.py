"""Whether a job of SLURM gets anywhere in its time, or is queued again for nothing."""

from __future__ import annotations

import os
import signal

_kept: list[bool] = []


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
