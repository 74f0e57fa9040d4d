"""A run that was stopped, as its output directory tells of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from finetune_lm.arguments import DataTrainingArguments
from finetune_lm.arguments.declared import MAY_BE_RAISED
from finetune_lm.constants import CONFIG_YAML
from finetune_lm.errors import UserError
from finetune_lm.messages import warn
from finetune_lm.results.output_directory import OF_NO_MATTER, RUN_JSON, TEST_RESULTS_SUFFIX
from finetune_lm.results.run_record import versions
from finetune_lm.results.run_result import RunResult

_RAISED = frozenset(
    field.name
    for field in fields(DataTrainingArguments)
    if field.metadata.get("on_resume") == MAY_BE_RAISED
)


@dataclass(frozen=True)
class EarlierRun:
    """A run that was stopped.

    Attributes:
        directory: Its output directory.
        config: Its arguments, as ``config.yaml`` has them.
        record: What ``run.json`` says.
    """

    directory: Path
    config: dict[str, Any]
    record: dict[str, Any]

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read what a run has left on record.

        Raises:
            UserError: If the directory is not one of a run.
        """
        import yaml

        if not directory.is_dir():
            raise UserError(f"resume must name an output directory but there is no {directory}.")
        found = []
        for name, read in ((CONFIG_YAML, yaml.safe_load), (RUN_JSON, json.load)):
            try:
                with (directory / name).open(encoding="utf-8") as file:
                    value = read(file)
            except FileNotFoundError:
                raise UserError(
                    f"resume must name the output directory of a run but {directory} has no {name}."
                ) from None
            except (OSError, ValueError, yaml.YAMLError) as error:
                raise UserError(f"{directory / name} cannot be read: {error}") from None
            if not isinstance(value, dict):
                raise UserError(f"{directory / name} is not what a run has written.")
            found.append(value)
        return cls(directory, *found)

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

    def changes(self, config: dict[str, Any]) -> list[str]:
        """What is different in new arguments, a clause each, as far as that is allowed.

        Args:
            config: The arguments in plain types.

        Raises:
            UserError: If something is different on which the results depend.
        """
        allowed: list[str] = []
        forbidden: list[str] = []
        for path, before, now in _differences(self.config, config):
            change = f"{'.'.join(path)} was {before} and is {now}"
            raised = path[0] in _RAISED and _is_raised(before, now)
            (allowed if path[0] in OF_NO_MATTER or raised else forbidden).append(change)
        if forbidden:
            raise UserError(
                *(
                    f"a run is resumed with the arguments that it had, but {change}. "
                    + (
                        f"{change.split()[0]} can only be raised."
                        if change.split()[0] in _RAISED
                        else "Start another run with the new ones."
                    )
                    for change in forbidden
                )
            )
        return [change for change in allowed if not change.startswith("output_dir ")]

    def check_data(self, hashes: dict[str, str]) -> None:
        """See that the data files say what they did.

        Args:
            hashes: The hash of what each file says now.

        Raises:
            UserError: Naming those that do not.
        """
        before = self.record.get("data_sha256", {})
        changed = [path for path, value in hashes.items() if before.get(path) != value]
        if changed:
            raise UserError(
                *(
                    f"{path} must say what it did when the run began, but it has changed, it or "
                    f"its metadata. Put it back, or start another run."
                    for path in changed
                )
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


def _differences(
    before: Any, now: Any, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """Every place in which nested dictionaries differ, with both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in {**before, **now}:
            # An argument that an older program did not have is at its default.
            if key in before or path:
                yield from _differences(
                    before.get(key, "not given"), now.get(key, "not given"), (*path, str(key))
                )
    elif before != now:
        yield path, before, now


def _is_raised(before: Any, now: Any) -> bool:
    """Whether a number of epochs is larger than before; None is without end."""
    return before is not None and (now is None or now > before)
