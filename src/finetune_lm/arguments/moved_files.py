"""How to say where data files are now, when a run is resumed that does not find them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune_lm.arguments.nested import strings_in

_NO_FILE_OF_LOSS = re.compile(r"(loss_classes_kwargs\.(\w+)\.(\w+)): there is no file (.*)\.")


def say_where(directory: str | Path, names: Collection[str]) -> str:
    """What to do, as a sentence.

    Args:
        directory: That of the run.
        names: The arguments that name files which are not there.
    """
    now = " ".join(f"--{name} PATH" for name in sorted(names))
    return f"If data files have moved, say where they are now: --resume {directory} {now}"


def of_losses(problems: Sequence[str], values: Sequence[Mapping[str, Any]]) -> set[str]:
    """The arguments of losses that name files which are not there.

    Args:
        problems: What is wrong with the arguments. What losses say of such files is among it.
        values: The values of the arguments, as each source gives them, by name and nested.

    Example:
        >>> problem = "loss_classes_kwargs.train.MyLoss: there is no file x.txt."
        >>> kwargs = {"train": {"MyLoss": {"data": "x.txt"}}}
        >>> of_losses([problem], [{"loss_classes_kwargs": kwargs}])
        {'loss_classes_kwargs.train.MyLoss.data'}
    """
    told = filter(None, map(_NO_FILE_OF_LOSS.fullmatch, problems))
    return {
        f"{loss[1]}.{key}"
        for loss in told
        for key, value in _kwargs(values, loss[2], loss[3])
        if loss[4] in strings_in(value)
    }


def _kwargs(
    values: Sequence[Mapping[str, Any]], dataset_type: str, loss: str
) -> Iterator[tuple[str, Any]]:
    for each in values:
        kwargs: Any = each
        for key in ("loss_classes_kwargs", dataset_type, loss):
            kwargs = kwargs.get(key) if isinstance(kwargs, Mapping) else None
        if isinstance(kwargs, Mapping):
            yield from kwargs.items()
