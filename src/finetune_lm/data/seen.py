"""Which lines of the test and probe files are in the training or validation file as well."""

from __future__ import annotations

from finetune_lm.constants import PROBE
from finetune_lm.data.examples import Examples, Files
from finetune_lm.messages import say_once
from finetune_lm.models.tasks import Task

_NAMED = 3


def seen_before(files: Files, task: Task) -> dict[str, list[str | None]]:
    """Find the lines of test and probe files that are learned from or judged by, and tell of them.

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
    # Of a file that is both, more lines may be used in one of its roles.
    measured = sorted([*files["test"], *files.get(PROBE, [])], key=len)
    for file in {file.path: file for file in measured}.values():
        kinds = [[k for k, lines in seen.items() if line in lines] for line in _lines(file, task)]
        found[file.path] = [" and ".join(each) or None for each in kinds]
        _tell(file, found[file.path])
    return found


def _lines(file: Examples, task: Task) -> list[tuple[str, str]]:
    """What makes a line what it is: its text, and what is to be predicted."""
    labels = file.labels if task.labels_from_file and file.labels else file.texts
    return [(t.strip(), label.strip()) for t, label in zip(file.texts, labels, strict=True)]


def _tell(file: Examples, seen: list[str | None]) -> None:
    numbers = [str(number) for number, kinds in enumerate(seen, start=1) if kinds]
    if numbers:
        several = len(numbers) > 1
        first = ", ".join(numbers[:_NAMED]) + (", ..." if len(numbers) > _NAMED else "")
        say_once(
            f"{len(numbers)} of the {len(file)} lines of {file.path} {'are' if several else 'is'} "
            f"in the training or validation file too (line{'s' if several else ''} {first}). The "
            f"column seen_in says which."
        )
