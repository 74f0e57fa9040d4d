"""Which lines of the test and probe files are in the training or validation file as well."""

from __future__ import annotations

from collections.abc import Mapping

from finetune_lm.constants import PROBE
from finetune_lm.data.examples import Examples, Files
from finetune_lm.messages import say
from finetune_lm.models.tasks import Task

_NAMED = 3


def seen_before(files: Files, task: Task) -> dict[str, list[str | None]]:
    """Find the lines of test and probe files that are learned from or judged by.

    Lines are the same if their texts are, white space around them aside, and so are their labels
    where the model takes labels.

    Args:
        files: All data files.
        task: The kind of model.

    Returns:
        For each of these files by its path what each line was seen in: ``train``, ``validation``,
        ``train and validation``, or None for neither.
    """
    seen = {
        kind: {line for file in files[kind] for line in _lines(file, task)}
        for kind in ("train", "validation")
    }
    found: dict[str, list[str | None]] = {}
    for file in _measured(files):
        kinds = [[k for k, lines in seen.items() if line in lines] for line in _lines(file, task)]
        found[file.path] = [" and ".join(each) or None for each in kinds]
    return found


def tell_of_seen(
    files: Files, by_mode: Mapping[str | None, Mapping[str, list[str | None]]]
) -> None:
    """Say which lines of test and probe files are learned from or judged by.

    Args:
        files: All data files.
        by_mode: What `seen_before` has found in each mode of a model; by None if it has one.
    """
    for file in _measured(files):
        found = {mode: seen[file.path] for mode, seen in by_mode.items()}
        first, *others = found.values()
        if all(each == first for each in others):
            found = {None: first}
        for mode, seen in found.items():
            _tell(file, seen, mode)


def _measured(files: Files) -> list[Examples]:
    """The test and probe files, each once."""
    # Of a file that is both, more lines may be used in one of its roles.
    measured = sorted([*files["test"], *files.get(PROBE, [])], key=len)
    return list({file.path: file for file in measured}.values())


def _lines(file: Examples, task: Task) -> list[tuple[str, str]]:
    """What makes a line what it is: its text, and what is to be predicted."""
    labels = file.labels if task.labels_from_file and file.labels else file.texts
    return [(t.strip(), label.strip()) for t, label in zip(file.texts, labels, strict=True)]


def _tell(file: Examples, seen: list[str | None], mode: str | None) -> None:
    numbers = [str(number) for number, kinds in enumerate(seen, start=1) if kinds]
    if numbers:
        several = len(numbers) > 1
        first = ", ".join(numbers[:_NAMED]) + (", ..." if len(numbers) > _NAMED else "")
        say(
            f"{len(numbers)} of the {len(file)} lines of {file.path} {'are' if several else 'is'} "
            f"in the training or validation file too (line{'s' if several else ''} {first})"
            f"{'' if mode is None else f', as the {mode} mode reads them'}. The column seen_in "
            f"says which."
        )
