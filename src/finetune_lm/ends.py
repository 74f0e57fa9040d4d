"""Why the processes that make one run together end, which they tell each other in a store.

It is reached by each of them alone, so it tells of one that answers no messages any more.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from finetune_lm.errors import OtherRankError, UserError

_SECONDS = 3.0
"""How long to wait for a rank to have said something."""


class Ends:
    """What one rank tells the others of its end, and is told of theirs.

    Args:
        store: What they all reach.
        rank: This one.
        size: How many there are.
    """

    def __init__(self, store: Any, rank: int, size: int) -> None:
        self._store = store
        self._rank = rank
        self._all = range(size)
        self._n_stops = 0
        self._tell("place", {"host": socket.gethostname(), "pid": os.getpid()})

    def all_have_stopped(self) -> bool:
        """See `World.all_have_stopped`."""
        self._n_stops += 1  # a study goes on behind some errors
        here = f"stop {self._n_stops}"
        with suppress(RuntimeError):
            self._tell(here, {})
            for _ in _moments():
                if any(self._told("end", rank) is not None for rank in self._all):
                    return False
                if all(self._told(here, rank) is not None for rank in self._all):
                    return True
        return False

    def why(self) -> OtherRankError:
        """Which rank has ended the run, and what it has said of it."""
        others = [rank for rank in self._all if rank != self._rank]
        try:
            self._tell("here", {})
            lost = None
            for _ in _moments():
                # Whoever has ended has said why by then, unless it was killed.
                ended = [rank for rank in others if self._has_ended(rank)]
                lost = next((rank for rank in ended if self._told("end", rank) is None), None)
                if lost is not None:
                    break
                for rank in others:
                    if (end := self._told("end", rank)) is not None:
                        return OtherRankError(rank, end["text"], end["status"])
            if lost is None:
                lost = next((r for r in others if self._told("here", r) is None), others[0])
            place = self._told("place", lost) or {}
            where = f" (process {place['pid']} on {place['host']})" if place else ""
        except RuntimeError:  # what they all reach is gone, which as a rule is with the first
            lost, where = 0, ""
        return OtherRankError(
            lost, f"the process{where} is gone. It was killed, by hand or for want of memory."
        )

    def tell(self, error: BaseException) -> None:
        """Let the other ranks know that this one ends, and why."""
        status = 128 + getattr(error, "signal_number", 2)
        if isinstance(error, Exception):
            status = getattr(error, "exit_status", 1)
        with suppress(RuntimeError):
            self._tell("end", {"text": told_as(error), "status": status})

    def is_told_by_first(self, error: BaseException) -> bool:
        """Whether the first rank tells the user of an error that has ended this one."""
        if isinstance(error, OtherRankError) and error.rank == 0:
            # Somebody must, where it cannot.
            return error.is_said or self._rank > 1
        with suppress(RuntimeError):
            for _ in _moments():
                if (first := self._told("end", 0)) is not None:
                    # Of what is no user's mistake it knows the reason, not where it arose.
                    return isinstance(error, UserError) or bool(first["text"] == told_as(error))
        return False

    def _tell(self, what: str, value: dict[str, Any]) -> None:
        self._store.set(f"{what}/{self._rank}", json.dumps(value))

    def _told(self, what: str, rank: int) -> dict[str, Any] | None:
        """What a rank has told the others; None if it has not."""
        key = f"{what}/{rank}"
        if not self._store.check([key]):
            return None
        told: dict[str, Any] = json.loads(self._store.get(key))
        return told

    def _has_ended(self, rank: int) -> bool:
        """Whether the process of a rank on this machine is there no more."""
        import psutil

        place = self._told("place", rank)
        if place is None or place["host"] != socket.gethostname():
            return False
        try:
            return bool(psutil.Process(place["pid"]).status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True


def _moments() -> Iterator[None]:
    """The moments at which to look whether somebody has said something, until it takes too long."""
    until = time.monotonic() + _SECONDS
    while time.monotonic() < until:
        yield
        time.sleep(0.05)


def told_as(error: BaseException) -> str:
    """What the others are told of an error."""
    kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    return f"{kind}{error}"
