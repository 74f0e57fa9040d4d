"""The output directory of a study, which several processes may share, and the log of one."""

from __future__ import annotations

import datetime
import json
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_lm.arguments.values import write_value
from finetune_lm.constants import CONFIG_YAML
from finetune_lm.errors import UserError
from finetune_lm.runs import directory as place


@dataclass(frozen=True)
class StudyDirectory:
    """Where a process of a study writes.

    The first process of a directory has ``config.txt``, ``config.yaml`` and ``run.json``; those
    that come later have their host and number in the names. The table and the plots are about the
    whole study, so all processes write the same.

    Attributes:
        path: The directory.
        suffix: What stands in the names of this process's own files.
    """

    path: Path
    suffix: str = ""

    @property
    def config_text(self) -> Path:
        """The log of what this process tries."""
        return self._own(place.CONFIG_TEXT)

    @property
    def config_yaml(self) -> Path:
        """The arguments of this process, for ``--config``."""
        return self._own(CONFIG_YAML)

    @property
    def run_json(self) -> Path:
        """The record of this process."""
        return self._own(place.RUN_JSON)

    @property
    def results(self) -> Path:
        """The table of all trials."""
        return self.path / place.OPTIMIZATION_RESULTS

    @property
    def plots(self) -> Path:
        """The plots, to be printed."""
        return self.path / place.OPTIMIZATION_PLOTS

    @property
    def interactive_plots(self) -> Path:
        """The plots, for a browser."""
        return self.path / place.OPTIMIZATION_PLOTS_HTML

    def _own(self, name: str) -> Path:
        stem, _, ending = name.rpartition(".")
        return self.path / f"{stem}{self.suffix}.{ending}"


def choose_study_dir(
    given: str | None,
    model_name: str,
    train_names: list[str],
    study_name: Any,
    *,
    has_storage: bool,
) -> Path:
    """The output directory of a study, not yet made.

    A study that has a name, but neither a directory nor a storage, is kept in a directory of that
    name, so that the same command finds it again.

    Args:
        given: What the user says.
        model_name: The model as named on the command line.
        train_names: The name of the training data.
        study_name: The study's name as the user gives it; None if it is to be made up.
        has_storage: Whether the user says where the study is kept.
    """
    chosen = place.choose_output_dir(given, model_name, train_names)
    if given is None and study_name is not None and not has_storage:
        return chosen.with_name(place.as_file_name(str(study_name)))
    return chosen


def check_study_dir(directory: Path, study_name: str, storage: str) -> None:
    """See that a directory can be written into and has no results but this study's.

    Args:
        directory: The output directory. It need not be there.
        study_name: The study's name.
        storage: Where the study is kept, as `RunRecord` has it.

    Raises:
        UserError: If not, saying what to do.
    """
    place.check_writable(directory)
    found = place.results_in(directory, place.RUN_PATTERNS)
    if found:
        raise UserError(
            f"output_dir must not have results of a run, but {directory} has {', '.join(found)}. "
            f"Give another --output_dir."
        )
    studies = list(_studies(directory))
    for name in (CONFIG_YAML, place.CONFIG_TEXT, place.OPTIMIZATION_RESULTS):
        if (directory / name).exists() and not (directory / place.RUN_JSON).is_file():
            raise UserError(
                f"output_dir must not have a {name} that is not of a run, but {directory} has one. "
                f"Give another --output_dir."
            )
    for other in studies:
        if (other.get("name"), other.get("storage")) != (study_name, storage):
            raise UserError(
                f"output_dir must not have results of another study, but {directory} has those of "
                f"{other.get('name')!r}, kept in {other.get('storage')}; this one is "
                f"{study_name!r}, kept in {storage}. Give another --output_dir."
            )


def make_study_dir(directory: Path) -> StudyDirectory:
    """Make a directory, and choose the names of this process's own files in it.

    Raises:
        UserError: If it cannot be made.
    """
    place.make_output_dir(directory)
    process = f".{socket.gethostname()}.{os.getpid()}"
    for suffix in ("", process, *(f"{process}.{number}" for number in range(2, 1000))):
        chosen = StudyDirectory(directory, suffix)
        try:
            # Whoever makes the file has the name, also where others try at the same time. It is
            # this one, as others take the directory for a study's as soon as it is there.
            chosen.run_json.touch(exist_ok=False)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(
                f"output_dir must be writable but {directory} is not: {error.strerror}. Give "
                f"another --output_dir."
            ) from error
        return chosen
    raise UserError(f"{directory} has too many files of this process. Give another --output_dir.")


def _studies(directory: Path) -> Iterator[dict[str, Any]]:
    """What the records in a directory say about the study that they belong to."""
    for path in sorted(directory.glob("run*.json")):
        try:
            study = json.loads(path.read_text(encoding="utf-8")).get("study")
        except (OSError, ValueError, AttributeError, RecursionError):
            continue
        if isinstance(study, dict):
            yield study


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
