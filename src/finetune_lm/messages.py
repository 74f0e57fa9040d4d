"""What a run has to say beside its progress bars."""

from __future__ import annotations

import sys

from finetune_lm.arguments.redaction import without_token


def say(message: str) -> None:
    """Print a line on stderr, so that stdout stays free for results. Secrets are left out."""
    print(without_token(message), file=sys.stderr)  # noqa: T201


def warn(message: str) -> None:
    """Say something that the user should look at."""
    say(f"warning: {message}")


_said: set[str] = set()


def say_once(message: str) -> None:
    """Say something that is true of the whole process, the first time only."""
    if message not in _said:
        _said.add(message)
        say(message)
