"""What a Python user gets back from a study."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from finetune_lm.arguments import DataTrainingArguments
from finetune_lm.runs.directory import OPTIMIZATION_RESULTS
from finetune_lm.runs.run_result import RunResult

if TYPE_CHECKING:
    import optuna
    import pandas as pd


@dataclass(frozen=True)
class StudyResult(RunResult):
    """What a study has found by now, and where it is.

    ``best_loss`` is the value of the best trial; ``best_epoch`` is the epoch that reached it.

    Attributes:
        study: Optuna's study, with all of its trials.
        best_number: The number of the best trial; None if none has been completed.
        best_params: The values that it tried, by the names of the parameters.
        best_args: Its arguments for data and training.
    """

    study: optuna.Study | None = None
    best_number: int | None = None
    best_params: dict[str, Any] = field(default_factory=dict)
    best_args: DataTrainingArguments | None = None

    @cached_property
    def trials(self) -> pd.DataFrame:
        """The table of all trials, read when first asked for."""
        from finetune_lm.study.results import load_results

        return load_results(self.output_dir / OPTIMIZATION_RESULTS)
