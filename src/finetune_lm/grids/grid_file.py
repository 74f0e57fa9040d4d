"""A grid file: what its runs have in common, in what they differ, and which are left out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from finetune_lm.arguments.command_line import GROUPS, OPTIONS, suggestion
from finetune_lm.arguments.config_files import ConfigFile, read_config_file
from finetune_lm.arguments.suggestions import did_you_mean
from finetune_lm.errors import UserError

KEYS = ("output_dir", "base", "vary", "set", "exclude", "from_study")
OUTPUT_DIR = "output_dir"

_AXIS = re.compile(r"[A-Za-z_]\w*(\.\w+)*")
_RANGE = re.compile(r"(-?\d{1,9})\.\.(-?\d{1,9})")
_PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*(?:\.\w+)*)\}")
_MOST_VALUES = 100_000


@dataclass(frozen=True)
class Axis:
    """One way in which runs differ.

    Attributes:
        name: What it is called: an argument, or a name of the user's own.
        values: Its values as raw texts, in order; of sets of arguments their names.
        sets: Sets of arguments by their names, each of several sources; empty for an axis of
            values.
        is_argument: Whether its values are those of the argument that it is called after.
        line: Its line in the grid file.
    """

    name: str
    values: tuple[Any, ...]
    sets: Mapping[str, ConfigFile] = field(default_factory=dict)
    is_argument: bool = False
    line: int = 1


@dataclass(frozen=True)
class GridFile:
    """What a grid file says.

    Attributes:
        name: The file.
        output_dir: Where the directories of its runs are.
        base: The arguments that all runs have.
        axes: In what they differ.
        templates: Arguments whose texts name axes in braces.
        exclude: Combinations of values that are left out: by axis, one or several values.
        from_study: The directory of the study whose best values a run takes, with axes in braces;
            None if it takes none.
    """

    name: str
    output_dir: Path
    base: ConfigFile
    axes: tuple[Axis, ...]
    templates: ConfigFile
    exclude: tuple[Mapping[str, tuple[str, ...]], ...] = ()
    from_study: str | None = None

    def used_in_templates(self) -> set[str]:
        """The axes that stand in braces somewhere."""
        texts = [raw for _, raw in self.templates.entries] + [self.from_study]
        return {name for raw in texts for name in placeholders(raw)}


def read_grid(name: str) -> GridFile:
    """Read a grid file.

    Args:
        name: The file.

    Raises:
        UserError: With a message for each thing that is wrong with it, but not with its runs.
    """
    file = read_config_file(name)
    given = {".".join(path): raw for path, raw in file.entries}
    problems = [
        f"{file.place((key,))}: {key} is not a key of a grid file, which has "
        f"{', '.join(KEYS)}.{did_you_mean(key, KEYS)}"
        for key in given
        if key not in KEYS
    ]
    output_dir = given.get(OUTPUT_DIR)
    if not isinstance(output_dir, str) or not output_dir.strip() or "\0" in output_dir:
        problems.append(f"{name}: output_dir must be given: where the directories of the runs go.")
        output_dir = "."
    axes = tuple(_axes(file, given.get("vary"), problems))
    grid = GridFile(
        name,
        Path(output_dir),
        _base(file, given.get("base"), problems),
        axes,
        _part(file, ("set",), given.get("set"), problems),
        tuple(_exclusions(file, given.get("exclude"), axes, problems)),
        _from_study(file, given.get("from_study"), problems),
    )
    problems += _names_problems(file, grid)
    if problems:
        raise UserError(*dict.fromkeys(problems))
    return grid


def placeholders(raw: Any) -> Iterator[str]:
    """The names in braces in a raw value, at any depth."""
    if isinstance(raw, str):
        yield from _PLACEHOLDER.findall(raw)
    elif isinstance(raw, dict):
        for item in raw.values():
            yield from placeholders(item)
    elif isinstance(raw, list):
        for item in raw:
            yield from placeholders(item)


def filled(raw: Any, values: Mapping[str, str]) -> Any:
    """A raw value with the values of axes where these stand in braces.

    Example:
        >>> filled(["data/{verb}.txt.gz", "{}"], {"verb": "blorked"})
        ['data/blorked.txt.gz', '{}']
    """
    if isinstance(raw, str):
        return _PLACEHOLDER.sub(lambda found: values[found[1]], raw)
    if isinstance(raw, dict):
        return {key: filled(item, values) for key, item in raw.items()}
    return [filled(item, values) for item in raw] if isinstance(raw, list) else raw


def text_of(value: Any) -> str:
    """A value of an axis in words: for names, columns and templates.

    Example:
        >>> [text_of(value) for value in ("1e-4", None, ["a", "b"])]
        ['1e-4', 'None', 'a+b']
    """
    return "+".join(map(text_of, value)) if isinstance(value, list) else str(value)


def _base(file: ConfigFile, raw: Any, problems: list[str]) -> ConfigFile:
    """What all runs have in common: a file of arguments, or a mapping of them."""
    if isinstance(raw, str):
        return _read(raw, problems)
    return _part(file, ("base",), raw, problems, or_file=True)


def _read(name: str, problems: list[str]) -> ConfigFile:
    try:
        return read_config_file(name)
    except UserError as error:
        problems += error.problems
        return ConfigFile(name)


def _part(
    file: ConfigFile,
    path: tuple[str, ...],
    raw: Any,
    problems: list[str],
    *,
    or_file: bool = False,
) -> ConfigFile:
    """A mapping of arguments inside the grid file."""
    if raw is None:
        return ConfigFile(file.source)
    if not isinstance(raw, dict):
        what = "the name of a file or `argument: value` lines" if or_file else "a mapping"
        problems.append(f"{file.place(path)}: {path[-1]} must be {what}.")
        return ConfigFile(file.source)
    part = ConfigFile(file.source)
    for name, value in raw.items():
        inside = tuple(name.split("."))
        part.entries.append((inside, value))
        for place, line in file.lines.items():
            if place[: len(path) + 1] == (*path, name):
                part.lines[(*inside, *place[len(path) + 1 :])] = line
    return part


def _axes(file: ConfigFile, raw: Any, problems: list[str]) -> Iterator[Axis]:
    if not isinstance(raw, dict) or not raw:
        problems.append(f"{file.place(('vary',))}: vary must say in what the runs differ.")
        return
    for name, values in raw.items():
        place = file.place(("vary", name))
        if not _AXIS.fullmatch(name):
            problems.append(f"{place}: {name!r} must be a name of letters, digits and _.")
            continue
        line, n_problems = file.lines.get(("vary", name), 1), len(problems)
        if isinstance(values, dict):
            sets = {}
            for label, arguments in values.items():
                if isinstance(arguments, str):
                    sets[label] = _read(arguments, problems)
                else:
                    path = ("vary", name, label)
                    sets[label] = _part(file, path, arguments, problems, or_file=True)
            found: list[Any] = list(sets)
            axis = Axis(name, tuple(found), sets, line=line)
        else:
            listed = values if isinstance(values, list) else [values]
            found = [each for value in listed for each in _spread(value, place, problems)]
            axis = Axis(name, tuple(found), is_argument=_is_argument(name), line=line)
        if not found:
            if len(problems) == n_problems:
                problems.append(f"{place}: {name} must have at least one value.")
            continue
        texts = [text_of(value) for value in found]
        problems += [
            f"{place}: {name} has {text} more than once."
            for text, count in Counter(texts).items()
            if count > 1
        ]
        yield axis


def _is_argument(name: str) -> bool:
    return any(name.partition(".")[0] == each.name for group in GROUPS for each in fields(group))


def _spread(value: Any, place: str, problems: list[str]) -> list[Any]:
    """A value, or all values of a range."""
    if isinstance(value, dict) or (
        isinstance(value, list) and any(isinstance(item, list | dict) for item in value)
    ):
        problems.append(f"{place}: a value must be a text, a number or a list of these.")
        return []
    found = _RANGE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return [value]
    first, last = map(int, found.groups())
    if last < first:
        problems.append(f"{place}: the range {value} must go upwards.")
        return []
    if last - first >= _MOST_VALUES:
        problems.append(f"{place}: the range {value} has more than {_MOST_VALUES} values.")
        return []
    return [str(number) for number in range(first, last + 1)]


def _exclusions(
    file: ConfigFile, raw: Any, axes: tuple[Axis, ...], problems: list[str]
) -> Iterator[Mapping[str, tuple[str, ...]]]:
    place = file.place(("exclude",))
    known = {axis.name: [text_of(value) for value in axis.values] for axis in axes}
    for each in raw if isinstance(raw, list) else [] if raw is None else [raw]:
        if not isinstance(each, dict) or not each:
            problems.append(f"{place}: exclude must be a list of mappings of axes to values.")
            continue
        combination = {}
        for name, given in each.items():
            spread = [
                text_of(one)
                for value in (given if isinstance(given, list) else [given])
                for one in _spread(value, place, problems)
            ]
            combination[name] = tuple(spread)
            if name not in known:
                close = did_you_mean(name, known)
                problems.append(f"{place}: exclude names {name}, which does not vary.{close}")
                continue
            problems += [
                f"{place}: exclude names {name} {text}, which no run has."
                f"{did_you_mean(text, known[name])}"
                for text in spread
                if text not in known[name]
            ]
        yield combination


def _from_study(file: ConfigFile, raw: Any, problems: list[str]) -> str | None:
    if raw is None or (isinstance(raw, str) and raw.strip()):
        return raw
    problems.append(f"{file.place(('from_study',))}: from_study must be the directory of a study.")
    return None


def _names_problems(file: ConfigFile, grid: GridFile) -> Iterator[str]:
    """What is wrong with names: of axes, of arguments, and of axes in braces."""
    used = grid.used_in_templates()
    axes = [axis.name for axis in grid.axes]
    for name in sorted(used - set(axes)):
        in_set = any(name in placeholders(raw) for _, raw in grid.templates.entries)
        key = "set" if in_set else "from_study"
        yield (
            f"{file.place((key,))}: {{{name}}} must name something that varies "
            f"({', '.join(axes) or 'nothing does'}).{did_you_mean(name, axes)}"
        )
    for axis in grid.axes:
        place = file.place(("vary", axis.name))
        if axis.name.partition(".")[0] == OUTPUT_DIR or axis.name in OPTIONS:
            yield f"{place}: {axis.name} cannot vary: each run has a directory of its own."
        elif not axis.sets and not axis.is_argument and axis.name not in used:
            yield (
                f"{place}: {axis.name} must be an argument, or stand in braces somewhere in set "
                f"({{{axis.name}}}).{suggestion(tuple(axis.name.split('.')))}"
            )
    parts = [("set", grid.templates)]
    parts += [(f"vary.{a.name}.{label}", s) for a in grid.axes for label, s in a.sets.items()]
    for key, part in parts:
        if any(path[0] == OUTPUT_DIR for path, _ in part.entries):
            yield f"{part.place((OUTPUT_DIR,))}: {key} cannot have an output_dir of its own."
