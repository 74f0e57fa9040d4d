"""A series tested by several ranks: the first goes through it, the others test with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from finetune_lm.arguments import OptimizationArguments
from finetune_lm.launching import is_first_here
from finetune_lm.runs.following import attempt, follow
from finetune_lm.runs.interruption import Interruption
from finetune_lm.runs.run_identity import AllArguments
from finetune_lm.runs.run_result import RunResult
from finetune_lm.series.hub_cache import drop_from_cache

Conduct = Callable[[AllArguments], RunResult]


@dataclass(frozen=True)
class Next:
    """A checkpoint comes, or is not needed any more.

    Attributes:
        of_model: In what its arguments for the model are others than those of the series.
        of_data: The same of those for the data.
        is_over: Whether it has been tested.
    """

    of_model: Mapping[str, Any]
    of_data: Mapping[str, Any]
    is_over: bool = False

    @classmethod
    def of(cls, series: AllArguments, args: AllArguments, *, is_over: bool = False) -> Self:
        """What leads from the arguments of a series to those of a checkpoint."""
        return cls(_changes(series[0], args[0]), _changes(series[1], args[1]), is_over)


def _changes(before: Any, now: Any) -> dict[str, Any]:
    values = {each.name: getattr(now, each.name) for each in fields(now)}
    return {name: value for name, value in values.items() if value != getattr(before, name)}


def follow_series(series: AllArguments, conduct: Conduct) -> RunResult:
    """Test the checkpoints of a series with the first rank.

    Args:
        series: The arguments of the series.
        conduct: Does one run.

    Raises:
        Interrupted: If a signal came.
        OtherRankError: If another rank has ended.
    """

    def do(message: Next, interruption: Interruption) -> None:
        del interruption  # each run has its own
        model, data = replace(series[0], **message.of_model), replace(series[1], **message.of_data)
        if not message.is_over:
            attempt(lambda: conduct((model, data, OptimizationArguments())))
        elif is_first_here():
            drop_from_cache(model)

    directory, table = follow(do)
    return RunResult(directory, None, None, table)
