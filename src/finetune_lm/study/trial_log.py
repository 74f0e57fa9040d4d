"""``config.txt`` of a study: the arguments, and what each trial of a process tried."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune_lm.arguments.values import write_value


class TrialLog:
    """A text file that grows by some lines for each trial.

    Args:
        path: The file.
        head: What stands first: all arguments, as they are without a study.
    """

    def __init__(self, path: Path, head: str) -> None:
        self._path = path
        self._append(head.rstrip("\n") + "\n")

    def begin(self, number: int, values: Mapping[str, Any], note: str = "") -> None:
        """Put down what a trial tries."""
        width = max(map(len, values), default=0)
        lines = [
            f"  {f'{name}:':<{width + 1}} {write_value(value, is_text=True)}"
            for name, value in values.items()
        ]
        self._append("\n".join(["", f"trial {number}, {_now()}{note}", *lines, ""]))

    def end(self, line: str) -> None:
        """Put down how the trial came out."""
        self._append(f"  {line}\n")

    def _append(self, text: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text)


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
