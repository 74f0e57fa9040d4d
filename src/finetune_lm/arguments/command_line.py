"""The tokens of a command line -> the raw texts that each name was given."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from finetune_lm.arguments.nested import DEEPEST, HALF_PAIR
from finetune_lm.errors import UserError

_NAME = re.compile(r"--[A-Za-z]")
_DASHES = "-\u2010-\u2015\u2212\ufe58\ufe63\uff0d"
_DASHED = re.compile(rf"(?P<dashes>[{_DASHES}]+)(?P<rest>[A-Za-z].*)", re.DOTALL)


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


def with_hyphens(
    argv: Sequence[str], is_name: Callable[[str], bool], problems: list[str]
) -> list[str]:
    """Return a command line in which names that begin with other dashes begin with `--`.

    Text programs make a dash of two hyphens, and so does a page that a command is copied from.
    What follows one dash is a name only if there is such a name; otherwise it is a value.

    Args:
        argv: The command line without the program's own name.
        is_name: Whether there is an argument of a name.
        problems: A message for each goes here.
    """
    mended = []
    for word in argv:
        found = _DASHED.fullmatch(word)
        if found is None or found["dashes"] == "--":
            mended.append(word)
            continue
        dashes, rest = found.groups()
        name = rest.partition("=")[0]
        others = [dash for dash in dashes if dash != "-"]
        if not (is_name(name.partition(".")[0]) or (others and len(dashes) > 1)):
            mended.append(word)
            continue
        if others:
            begins = f"{_dash_name(others[0])} (U+{ord(others[0]):04X})"
        else:
            begins = "one hyphen" if len(dashes) == 1 else f"{len(dashes)} hyphens"
        problems.append(
            f"{dashes}{name[:80]} must begin with two hyphens but begins with {begins}: "
            f"--{name[:80]}."
        )
        mended.append(f"--{rest}")
    return mended


def _dash_name(dash: str) -> str:
    name = unicodedata.name(dash).lower()
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def check_words(argv: Sequence[str]) -> None:
    """See that all words of a command line are text.

    Raises:
        UserError: If the shell gave bytes that are none, which Python marks with half characters.
    """
    problems = [
        f"word {number} of the command must be UTF-8 but is {ascii(word)[:80]}."
        for number, word in enumerate(argv, start=1)
        if HALF_PAIR.search(word)
    ]
    if problems:
        raise UserError(*problems)


def nest(given: Iterable[tuple[tuple[str, ...], Any]], problems: list[str]) -> dict[str, Any]:
    """Return a nested dictionary of values by their paths, each of which is given once.

    Args:
        given: Pairs of a path and a value.
        problems: A message for each name that is given twice, or both as a value and as a
            dictionary, goes here.
    """
    nested: dict[str, Any] = {}
    seen: set[tuple[str, ...]] = set()
    longer: dict[tuple[str, ...], tuple[str, ...]] = {}  # by what they begin with
    for path, value in given:
        if not all(path):
            problems.append(f"{'.'.join(path)} has a dot with no name on one side of it.")
            continue
        if len(path) > DEEPEST:
            problems.append(f"{'.'.join(path)[:40]}... has more than {DEEPEST} names in a row.")
            continue
        beginnings = [path[:n] for n in range(1, len(path))]
        conflict = _conflict(path, seen, longer, beginnings)
        if conflict is not None:
            problems.append(conflict)
            continue
        seen.add(path)
        longer.update(dict.fromkeys(beginnings, path))
        level = nested
        for part in path[:-1]:
            level = level.setdefault(part, {})
        level[path[-1]] = value
    return nested


def _conflict(
    path: tuple[str, ...],
    seen: set[tuple[str, ...]],
    longer: dict[tuple[str, ...], tuple[str, ...]],
    beginnings: list[tuple[str, ...]],
) -> str | None:
    if path in seen:
        return f"{'.'.join(path)} is given more than once."
    whole, part = next(
        ((beginning, path) for beginning in beginnings if beginning in seen),
        (path, longer.get(path)),
    )
    if part is None:
        return None
    return (
        f"{'.'.join(whole)} and {'.'.join(part)} cannot both be given: one sets the whole and the "
        "other a part of it."
    )
