"""Of several ranks the first knows what comes next; the others are told, and do it with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from finetune_lm.errors import GivenUpError
from finetune_lm.ranks import world
from finetune_lm.runs.interruption import Interruption


@dataclass(frozen=True)
class End:
    """Nothing comes any more.

    Attributes:
        result: What came of all.
    """

    result: Any = None


@dataclass(frozen=True)
class _Moment:
    """Nothing has come yet; each says whether a signal has come to it."""


def tell(message: Any) -> None:
    """Let the other ranks know what comes next. There may be none."""
    _told(lambda: message)


def check_signals(interruption: Interruption) -> None:
    """Raise what a signal to any of the ranks asked for, in all of them, between two messages.

    Raises:
        Interrupted: If one came.
    """
    tell(_Moment())
    interruption.check()


def follow(do: Callable[[Any, Interruption], None]) -> Any:
    """Do what the first rank tells, to the end.

    Args:
        do: Called with each message and with what knows whether there is to be an end.

    Returns:
        What came of all.

    Raises:
        Interrupted: If a signal came.
        OtherRankError: If another rank has ended.
    """
    with Interruption() as interruption:
        while True:
            message = _told(_unasked)
            if isinstance(message, End):
                return message.result
            if isinstance(message, _Moment):
                interruption.check()
            else:
                do(message, interruption)


def attempt(do: Callable[[], object]) -> None:
    """Do with the first rank what may go wrong, which is the first rank's to tell.

    Raises:
        OtherRankError: If another rank has ended.
        GivenUpError: If another rank has given up something around it.
    """
    try:
        world().attempt(do)
    except Exception as error:
        if world().ends_more(error):
            raise


def _told(decide: Callable[[], Any]) -> Any:
    while True:
        try:
            return world().decided(decide)
        except GivenUpError as error:
            world().pass_over(error)


def _unasked() -> Any:
    raise AssertionError("only the first rank knows.")
