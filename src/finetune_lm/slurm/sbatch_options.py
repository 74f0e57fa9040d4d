"""The options of ``sbatch`` that stand in a script: what a user gives, and what we add."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

from finetune_lm.errors import UserError

SIGNAL_SECONDS = 120
"""How long before a job's time is up it is told to stop."""

_LONG_NAMES = {
    **{"a": "array", "J": "job-name", "n": "ntasks", "t": "time", "G": "gpus", "o": "output"},
    **{"p": "partition", "c": "cpus-per-task", "N": "nodes", "A": "account", "d": "dependency"},
}
"""Of options of one letter; of others the letter stays."""

_INCOMPATIBLE = {
    "wrap": "is for jobs without a script",
    "no-requeue": "keeps a stopped job from being resumed",
}

_ARRAY = re.compile(r"(?P<numbers>\d+(-\d+(:\d+)?)?(,\d+(-\d+(:\d+)?)?)*)(?P<limit>%\d+)?")
_SIGNAL = re.compile(r"(?:SIG)?USR1(?:@(?P<seconds>\d+))?")


@dataclass(frozen=True)
class SbatchOptions:
    """What a job needs and how it is started, in the words of ``sbatch``.

    Attributes:
        given: Names, without hyphens, with values; None where an option has none. SLURM itself
            looks whether there are such options.
    """

    given: tuple[tuple[str, str | None], ...] = ()

    @classmethod
    def read(cls, words: Sequence[str]) -> Self:
        """The options that are given as on a command line: ``--time 1:00:00 --gres=gpu:1 -p gpu``.

        Raises:
            UserError: If they cannot be read, or do not go with what the script does.
        """
        problems: list[str] = []
        options = cls(tuple(_read(words, problems)))
        problems += options._problems()
        if problems:
            raise UserError(*problems)
        return options

    def value(self, name: str) -> str | None:
        """The last value that an option was given."""
        values = [value for given, value in self.given if given == name]
        return values[-1] if values else None

    def has(self, *names: str) -> bool:
        """Whether one of some options was given."""
        return any(given in names for given, _ in self.given)

    @property
    def longest_end(self) -> int:
        """How many seconds a program may take to its end once it has been told to stop."""
        found = _SIGNAL.fullmatch(self.value("signal") or "")
        return max(SIGNAL_SECONDS, int(found["seconds"] or 0) if found else 0)

    def without(self, name: str) -> Self:
        """The same without an option."""
        return replace(self, given=tuple(each for each in self.given if each[0] != name))

    def named(self, job_name: str) -> Self:
        """The same with a name for the job, unless it has one."""
        if self.has("job-name"):
            return self
        return replace(self, given=(("job-name", job_name), *self.given))

    def tasks(self) -> list[int] | None:
        """The numbers of the array's tasks; None if it is no array."""
        array = self.value("array")
        if array is None:
            return None
        numbers: set[int] = set()
        for part in array.partition("%")[0].split(","):
            ends, _, step = part.partition(":")
            first, _, last = ends.partition("-")
            numbers.update(range(int(first), int(last or first) + 1, int(step or 1)))
        return sorted(numbers)

    def lines(self) -> list[str]:
        """The options as they stand in a script, one a line, with those that it needs."""
        added: list[tuple[str, str | None]] = []
        if not self.has("signal"):
            added.append(("signal", f"USR1@{SIGNAL_SECONDS}"))
        if not self.has("requeue"):
            added.append(("requeue", None))
        if not self.has("open-mode"):
            added.append(("open-mode", "append"))
        return [_line(name, value) for name, value in (*self.given, *added)]

    def _problems(self) -> Iterator[str]:
        for name, why in _INCOMPATIBLE.items():
            if self.has(name):
                yield f"--{name} cannot be given, since it {why}."
        if self.has("array"):
            yield from _array_problems(self.value("array") or "")
        signal = self.value("signal")
        if self.has("signal") and not _SIGNAL.fullmatch(signal or ""):
            yield (
                f"--signal must be USR1@SECONDS, how long before its end a job is told to stop, "
                f"but got {signal}."
            )
        for name, value in self.given:
            if "\n" in f"{name}{value}":
                yield f"--{name} must be on one line but got {value!r}."


def _array_problems(array: str) -> Iterator[str]:
    found = _ARRAY.fullmatch(array)
    steps = re.findall(r":(\d+)", array)
    ranges = re.findall(r"(\d+)-(\d+)", array)
    if (
        found is None
        or any(int(step) == 0 for step in steps)
        or any(int(last) < int(first) for first, last in ranges)
        or found["limit"] == "%0"
    ):
        yield (
            "--array must be the numbers of its tasks, such as 1-40, 1,3,5 or 0-8:2, with %N "
            f"after them for N at a time, but got {array or 'nothing'}."
        )


def _read(words: Sequence[str], problems: list[str]) -> Iterator[tuple[str, str | None]]:
    left = list(words)
    while left:
        word = left.pop(0)
        found = re.fullmatch(r"--([A-Za-z][\w-]*)(?:=(.*))?|-([A-Za-z])(.*)", word, re.DOTALL)
        if found is None:
            problems.append(
                f"{word!r} must be an option of sbatch, such as --time 1:00:00, or its value. "
                "The arguments of the run come after --."
            )
            continue
        name, value, letter, attached = found.groups()
        if letter:
            name, value = _LONG_NAMES.get(letter, letter), attached or None
        if value is None and left and not left[0].startswith("-"):
            value = left.pop(0)
        yield name, value


def _line(name: str, value: str | None) -> str:
    shown = f"-{name}" if len(name) == 1 else f"--{name}"
    if value is None:
        return shown
    if re.search(r"""[\s"'\\#]""", value):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        value = f'"{escaped}"'
    return f"{shown} {value}" if len(name) == 1 else f"{shown}={value}"
