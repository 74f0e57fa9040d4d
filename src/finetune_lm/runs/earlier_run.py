"""A run that was stopped, as its output directory tells of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from finetune_lm.arguments import DataTrainingArguments, ModelArguments, OptimizationArguments
from finetune_lm.arguments.declared import (
    MAY_BE_RAISED,
    MAY_CHANGE,
    RESULT,
    Affects,
    what_affects,
)
from finetune_lm.constants import CONFIG_YAML
from finetune_lm.errors import UserError
from finetune_lm.messages import say, warn
from finetune_lm.ranks import world
from finetune_lm.runs.directory import (
    CHECKPOINTS,
    MANIFEST,
    RUN_JSON,
    TEST_RESULTS_SUFFIX,
)
from finetune_lm.runs.lock import RunLock
from finetune_lm.runs.record import versions
from finetune_lm.runs.run_identity import CODE, CONTENT, FILES, MODEL, differences
from finetune_lm.runs.run_result import RunResult
from finetune_lm.whole_files import checksums, unsealed

_ON_RESUME = {
    field.name: field.metadata["on_resume"]
    for field in fields(DataTrainingArguments)
    if "on_resume" in field.metadata
}
_OF_RESULT = {
    name
    for cls in (ModelArguments, DataTrainingArguments, OptimizationArguments)
    for name in what_affects(RESULT, cls)
}
_OF_NOTHING = {
    name
    for cls in (ModelArguments, DataTrainingArguments, OptimizationArguments)
    for name in what_affects({Affects.NOTHING}, cls)
}


@dataclass(frozen=True)
class EarlierRun:
    """A run that was stopped.

    Attributes:
        directory: Its output directory.
        config: Its arguments, as ``config.yaml`` has them now.
        record: What ``run.json`` says; nothing if that is damaged or gone.
        identity: All that its results depend on, as it was when the run began.
        problem: What is wrong with ``run.json``, in words; empty if nothing is.
    """

    directory: Path
    config: dict[str, Any]
    record: dict[str, Any]
    identity: dict[str, Any]
    problem: str = ""

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read what a run has left on record.

        What ``run.json`` does not say any more, a checkpoint does.

        Raises:
            UserError: If the directory is not one of a run, or if nothing says what the run was.
        """
        if not os.path.isdir(directory):  # noqa: PTH112 - Path.is_dir fails on a long path
            raise UserError(f"resume must name an output directory but there is no {directory}.")
        config = _read_config(directory)
        problem = ""
        try:
            record = unsealed(directory / RUN_JSON)
        except FileNotFoundError:
            record, problem = {}, f"{directory} has no {RUN_JSON}"
        except (OSError, ValueError) as error:
            record, problem = {}, f"{directory / RUN_JSON} {_reason(error)}"
        identity = record.get("identity") or _identity_of_checkpoints(directory)
        if identity is None:
            problem = problem or f"{directory / RUN_JSON} does not say what the run was"
            raise UserError(f"resume must name the output directory of a run but {problem}.")
        return cls(directory, config, record, identity, problem)

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.record.get("state") == "finished"

    def result(self) -> RunResult:
        """What the run has found."""
        tests = sorted(self.directory.glob(f"*{TEST_RESULTS_SUFFIX}"))
        return RunResult(
            self.directory,
            self.record.get("best_validation_loss"),
            self.record.get("best_epoch"),
            tests[0] if tests else None,
        )

    def given_anew(self, config: dict[str, Any]) -> list[str]:
        """What was not so when the run was last at work, a clause each, unless it changes nothing.

        Args:
            config: The arguments now, in plain types.
        """
        return [
            _clause(path, before, now)
            for path, before, now in differences(self.config, config)
            if path[0] not in _OF_NOTHING and path[0] != "output_dir"
        ]

    def check(self, identity: dict[str, Any], paths: dict[str, str]) -> None:
        """See that a run is what it was when it began.

        Args:
            identity: What it is now.
            paths: Where each data file is now, by the hash of what it says.

        Raises:
            UserError: Naming everything that is not the same.
        """
        problems = [
            problem
            for path, before, now in differences(self.identity, identity)
            if (problem := self._problem(path, before, now, paths))
        ]
        if problems:
            raise UserError(*dict.fromkeys(problems))

    def warn_of_changed_files(self) -> None:
        """Warn of files of the run that are not as it has written them."""
        if self.problem:
            warn(f"{self.problem}; the run is resumed from what its last checkpoint says.")
        for name in _changed_files(self.directory, self.record):
            warn(f"{self.directory / name} has changed since the run wrote it: edited or damaged.")

    def tell_of_moved_files(self, config: dict[str, Any]) -> None:
        """Say which data files are elsewhere now, of a run that has passed `check`."""
        for path, before, now in differences(self.config, config):
            if path[0] in _OF_RESULT and path[0] not in _ON_RESUME:
                say(f"{_clause(path, before, now)}, which says the same.")

    def _problem(
        self, path: tuple[str, ...], before: Any, now: Any, paths: dict[str, str]
    ) -> str | None:
        """What is wrong if something was one thing and is another; None if it may be."""
        if path[0] == CODE:
            return (
                f"{path[1]} must be the program that it was when the run began, but its source has "
                f"changed. Put it back, or start another run."
            )
        if path[0] == MODEL:
            return self._model_problem(path[1], before, now)
        if path[0] in FILES:
            return _file_problem(path[0], before, now, paths)
        if str(before).startswith(CONTENT) and str(now).startswith(CONTENT):
            return _changed(paths.get(now.removeprefix(CONTENT), f"the file of {'.'.join(path)}"))
        on_resume = _ON_RESUME.get(path[0])
        if on_resume == MAY_CHANGE or (on_resume == MAY_BE_RAISED and _is_raised(before, now)):
            return None
        remedy = (
            f"{path[0]} can only be raised."
            if on_resume == MAY_BE_RAISED
            else "Start another run with the new ones."
        )
        return (
            f"a run is resumed with the arguments that it had, but {_clause(path, before, now)}. "
            f"{remedy}"
        )

    def _model_problem(self, what: str, before: str, now: str) -> str | None:
        if what == "config" and before.partition(":")[0] != now.partition(":")[0]:
            return None  # another version of transformers, which is warned of
        has = {"weights": "its weights have changed", "config": "its configuration has changed"}
        return (
            "model_name_or_path must be the model that it was when the run began, but "
            f"{has.get(what, what)}. Put it back, or start again in another output_dir."
        )

    def warn_of_surroundings(self, device: str) -> None:
        """Warn where numbers may differ in their last digits from those of an unbroken run."""
        before = self.record.get("versions", {})
        different = [
            f"{name} {before[name]} -> {version}"
            for name, version in versions().items()
            if name in before and before[name] != version
        ]
        if self.record.get("device", device) != device:
            different.append(f"device {self.record['device']} -> {device}")
        if different:
            warn(
                f"the run began with other software or hardware ({', '.join(different)}), so that "
                f"last digits may differ from those of a run that was not stopped."
            )


