"""A run of the command line that writes down when it comes by some of its points.

It is no callback, which processes could not divide an update for. ``CLOCK_POINTS`` has the points
and ``CLOCK_FILE`` the file: each line is the time, and how much of it went into messages by then,
in seconds. Of several processes the first writes. Messages are the sums of gradients and all else
that processes tell each other, with the time in which one waits for another.

    CLOCK_POINTS="end_epoch" CLOCK_FILE=times.jsonl python -m run_clock --model_name_or_path ...
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetune_lm.cli import main
from finetune_lm.model_modifiers.callbacks import Callbacks
from finetune_lm.ranks import world
from finetune_lm.training.divided_updates import DividedUpdates

_told: dict[str, Any] = {"seconds": 0.0, "depth": 0, "is_counted": False}


def _clocked(run: Callable[..., None]) -> Callable[..., None]:
    points, file = os.environ["CLOCK_POINTS"].split(), Path(os.environ["CLOCK_FILE"])

    def clocked(self: Callbacks, hook: str, *at: Any) -> None:
        if not _told["is_counted"] and world().size > 1:
            _told["is_counted"] = True
            for owner, name in (
                (world(), "gather"),
                (world(), "add_up"),
                (DividedUpdates, "add_up"),
            ):
                setattr(owner, name, _counted(getattr(owner, name)))
        run(self, hook, *at)
        if hook in points and world().is_first:
            with file.open("a", encoding="utf-8") as lines:
                print(json.dumps([time.perf_counter(), _told["seconds"]]), file=lines)

    return clocked


def _counted(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose time counts, unless it is called by another such one."""

    def call(*args: Any) -> Any:
        begun = time.perf_counter()
        _told["depth"] += 1
        try:
            return function(*args)
        finally:
            _told["depth"] -= 1
            if not _told["depth"]:
                _told["seconds"] += time.perf_counter() - begun

    return call


if __name__ == "__main__":
    Callbacks.run = _clocked(Callbacks.run)  # type: ignore[method-assign]
    sys.exit(main())
