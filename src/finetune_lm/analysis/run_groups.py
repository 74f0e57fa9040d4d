"""Runs that differ in nothing but their seeds, which are shown as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_lm.analysis.run_files import RunFiles

_NOT_SHOWN = frozenset({"seed", "output_dir", "cache_dir", "preprocessing_num_workers"})
_LONGEST_NAME = 60
_MOST_DIFFERENCES = 2


@dataclass(frozen=True)
class RunGroup:
    """Runs of one setting.

    Attributes:
        name: What tells it from the others.
        runs: Its runs, by their places among all.
    """

    name: str
    runs: tuple[int, ...]


def grouped(runs: Sequence[RunFiles]) -> list[RunGroup]:
    """Put runs together that differ only in their seeds.

    A group is called by the arguments in which it differs from the others, or by its directories
    where these are many.
    """
    settings = [_settings(run.config) for run in runs]
    places: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for place, setting in enumerate(settings):
        places.setdefault(tuple(sorted(setting.items())), []).append(place)
    groups = list(places.values())
    if len(groups) == 1:
        return [RunGroup("", tuple(groups[0]))]
    of_groups = [settings[group[0]] for group in groups]
    names = _by_arguments(of_groups) or _by_directories([runs[g[0]].directory for g in groups])
    return [RunGroup(name, tuple(group)) for name, group in zip(names, groups, strict=True)]


def _settings(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """All arguments but those that make no other setting, with dotted names."""
    found: dict[str, str] = {}
    for key, value in config.items():
        if not prefix and key in _NOT_SHOWN:
            continue
        if isinstance(value, Mapping) and value:
            found |= _settings(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = str(value)
    return found


def differences(runs: Sequence[RunFiles]) -> dict[str, list[str]]:
    """The arguments in which runs differ, with the value of each run; ``""`` where it has none."""
    settings = [{**_settings(run.config), "seed": str(run.seed)} for run in runs]
    names = dict.fromkeys(name for setting in settings for name in setting)
    values = {name: [setting.get(name, "") for setting in settings] for name in names}
    return {name: each for name, each in values.items() if len(set(each)) > 1}


def _by_arguments(settings: Sequence[Mapping[str, str]]) -> list[str] | None:
    names = dict.fromkeys(name for setting in settings for name in setting)
    differing = [name for name in names if len({s.get(name) for s in settings}) > 1]
    if len(differing) > _MOST_DIFFERENCES:
        return None
    found = [
        ", ".join(f"{name.split('.')[-1]} {setting.get(name, '-')}" for name in differing)
        for setting in settings
    ]
    fits = len(set(found)) == len(found) and all(len(name) <= _LONGEST_NAME for name in found)
    return found if fits else None


def _by_directories(directories: Sequence[Path]) -> list[str]:
    """The last parts of the directories' names, as many as are needed to tell them apart."""
    parts = [directory.resolve().parts for directory in directories]
    for n in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-n:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return [directory.as_posix() for directory in directories]