def _read_config(directory: Path) -> dict[str, Any]:
    import yaml

    path = directory / CONFIG_YAML
    try:
        config = yaml.safe_load(path.read_bytes())
    except FileNotFoundError:
        raise UserError(
            f"resume must name the output directory of a run but {directory} has no {CONFIG_YAML}."
        ) from None
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {_reason(error)}") from None
    if not isinstance(config, dict):
        raise UserError(f"{path} is not what a run has written.")
    return config


def _identity_of_checkpoints(directory: Path) -> dict[str, Any] | None:
    """What the last whole checkpoint says that the run was."""
    for path in sorted(directory.glob(f"{CHECKPOINTS}/*/{MANIFEST}"), reverse=True):
        with suppress(OSError, ValueError):
            identity = unsealed(path).get("identity")
            if isinstance(identity, dict) and identity:
                return identity
    return None


def warn_of_changed_model(name: str) -> None:
    """Warn if a model or tokenizer is one that a run has saved, and not as it was saved.

    Args:
        name: A directory, or a name on the Hub.
    """
    directory = Path(name)
    if not directory.is_dir():
        return
    run = directory.resolve().parent
    with suppress(OSError, ValueError):
        for file in _changed_files(run, unsealed(run / RUN_JSON), directory.resolve().name):
            warn(f"{run / file} has changed since the run there wrote it: edited or damaged.")


def _changed_files(directory: Path, record: dict[str, Any], *within: str) -> list[str]:
    """The files that a record has checksums of and that are otherwise, as far as they are there."""
    written: dict[str, Any] = record.get("files", {})
    now = checksums(directory, *(within or written))
    return [name for name, found in now.items() if written.get(name, found) != found]


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _clause(path: tuple[str, ...], before: Any, now: Any) -> str:
    return f"{'.'.join(path)} was {before} and is {now}"


def _changed(path: str) -> str:
    return (
        f"{path} must say what it did when the run began, but it or its metadata have changed. "
        "Put it back, or start another run."
    )


def _file_problem(
    argument: str, before: list[list[str]], now: list[list[str]], paths: dict[str, str]
) -> str:
    """What is wrong with data files that are not the same by name and content."""
    names_before, names = ([name for name, _ in files] for files in (before, now))
    if names_before != names:
        return (
            f"{argument} must keep its name, which is in the tables, but {argument} was "
            f"{', '.join(names_before) or 'not given'} and is {', '.join(names) or 'not given'}. "
            f"Start another run with the new ones."
        )
    changed = [now for (_, then), (_, now) in zip(before, now, strict=True) if then != now]
    return _changed(paths.get(changed[0], argument))


def _is_raised(before: Any, now: Any) -> bool:
    """Whether a number of epochs is larger than before; None is without end."""
    return before is not None and (now is None or now > before)


@contextmanager
def earlier_in(directory: Path) -> Iterator[EarlierRun | None]:
    """The run that has begun in a directory, locked for who goes on with it; None if none has."""
    if not world().decided((directory / CONFIG_YAML).exists):
        yield None
        return
    with RunLock(directory):
        yield EarlierRun.read(directory)
