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

from finetune_lm.errors import GivenUpError, OtherRankError, UserError

_SECONDS = 3.0
"""How long to wait for a rank to have said something."""

_SECONDS_OF_WORK = 600.0
"""How long to wait for one that may be at work and hears of nothing, as while it loads a model."""


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
        self._n_meetings = 0
        self._tell("place", {"host": socket.gethostname(), "pid": os.getpid()})

    def all_have_stopped(self) -> bool:
        """See `World.all_have_stopped`."""
        here = f"stop {self._n_meetings}"
        with suppress(RuntimeError):
            self._tell(here, {})
            for _ in _moments(_SECONDS):
                ends = ("end", self._given_up)
                if any(self._told(end, rank) is not None for end in ends for rank in self._all):
                    return False
                if all(self._told(here, rank) is not None for rank in self._all):
                    return True
        return False

    @property
    def _others(self) -> list[int]:
        return [rank for rank in self._all if rank != self._rank]

    @property
    def _given_up(self) -> str:
        return f"given up {self._n_meetings}"

    def explained(self, error: Exception) -> Exception:
        """Why another rank does not answer, if that is what an error is about; else the error."""
        from torch.distributed import DistError

        is_gloo = type(error) is RuntimeError and "gloo" in str(error)
        return self.why() if is_gloo or isinstance(error, DistError) else error

    def why(self) -> OtherRankError | GivenUpError:
        """Which rank has ended the run or given up what all did, and what it has said of it."""
        others, here = self._others, f"here {self._n_meetings}"
        try:
            self._tell(here, {})
            for _ in _moments(_SECONDS):
                # Whoever has ended has said why by then, unless it was killed.
                ended = [rank for rank in others if self._has_ended(rank)]
                lost = next((rank for rank in ended if self._told("end", rank) is None), None)
                if lost is not None:
                    return self._gone(lost)
                for rank in others:
                    if (error := self._said_by(rank)) is not None:
                        return error
            lost = next((r for r in others if self._told(here, r) is None), others[0])
            return self._gone(lost)
        except RuntimeError:  # what they all reach is gone, which as a rule is with the first
            return _gone(0)

    def give_up(self, depth: int, reason: str | None) -> None:
        """Let the other ranks know that this one gives up what all are doing.

        Args:
            depth: In what: 1 for the outermost of what is given up by all together.
            reason: Why; None if another one has said so.
        """
        with suppress(RuntimeError):
            self._tell(self._given_up, {"depth": depth, "text": reason})

    def meet(self, *, is_heard: bool) -> bool:
        """Wait until all ranks have given up what they were doing.

        Args:
            is_heard: Whether this rank has hung up so that the others notice.

        Returns:
            Whether they have.

        Raises:
            OtherRankError: If one has ended instead.
        """
        here = f"meeting {self._n_meetings}"
        missing = self._others
        try:
            self._tell(here, {})
            for _ in _moments(_SECONDS_OF_WORK if is_heard else _SECONDS):
                missing = [rank for rank in missing if self._told(here, rank) is None]
                if not missing:
                    self._n_meetings += 1
                    return True
                for rank in missing:
                    if isinstance(error := self._said_by(rank), OtherRankError):
                        raise error
                    if self._has_ended(rank) and self._told("end", rank) is None:
                        raise self._gone(rank)
            return False
        except RuntimeError:
            raise _gone(0) from None

    def _said_by(self, rank: int) -> OtherRankError | GivenUpError | None:
        """What a rank has said of its end, or of what it gives up."""
        if (ended := self._told("end", rank)) is not None:
            return OtherRankError(ended["rank"], ended["text"], ended["status"])
        said = self._told(self._given_up, rank)
        if said is None or said["text"] is None:
            return None
        return GivenUpError(f"rank {rank}: {said['text']}", said["depth"])

    def _gone(self, rank: int) -> OtherRankError:
        place = self._told("place", rank)
        return _gone(rank, f" ({place['pid']} on {place['host']})" if place else "")

    def tell(self, error: BaseException) -> None:
        """Let the other ranks know that this one ends, and why."""
        status: int | None = 128 + getattr(error, "signal_number", 2)
        if isinstance(error, Exception):
            status = getattr(error, "exit_status", 1)
        rank, text = self._rank, told_as(error)
        if isinstance(error, OtherRankError):
            # Whoever hears of it from this rank is to name the one that has gone wrong.
            rank, text = error.rank, error.reason
            status = status if error.is_said else None
        with suppress(RuntimeError):
            self._tell("end", {"rank": rank, "text": text, "status": status})

    def is_told_by_first(self, error: BaseException) -> bool:
        """Whether the first rank tells the user of an error that has ended this one."""
        if isinstance(error, OtherRankError) and error.rank == 0:
            # Somebody must, where it cannot.
            return error.is_said or self._rank > 1
        with suppress(RuntimeError):
            for _ in _moments(_SECONDS):
                if (first := self._told("end", 0)) is not None:
                    # Of what is no user's mistake it knows the reason, not where it arose.
                    its_own = (first["rank"], first["text"]) == (0, told_as(error))
                    return isinstance(error, UserError) or its_own
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


def _gone(rank: int, where: str = "") -> OtherRankError:
    return OtherRankError(
        rank, f"the process{where} is gone. It was killed, by hand or for want of memory."
    )


def _moments(seconds: float) -> Iterator[None]:
    """The moments at which to look whether somebody has said something, until it takes too long."""
    until, pause = time.monotonic() + seconds, 0.01
    while time.monotonic() < until:
        yield
        time.sleep(pause)
        pause = min(2 * pause, 0.05)


def told_as(error: BaseException) -> str:
    """What the others are told of an error."""
    kind = "" if isinstance(error, UserError) else type(error).__name__
    return ": ".join(filter(None, [kind, str(error)]))
