"""In which units losses are, where that is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from finetune_lm.arguments.references import numbered_names
from finetune_lm.recording.columns import LOSS

if TYPE_CHECKING:
    from finetune_lm.arguments import DataTrainingArguments

NATS = "nats"


def loss_units(args: DataTrainingArguments) -> dict[str, str | None]:
    """The unit of each loss of a training run by its column; None where it is not known.

    A loss class names it by an attribute ``unit``. The word of a class counts for its own
    ``__call__``, not for that of a class that inherits from it.
    """
    by_column: dict[str, list[str | None]] = {}
    for dataset_type, classes in args.loss_classes.items():
        for column, unit in _units(classes, args.loss_reduction_fns[dataset_type]).items():
            by_column.setdefault(column, []).append(unit)
    return {column: _common(units) for column, units in by_column.items()}


def _units(
    classes: Sequence[Callable[..., Any]], reduce: Callable[..., Any]
) -> dict[str, str | None]:
    import torch

    units = dict(zip(numbered_names(classes), map(_unit, classes), strict=True))
    keeps_unit = reduce in (torch.sum, torch.mean, sum)
    return {LOSS: _common(units.values()) if keeps_unit else None, **units}


def _unit(cls: Any) -> str | None:
    for each in getattr(cls, "__mro__", ()):
        held = vars(each)
        if "unit" in held:
            return held["unit"] if isinstance(held["unit"], str) else None
        if "__call__" in held or "forward" in held:
            return None
    return None


def _common(units: Iterable[str | None]) -> str | None:
    """The unit of a sum: a sum of several kinds of nats is in nats."""
    found = set(units)
    if len(found) == 1:
        return found.pop()
    return NATS if all(unit is not None and unit.startswith(NATS) for unit in found) else None
