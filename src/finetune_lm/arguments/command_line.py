"""The tokens of a command line -> the raw texts that each name was given."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

_NAME = re.compile(r"--[A-Za-z]")


@dataclass(frozen=True)
class Given:
    """One name and the raw texts that followed it."""

    name: str
    texts: tuple[str, ...]

    @property
    def path(self) -> tuple[str, ...]:
        """The name split at its dots: one part for each level of dictionaries."""
        return tuple(self.name.split("."))

    @property
    def raw_value(self) -> Any:
        """The texts as one raw value: True without a text, a list of several."""
        if not self.texts:
            return True
        return self.texts[0] if len(self.texts) == 1 else list(self.texts)


def split_command_line(argv: Sequence[str], problems: list[str]) -> list[Given]:
    """Return the names on a command line with the texts that follow each.

    Only `--` and a letter begin a name, so -1 and -1e-3 are values.

    Args:
        argv: The command line without the program's own name.
        problems: Messages go here.

    Example:
        >>> split_command_line(["--params.lr.values", "1e-5", "1e-4", "--use_gpu"], [])
        [Given(name='params.lr.values', texts=('1e-5', '1e-4')), Given(name='use_gpu', texts=())]
    """
    given: list[Given] = []
    for token in argv:
        if token == "-h":
            given.append(Given("help", ()))
        elif _NAME.match(token):
            name, equals, text = token.removeprefix("--").partition("=")
            given.append(Given(name, (text,) if equals else ()))
        elif given:
            given[-1] = Given(given[-1].name, (*given[-1].texts, token))
        else:
            problems.append(
                f"{token!r} stands before any name; every value follows its name, as in "
                "--model_name_or_path gpt2."
            )
    return given


def nest(given: Iterable[tuple[tuple[str, ...], Any]], problems: list[str]) -> dict[str, Any]:
    """Return a nested dictionary of values by their paths, each of which is given once.

    Args:
        given: Pairs of a path and a value.
        problems: A message for each name that is given twice, or both as a value and as a
            dictionary, goes here.
    """
    nested: dict[str, Any] = {}
    seen: dict[tuple[str, ...], None] = {}
    for path, value in given:
        if not all(path):
            problems.append(f"{'.'.join(path)} has a dot with no name on one side of it.")
            continue
        conflict = _conflict(path, seen)
        if conflict is not None:
            problems.append(conflict)
            continue
        seen[path] = None
        level = nested
        for part in path[:-1]:
            level = level.setdefault(part, {})
        level[path[-1]] = value
    return nested


def _conflict(path: tuple[str, ...], seen: Iterable[tuple[str, ...]]) -> str | None:
    name = ".".join(path)
    for other in seen:
        if other == path:
            return f"{name} is given more than once."
        shorter, longer = sorted((other, path), key=len)
        if longer[: len(shorter)] == shorter:
            return (
                f"{'.'.join(shorter)} and {'.'.join(longer)} cannot both be given: one sets "
                "the whole and the other a part of it."
            )
    return None
