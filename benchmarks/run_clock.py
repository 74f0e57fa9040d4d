"""A callback that says when a run comes by, and how long its processes have told each other things.

It is found by its name, so this file imports little.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetune_lm.model_modifiers.model_callback import ModelCallback
from finetune_lm.ranks import world

_told: dict[str, Any] = {"seconds": 0.0, "depth": 0, "is_counted": False}


class Clock(ModelCallback):
    """Adds a line to a file: the time, and how much of it went into messages by then, in seconds.

    Of several processes the first does. Messages are the sums of gradients and all else that they
    tell each other, with the time in which one waits for another.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        file: The file.
    """

    def __init__(self, model: Any, tokenizer: Any, file: str) -> None:
        super().__init__(model, tokenizer)
        self.file = Path(file)
        if not _told["is_counted"] and world().size > 1:
            _told["is_counted"] = True
            for name in ("gather", "add_up"):
                setattr(world(), name, _counted(getattr(world(), name)))

    def __call__(self, epoch: int | None, batch: int | None) -> None:
        """Add the line."""
        if world().is_first:
            with self.file.open("a", encoding="utf-8") as file:
                print(json.dumps([time.perf_counter(), _told["seconds"]]), file=file)


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
