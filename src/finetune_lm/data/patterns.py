"""Patterns that name many files: ``blimp/*.jsonl``."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable

from finetune_lm.errors import UserError


def files_of_patterns(paths: Iterable[str], but: tuple[str, ...] = ()) -> list[str]:
    """The files that paths name, some of which may be patterns.

    ``*`` and ``?`` stand for any characters and any one, ``[ab]`` for one of these, ``**`` for any
    directories. A file that is really called so is meant itself.

    Args:
        paths: Paths and patterns.
        but: Patterns do not mean files whose names end so.

    Returns:
        The files, those of each pattern in the order of their names.

    Raises:
        UserError: Naming the patterns of which there is no file.
    """
    found: list[str] = []
    problems = []
    for path in paths:
        if os.path.lexists(path) or not glob.has_magic(path):
            found.append(path)
            continue
        try:
            matches = glob.glob(path, recursive=True)  # noqa: PTH207 - paths may be absolute
        except (OSError, ValueError):  # too long, or a NUL in it
            matches = []
        files = [each for each in sorted(matches) if os.path.isfile(each)]  # noqa: PTH113
        files = [each for each in files if not each.endswith(but)]
        if not files:
            problems.append(f"there is no file {path}, and as a pattern it matches none.")
        found += files
    if problems:
        raise UserError(*problems)
    return found
