"""The runs of a grid: their values, their directories, their order, their arguments."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from finetune_lm.arguments import (
    DataTrainingArguments,
    ModelArguments,
    OptimizationArguments,
)
from finetune_lm.arguments.config_files import ConfigFile
from finetune_lm.arguments.parser import arguments_of
from finetune_lm.errors import UserError
from finetune_lm.grids.grid_file import OUTPUT_DIR, Axis, GridFile, filled, placeholders, text_of

_UNSAFE = re.compile(r"[^\w.+@-]")
_LONGEST_NAME = 180
"""Of a directory, in bytes: room is left for names of files, of which some have it in theirs."""
_MOST_RUNS = 1_000_000
_MODIFIES = re.compile(r"model_(modifier|callbacks|pre_train_step_callbacks)")
"""Arguments for the model that change it only after it was loaded."""


@dataclass(frozen=True)
class GridRun:
    """One run of a grid.

    Attributes:
        grid: The grid.
        name: The name of its directory.
        chosen: Which value it has of each axis, by number.
    """

    grid: GridFile
    name: str
    chosen: tuple[int, ...]

    @property
    def directory(self) -> Path:
        """Where it writes."""
        return self.grid.output_dir / self.name

    @cached_property
    def values(self) -> dict[str, str]:
        """Its values in words, by axis."""
        pairs = zip(self.grid.axes, self.chosen, strict=True)
        return {axis.name: text_of(axis.values[number]) for axis, number in pairs}

    def sources(self) -> list[ConfigFile]:
        """Where its arguments come from, each over those before it."""
        grid = self.grid
        pairs = list(zip(grid.axes, self.chosen, strict=True))
        sources = [grid.base]
        sources += [axis.sets[self.values[axis.name]] for axis, _ in pairs if axis.sets]
        if grid.from_study is not None:
            from finetune_lm.grids.study_values import best_values

            sources.append(best_values(filled(grid.from_study, self.values)))
        for axis, number in pairs:
            if axis.is_argument:
                path = tuple(axis.name.split("."))
                lines = {path: axis.line}
                sources.append(ConfigFile(grid.name, [(path, axis.values[number])], lines))
        templates = [(path, filled(raw, self.values)) for path, raw in grid.templates.entries]
        return [*sources, ConfigFile(grid.name, templates, grid.templates.lines)]

    def arguments(
        self, more: Sequence[tuple[tuple[str, ...], Any]] = ()
    ) -> tuple[ModelArguments, DataTrainingArguments, OptimizationArguments]:
        """Its arguments, with its directory.

        Args:
            more: What is to be otherwise, by path.

        Raises:
            UserError: With a message for each thing that is wrong with them.
        """
        own = [((OUTPUT_DIR,), str(self.directory)), *more]
        return arguments_of([*self.sources(), ConfigFile(self.grid.name, own)])

    def digest(self) -> str:
        """What stands for its arguments as they are written: the same give the same."""
        raw = [source.entries for source in self.sources()]
        return hashlib.sha256(json.dumps(raw, default=str).encode()).hexdigest()[:16]


def runs_of(grid: GridFile) -> list[GridRun]:
    """All runs of a grid that are not left out, in the order in which they are done.

    Those whose model is loaded in the same way come one after another, since a process keeps it
    from run to run. Otherwise they are in the order of the file, the last axis the fastest.

    Raises:
        UserError: If there are none, or far too many.
    """
    n = 1
    for axis in grid.axes:
        n *= len(axis.values)
    if n > _MOST_RUNS:
        raise UserError(f"{grid.name}: a grid cannot have more than {_MOST_RUNS} runs but has {n}.")
    numbers = [range(len(axis.values)) for axis in grid.axes]
    chosen = [each for each in itertools.product(*numbers) if not _is_excluded(grid, each)]
    if not chosen:
        raise UserError(f"{grid.name}: exclude leaves no run.")
    parts = _name_parts(grid.axes)
    names = [
        "_".join(part[number] for part, number in zip(parts, each, strict=True)) for each in chosen
    ]
    alike = Counter(name.casefold() for name in names)
    runs = []
    for name, each in zip(names, chosen, strict=True):
        values = [text_of(a.values[i]) for a, i in zip(grid.axes, each, strict=True)]
        # Some file systems take names for the same that differ in capitals.
        if alike[name.casefold()] > 1 or len(name.encode()) > _LONGEST_NAME:
            name = _with_digest(name, values)
        runs.append(GridRun(grid, name, each))
    loading = _loading_axes(grid)
    order: dict[tuple[int, ...], int] = {}
    for run in runs:
        order.setdefault(tuple(run.chosen[i] for i in loading), len(order))
    return sorted(runs, key=lambda run: order[tuple(run.chosen[i] for i in loading)])


def _is_excluded(grid: GridFile, chosen: tuple[int, ...]) -> bool:
    values = {a.name: text_of(a.values[i]) for a, i in zip(grid.axes, chosen, strict=True)}
    return any(
        all(values[name] in texts for name, texts in combination.items())
        for combination in grid.exclude
    )


def _name_parts(axes: Sequence[Axis]) -> list[list[str]]:
    """What each value of each axis adds to the name of a directory."""
    last = Counter(axis.name.rpartition(".")[2] for axis in axes)
    parts = []
    for axis in axes:
        short = axis.name.rpartition(".")[2]
        name = short if last[short] == 1 else axis.name
        texts = [text_of(value) for value in axis.values]
        safe = [_UNSAFE.sub("-", text).strip() or "-" for text in texts]
        alike = Counter(each.casefold() for each in safe)
        parts.append(
            [
                f"{name}={_with_digest(each, [text]) if alike[each.casefold()] > 1 else each}"
                for each, text in zip(safe, texts, strict=True)
            ]
        )
    return parts


def _with_digest(name: str, values: Sequence[str]) -> str:
    """A name that no other values have, and no longer than a name may be."""
    digest = hashlib.sha256("\0".join(values).encode("utf-8", "surrogatepass")).hexdigest()[:8]
    kept = name.encode()[: _LONGEST_NAME - 9].decode(errors="ignore")
    return f"{kept}@{digest}"


def _loading_axes(grid: GridFile) -> list[int]:
    """The axes that make a difference to how a model is loaded, by number."""
    owned = {each.name for each in fields(ModelArguments) if not _MODIFIES.match(each.name)}
    named = {
        name
        for path, raw in grid.templates.entries
        if path[0] in owned
        for name in placeholders(raw)
    }
    return [
        number
        for number, axis in enumerate(grid.axes)
        if axis.name in named
        or (axis.is_argument and axis.name.partition(".")[0] in owned)
        or any(path[0] in owned for part in axis.sets.values() for path, _ in part.entries)
    ]
