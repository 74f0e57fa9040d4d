"""What a run has to say beside its progress bars."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from finetune_lm.arguments.redaction import without_token
from finetune_lm.streams import lossy

_is_silent = False


@contextmanager
def silent() -> Iterator[None]:
    """Say nothing inside, where another process says it; nor do libraries, short of errors."""
    global _is_silent
    before, _is_silent = _is_silent, True
    below = logging.root.manager.disable
    logging.disable(max(below, logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        _is_silent = before
        logging.disable(below)


def in_its_mode(mode: str | None) -> str:
    """Behind a word, the mode of a model that has two; nothing of one that has one."""
    return "" if mode is None else f" in the {mode} mode"


def say(message: str) -> None:
    """Print a line on stderr, so that stdout stays free for results. Secrets are left out.

    It is lost where it cannot be printed.
    """
    if _is_silent:
        return
    lossy(sys.stderr).write(f"{without_token(message)}\n")


def warn(message: str) -> None:
    """Say something that the user should look at."""
    say(f"warning: {message}")


_said: set[str] = set()


def say_once(message: str) -> None:
    """Say something that is true of the whole process, the first time only."""
    if message not in _said:
        _said.add(message)
        say(message)


def forget_what_was_said() -> None:
    """Say it again when it is true of the next run."""
    _said.clear()
