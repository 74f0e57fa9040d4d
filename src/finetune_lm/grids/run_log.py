"""What a run of a grid says goes into its directory."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune_lm.arguments import without_token
from finetune_lm.errors import UserError
from finetune_lm.ranks import world

LOG = "log.txt"
"""What a run has said."""


@contextmanager
def logged(directory: Path) -> Iterator[None]:
    """Let what is said inside go to a file in the directory of the run.

    Of several ranks the first says it; the others only tell where an error of theirs arose.
    """
    path = directory / LOG if world().is_first else Path(os.devnull)
    with (
        path.open("a", encoding="utf-8", errors="backslashreplace") as log,
        contextlib.redirect_stderr(log),
        contextlib.redirect_stdout(log),
    ):
        try:
            yield
        except Exception as error:
            is_mistake = isinstance(error, UserError)
            told = f"error: {error}\n" if is_mistake else traceback.format_exc()
            log.write(without_token(told))
            if not (is_mistake or world().is_first):
                with contextlib.suppress(OSError):
                    _append(directory / LOG, told)
            raise


def _append(log: Path, told: str) -> None:
    with log.open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(without_token(f"rank {world().rank}:\n{told}"))
